import { OrielError } from "../base/errors.ts";
import type { Tensor } from "../graph/tensor.ts";
import { type Module, weightsOf } from "./module.ts";
import type { Rng } from "./rng.ts";

/** How a model is being drawn. */
interface Trace {
  /** Batch statistics, drop path and the like are on. */
  training: boolean;
  rng?: Rng;
  /** New values of buffers. */
  updates: Map<Tensor, Tensor>;
}

let current: Trace | undefined;

export interface TraceOptions {
  training?: boolean;
  /** Where masks and noise come from while training. */
  rng?: Rng;
}

/** Draws a model: inside, modules know their paths and whether they train.  Returns what was drawn and the buffers' new values. */
export function trace<T>(
  model: Module,
  { training = false, rng }: TraceOptions,
  draw: () => T,
): { result: T; updates: ReadonlyMap<Tensor, Tensor> } {
  weightsOf(model);
  const outer = current;
  current = { training, rng, updates: new Map() };
  try {
    return { result: draw(), updates: current.updates };
  } finally {
    current = outer;
  }
}

/** Whether the model is being drawn for training. */
export const isTraining = (): boolean => current?.training ?? false;

/** Gives a buffer its value for the next step, made from the one it has: its own, or what an earlier use in this step made of it. */
export function updateBuffer(buffer: Tensor, next: (before: Tensor) => Tensor): void {
  current?.updates.set(buffer, next(current.updates.get(buffer) ?? buffer));
}

/** The source of randomness of this drawing. */
export function currentRng(): Rng {
  if (!current?.rng)
    throw new OrielError("trace", {
      message: "this model draws random numbers",
      help: "give trace() an rng when it trains",
    });
  return current.rng;
}
