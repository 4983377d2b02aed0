/** Text as it may stand between tags and in attributes. */
export const escaped = (text: unknown): string => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

export const percent = (share: number, digits = 1): string => `${(100 * share).toFixed(digits)} %`;

/** "2 h 5 min", "3 min 20 s", "7.4 s" */
export function duration(seconds: number): string {
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 10) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** A number with three significant digits, or more, without needless zeros. */
export function short(value: number, more = 0): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1 + more).replace(/\.?0*e\+?/, "e");
  return String(Number(value.toPrecision(3 + more)));
}

/** 12 345 */
export const grouped = (count: number): string => String(count).replace(/\B(?=(\d{3})+$)/g, "\u202f");
