import stringWidth from "string-width";

/** Columns that a text takes where letters have one width, as on a terminal; its styles take none. */
export const textWidth = (text: string): number => stringWidth(text);

const characters = new Intl.Segmenter();

/** As much of a text's beginning as fits into so many columns. */
export function cutTo(text: string, width: number): string {
  let kept = "";
  for (const { segment } of characters.segment(text)) {
    if (textWidth(kept + segment) > width) break;
    kept += segment;
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
