import { UsageError } from "../base/errors.ts";
import { checkNumbers, isAmount, isShare } from "../base/options.ts";

/** The learning rate as a function of the step: 0 before the first, up to the number of steps. */
export type Schedule = (step: number) => number;

export interface ScheduleOptions {
  /** The highest learning rate. */
  lr: number;
  /** How many steps there are. */
  steps: number;
  /** Steps during which the rate rises linearly from `warmupLr`. */
  warmup?: number;
  warmupLr?: number;
  /** The lowest rate at the end. */
  minLr?: number;
}

const isPositive = (value: number): boolean => value > 0 && isAmount(value);

/** Linear rise, then `shape` from 1 to 0 over what is left. */
function warmed(
  { lr, steps, warmup = 0, warmupLr = 0, minLr = 0 }: ScheduleOptions,
  shape: (t: number) => number,
): Schedule {
  checkNumbers({ lr, steps }, isPositive, "above 0");
  checkNumbers({ warmup, warmupLr }, isAmount, "at least 0");
  checkNumbers({ minLr }, (rate) => rate >= 0 && rate <= lr, `from 0 to lr, which is ${lr}`);
  if (warmup >= steps)
    throw new UsageError({
      message: `a warm-up of ${warmup} steps leaves nothing of ${steps}`,
      help: "train longer or warm up less",
    });
  return (step) => {
    if (step < warmup) return warmupLr + ((lr - warmupLr) * (step + 1)) / (warmup + 1);
    const t = Math.min(1, (step - warmup) / Math.max(1, steps - warmup));
    return minLr + (lr - minLr) * shape(t);
  };
}

/** Half a cosine from lr to minLr.  Loshchilov and Hutter, "SGDR" (2017), without restarts. */
export const cosine = (options: ScheduleOptions): Schedule => warmed(options, (t) => 0.5 * (1 + Math.cos(Math.PI * t)));

/** Multiplied by `factor` at each of some fractions of the run after warm-up, down to minLr. */
export const stepped = (options: ScheduleOptions & { at?: readonly number[]; factor?: number }): Schedule => {
  const { at = [0.3, 0.6, 0.9], factor = 0.1, lr, minLr = 0 } = options;
  for (const fraction of at) checkNumbers({ at: fraction }, isShare, "a fraction of the run, from 0 to 1");
  checkNumbers({ factor }, isShare, "from 0 to 1");
  const least = Math.min(minLr / lr, 1);
  return warmed({ ...options, minLr: 0 }, (t) => Math.max(factor ** at.filter((a) => t >= a).length, least));
};

/** (1 - t)^power */
export const polynomial = ({ power = 1, ...options }: ScheduleOptions & { power?: number }): Schedule => {
  checkNumbers({ power }, isPositive, "above 0");
  return warmed(options, (t) => (1 - t) ** power);
};

/**
 * Rises to lr over the first part, falls far below where it began over the rest, which the last step reaches: PyTorch's `OneCycleLR`.
 * `warmup`, `warmupLr` and `minLr` do nothing here: the rise is its warm-up, and both ends are shares of lr.
 * Smith and Topin, "Super-Convergence" (2018).
 */
export function oneCycle(
  options: ScheduleOptions & { rise?: number; startFactor?: number; endFactor?: number },
): Schedule {
  const { lr, steps, rise = 0.3, startFactor = 1 / 25, endFactor = 1e-4 } = options;
  checkNumbers({ lr, steps }, isPositive, "above 0");
  checkNumbers({ rise, startFactor, endFactor }, isShare, "from 0 to 1");
  const between = (a: number, b: number, t: number): number => b + (a - b) * 0.5 * (1 + Math.cos(Math.PI * t));
  const top = Math.max(0, rise * steps - 1);
  const last = steps - 1;
  return (step) =>
    step < top
      ? between(lr * startFactor, lr, step / top)
      : between(lr, lr * startFactor * endFactor, last > top ? Math.min(1, (step - top) / (last - top)) : 0);
}

/** The same rate throughout, after warm-up; `minLr` does nothing here. */
export const constantRate = (options: ScheduleOptions): Schedule => warmed({ ...options, minLr: 0 }, () => 1);

/**
 * Factors of the learning rate by depth: the head learns at 1, each layer below at `decay` times the one above.
 * Clark et al., "ELECTRA" (2020); Bao et al., "BEiT" (2022).  `depthOf` gives a path's layer, 0 for the stem, `depth` for the head.
 */
export const layerDecay = (decay: number, depth: number, depthOf: (path: string) => number) => {
  checkNumbers({ decay }, (value) => value > 0 && value <= 1, "above 0, and at most 1");
  return (path: string): number => decay ** (depth - depthOf(path));
};
