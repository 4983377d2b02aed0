import { escaped, short } from "./html.ts";

export interface Series {
  name: string;
  points: readonly (readonly [x: number, y: number])[];
  /** Which of the page's colours. */
  color: 1 | 2 | 3;
  /** A thin line behind, for values that jump. */
  faint?: boolean;
  /** A mark at each point. */
  dots?: boolean;
}

export interface ChartOptions {
  title: string;
  x: string;
  y: string;
  series: readonly Series[];
  /** A place on the x axis worth a line, and what it is. */
  mark?: { x: number; label: string };
  /** A value as text, with so many digits more than usual. */
  format?: (y: number, more?: number) => string;
}

const frame = { width: 520, height: 300, right: 14, top: 16, bottom: 42 };

/** A line chart as inline SVG, its colours those of the page. */
export function lineChart({ title, x, y, series, mark, format = short }: ChartOptions): string {
  const shown = series.filter((s) => s.points.length > 0);
  const all = shown.flatMap((s) => s.points);
  if (all.length === 0) return "";
  const last = Math.max(...all.map((p) => p[0]));
  const xs = niceTicks(Math.min(0, ...all.map((p) => p[0])), last, 6);
  const xTicks = xs.ticks.filter((t) => t <= last);
  const ys = niceTicks(Math.min(...all.map((p) => p[1])), Math.max(...all.map((p) => p[1])), 5);
  const [xLabels, yLabels] = [labels(xTicks, short), labels(ys.ticks, format)];
  const left = 30 + 7 * Math.max(...yLabels.map((label) => label.length)); // the axis's name, then its numbers
  const atX = scale(xs.low, last, left, frame.width - frame.right);
  const atY = scale(ys.low, ys.high, frame.height - frame.bottom, frame.top);
  const legend = shown.filter((s) => !s.faint);
  const parts = [
    ...ys.ticks.map(
      (t, i) =>
        `<line class="grid" x1="${left}" x2="${frame.width - frame.right}" y1="${atY(t)}" y2="${atY(t)}"/><text class="tick" x="${left - 8}" y="${atY(t)}" dy=".32em" text-anchor="end">${escaped(yLabels[i])}</text>`,
    ),
    ...xTicks.map(
      (t, i) =>
        `<text class="tick" x="${atX(t)}" y="${frame.height - frame.bottom + 18}" text-anchor="middle">${escaped(xLabels[i])}</text>`,
    ),
    `<line class="axis" x1="${left}" x2="${frame.width - frame.right}" y1="${frame.height - frame.bottom}" y2="${frame.height - frame.bottom}"/>`,
    `<text class="label" x="${(left + frame.width - frame.right) / 2}" y="${frame.height - 6}" text-anchor="middle">${escaped(x)}</text>`,
    `<text class="label" transform="translate(14 ${(frame.top + frame.height - frame.bottom) / 2}) rotate(-90)" text-anchor="middle">${escaped(y)}</text>`,
    mark ? markLine(mark, atX) : "",
    ...shown.map((s) => draw(s, atX, atY, format)),
  ];
  return `<figure class="chart"><figcaption><h3>${escaped(title)}</h3>${legend.length > 1 ? legendOf(legend) : ""}</figcaption>
<svg viewBox="0 0 ${frame.width} ${frame.height}" role="img" aria-label="${escaped(title)}">${parts.join("")}</svg></figure>`;
}

type Scale = (value: number) => number;

const scale =
  (low: number, high: number, from: number, to: number): Scale =>
  (value) =>
    Math.round((from + ((value - low) / (high - low || 1)) * (to - from)) * 10) / 10;

function draw(
  { points, color, faint, dots, name }: Series,
  atX: Scale,
  atY: Scale,
  format: (y: number) => string,
): string {
  const path = points.map(([x, y], i) => `${i === 0 ? "M" : "L"}${atX(x)} ${atY(y)}`).join("");
  const line = `<path class="line c${color}${faint ? " faint" : ""}" d="${path}"/>`;
  if (!dots) return line;
  const marks = points.map(
    ([x, y]) =>
      `<circle class="dot c${color}" cx="${atX(x)}" cy="${atY(y)}" r="${points.length > 40 ? 1.5 : 3}"><title>${escaped(name)}, ${short(x)}: ${escaped(format(y))}</title></circle>`,
  );
  return line + marks.join("");
}

function markLine({ x, label }: { x: number; label: string }, atX: Scale): string {
  const right = atX(x) > frame.width / 2;
  return `<line class="mark" x1="${atX(x)}" x2="${atX(x)}" y1="${frame.top}" y2="${frame.height - frame.bottom}"/><text class="tick" x="${atX(x)}" y="${frame.top - 5}" text-anchor="${right ? "end" : "start"}">${escaped(label)}</text>`;
}

const legendOf = (series: readonly Series[]): string =>
  `<span class="legend">${series.map((s) => `<span><i class="c${s.color}"></i>${escaped(s.name)}</span>`).join("")}</span>`;

/** About `count` round numbers that take in low … high, and where the axis begins and ends. */
function niceTicks(low: number, high: number, count: number): { ticks: number[]; low: number; high: number } {
  const span = high - low || Math.abs(high) || 1;
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough) ?? 10 * power;
  const first = Math.floor(low / step + 1e-9);
  const last = Math.ceil(high / step - 1e-9);
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
  return { ticks, low: ticks[0], high: ticks[ticks.length - 1] };
}

/** Ticks as text, with as many digits as it takes to show that they are equally far apart. */
function labels(ticks: readonly number[], format: (value: number, more?: number) => string): string[] {
  const as = (more: number): string[] => ticks.map((tick) => format(tick, more));
  return [0, 1, 2, 3].map(as).find(isEven) ?? as(4);
}

function isEven(texts: readonly string[]): boolean {
  const values = texts.map(Number.parseFloat);
  const steps = values.slice(1).map((value, i) => value - values[i]);
  return steps.every((step) => step > 0 && Math.abs(step - steps[0]) < 1e-6 * step);
}

/** At most `most` points, each the mean of its neighbours. */
export function thin(points: readonly (readonly [number, number])[], most: number): [number, number][] {
  const size = Math.ceil(points.length / most);
  const out: [number, number][] = [];
  for (let i = 0; i < points.length; i += size) {
    const part = points.slice(i, i + size);
    out.push([mean(part.map((p) => p[0])), mean(part.map((p) => p[1]))]);
  }
  return out;
}

/** Each point the mean of those within `radius` places. */
export const smooth = (points: readonly (readonly [number, number])[], radius: number): [number, number][] =>
  points.map(([x], i) => [x, mean(points.slice(Math.max(0, i - radius), i + radius + 1).map((p) => p[1]))]);

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
