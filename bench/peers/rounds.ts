/** Rounds in which the sides take turns, and what shows whether the machine was theirs alone. */
import { cpus } from "node:os";
import type { Side } from "./side.ts";
import { median } from "./table.ts";

/** One side's turn. */
interface Turn {
  /** The median of the steps. */
  msPerImage: number;
  peakBytes: number;
  /** Cores that the sides whose turn it was not used meanwhile: about 0, or the race is not fair. */
  restless: number;
  /** Cores that everything else on the machine used. */
  foreign: number;
}

/** One turn of every side, in the order of the sides. */
export type Round = readonly Turn[];

export interface RoundOptions {
  rounds: number;
  /** Timed steps a turn, at least; quick steps are repeated for about a second. */
  steps: number;
  batch: number;
  progress: (line: string) => void;
}

/** Above this many cores in other hands, a round is noise and is run again. */
const quiet = 0.1;

/** The rounds during which the machine was quiet; those of all attempts when there were too few in three times as many. */
export async function runRounds(sides: readonly Side[], options: RoundOptions): Promise<Round[]> {
  const all: Round[] = [];
  const undisturbed = () => all.filter((round) => round.every(({ foreign }) => foreign <= quiet));
  while (undisturbed().length < options.rounds && all.length < 3 * options.rounds) {
    const round: Turn[] = [];
    // Who comes first moves on by one each round, so that nobody always runs behind the same neighbour.
    for (let i = 0; i < sides.length; i++) {
      const at = (all.length + i) % sides.length;
      round[at] = await takeTurn(sides[at], sides.toSpliced(at, 1), options);
    }
    all.push(round);
    const times = sides.map(({ name }, at) => `${name} ${round[at].msPerImage.toFixed(1)}`);
    const noise = Math.max(...round.map(({ foreign }) => foreign));
    const verdict = noise > quiet ? `  (others used ${noise.toFixed(1)} cores; again)` : "";
    options.progress(`round ${all.length}: ${times.join("  ")}${verdict}`);
  }
  const restless = Math.max(...all.flat().map((turn) => turn.restless));
  if (restless > 0.05) options.progress(`warning: sides that should rest used up to ${restless.toFixed(2)} cores`);
  if (undisturbed().length >= options.rounds) return undisturbed();
  options.progress("warning: other programs were at work in most rounds; times and ratios are rough");
  return all;
}

async function takeTurn(side: Side, others: readonly Side[], { steps, batch }: RoundOptions): Promise<Turn> {
  const used = () => [
    performance.now() / 1000,
    busySeconds(),
    side.cpuSeconds(),
    sum(others.map((other) => other.cpuSeconds())),
  ];
  // An untimed step wakes the threads and fills the caches that the others emptied.
  const [first] = (await side.run(1)).ms;
  const before = used();
  const { ms, peakBytes } = await side.run(Math.max(steps, Math.ceil(1000 / first)));
  const [elapsed, busy, own, rest] = used().map((value, i) => value - before[i]);
  const foreign = Math.max(0, busy - own - rest) / elapsed;
  return { msPerImage: median(ms) / batch, peakBytes, restless: rest / elapsed, foreign };
}

const sum = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0);

/** Seconds that all cores together have worked since the machine started. */
const busySeconds = () => sum(cpus().map(({ times: { user, nice, sys, irq } }) => user + nice + sys + irq)) / 1000;
