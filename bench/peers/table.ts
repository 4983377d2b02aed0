/** What the race found, as text. */

export interface Result {
  name: string;
  versions: Record<string, string>;
  firstStepSeconds: number;
  /** ms per image, one entry a round. */
  rounds: number[];
  peakBytes: number;
}

export const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[Math.floor((sorted.length - 1) / 2)] + sorted[Math.ceil((sorted.length - 1) / 2)]) / 2;
};

/** "0.94 (0.91–0.97)": the median and the range over rounds. */
function spread(values: readonly number[], digits: number): string {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return `${median(values).toFixed(digits)} (${low.toFixed(digits)}–${high.toFixed(digits)})`;
}

/** A row for each side; below, our time over the fastest peer's, compared round by round, and our memory over eager's. */
export function table(title: string, results: readonly Result[]): string {
  const eager = results.find(({ name }) => name === "eager");
  const rows = results.map(({ name, rounds, peakBytes, firstStepSeconds }) => [
    name,
    spread(rounds, 1),
    `${(peakBytes / 2 ** 30).toFixed(2)} GiB`,
    eager ? (peakBytes / eager.peakBytes).toFixed(2) : "–",
    `${firstStepSeconds.toFixed(1)} s`,
  ]);
  const head = ["side", "ms per image (rounds)", "peak memory", "of eager's", "to first step"];
  const lines = [title, "", ...align([head, ...rows])];
  const ours = results.find(({ name }) => name === "ours");
  const fastest = results
    .filter((result) => result !== ours)
    .reduce<Result | undefined>(
      (best, peer) => (!best || median(peer.rounds) < median(best.rounds) ? peer : best),
      undefined,
    );
  if (ours && fastest) {
    const ratios = ours.rounds.map((ms, i) => ms / fastest.rounds[i]);
    lines.push("", `time, ours / ${fastest.name}: ${spread(ratios, 3)}`);
  }
  const versions = new Set(
    results.flatMap((result) => Object.entries(result.versions).map((entry) => entry.join(" "))),
  );
  return [...lines, "", [...versions].join(", ")].join("\n");
}

/** Columns as wide as their widest cell. */
function align(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]))
      .join("  ")
      .trimEnd(),
  );
}
