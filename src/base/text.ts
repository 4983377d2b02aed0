const nothing = /[\p{Mn}\p{Me}\p{Cf}]/u;
const wide =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff01-\uff60\uffe0-\uffe6\u{20000}-\u{3fffd}]|\p{Emoji_Presentation}/u;

/** Columns that a character takes where letters have one width: two in East Asian scripts (Unicode Annex 11, W and F) and most emoji, none for a mark upon another. */
const columnsOf = (character: string): number => (nothing.test(character) ? 0 : wide.test(character) ? 2 : 1);

/** Columns that a text takes where letters have one width, as on a terminal; its styles take none. */
export function textWidth(text: string): number {
  let width = 0;
  for (const character of text.replace(/\p{Cc}\[[\d;]*m/gu, "")) width += columnsOf(character);
  return width;
}

/** As much of a text's beginning as fits into so many columns. */
export function cutTo(text: string, width: number): string {
  let kept = "";
  let left = width;
  for (const character of text) {
    left -= columnsOf(character);
    if (left < 0) break;
    kept += character;
  }
  return kept;
}

/** A name on one line, whatever somebody called a file: line breaks and other control characters as they are escaped in JSON. */
export const onOneLine = (text: string): string =>
  text.replace(/\p{Cc}/gu, (c) => (c < " " ? JSON.stringify(c).slice(1, -1) : `\\u00${c.charCodeAt(0).toString(16)}`));

/** "1 step", "20 steps" */
export const some = (n: number, what: string): string => `${n} ${what}${n === 1 ? "" : "s"}`;

/** A word as it is written on a command line, in quotes where it needs them. */
export function commandWord(word: string): string {
  if (/^[\p{L}\p{N}_@%+=:,./\\-]+$/u.test(word)) return word;
  return /["$`!]/.test(word) ? `'${word.replaceAll("'", "'\\''")}'` : `"${word}"`;
}
