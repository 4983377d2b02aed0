import { Graph, substitute } from "../../graph/graph.ts";
import { input } from "../../graph/tensor.ts";
import { weightsOf } from "../../nn/module.ts";
import { Rng } from "../../nn/rng.ts";
import { trace } from "../../nn/trace.ts";
import type { Optimizer, Rule } from "../../optim/optimizer.ts";
import { recompute } from "../../passes/recompute.ts";
import { namedApart, type StepState } from "./state.ts";
import { type BatchTypes, batchInputs, cutBatch, lossAndGradients, type Task } from "./task.ts";
import { drawUpdate, frozenOf, type Named, trainedOf } from "./update.ts";

export interface StepOptions {
  /** What a batch holds.  The first axis of each is the batch. */
  batch: BatchTypes;
  /** Parameters that stay as they are; those that the loss does not depend on stay anyhow. */
  frozen?: (path: string) => boolean;
  /**
   * Decay of an exponential moving average of the parameters, and of running statistics, which belong to them; none by default.  It
   * rises to that over the first steps, as (1 + t) / (10 + t).
   */
  ema?: number;
  /** Cuts the batch into parts that run one after the other, and sums their gradients: the memory of a part, the step of a whole. */
  accumulate?: number;
  /**
   * Bytes that a step may take, by the estimate of `memoryUse`: what would be kept for the backward pass beyond that is computed
   * again.  The results are the same.  Throws where no step can be that small, and says what the smallest takes.
   */
  memoryBudget?: number;
  /**
   * Takes small tensors of the state as vectors of several, for fewer and larger operations: for a `StepProgram`, which keeps them
   * apart by name all the same.  Without it every tensor of the state is an input of its own.
   */
  pack?: boolean;
}

/**
 * A whole training step as one graph: (state, batch, lr, step, seed) -> (next state, loss, metrics).  Frozen parameters are inputs
 * that have no successor; bind them before compiling.
 */
export interface TrainStep extends StepState {
  graph: Graph;
}

/** Draws the training step of a task: forward, backward, update. */
export function trainStep(task: Task, optimizer: Optimizer | Rule, options: StepOptions): TrainStep {
  const { accumulate = 1, memoryBudget } = options;
  const weights = namedApart(weightsOf(task), options.batch);
  const trained = trainedOf(weights, options);
  const seed = input([], "uint32");
  const batch = batchInputs(options.batch);
  const { result: drawn, updates } = trace(task, { training: true, rng: new Rng(seed) }, () =>
    lossAndGradients(task, trained, cutBatch(batch, accumulate)),
  );
  const changed = { weights, grads: drawn.grads, updates };
  const { state, packs, ...update } = drawUpdate(changed, optimizer, options);
  const frozen = frozenOf(changed);
  const metrics = [...Object.entries(drawn.metrics), ...update.metrics];
  const whole = new Graph(
    [
      ...update.inputs,
      ...frozen.map(({ path, tensor }): Named => [path, tensor]),
      ...Object.entries(batch),
      ...update.controls,
      ["seed", seed],
    ],
    substitute([...metrics, ...update.outputs], update.pieces),
  );
  const graph = memoryBudget === undefined ? whole : recompute(whole, { budget: memoryBudget });
  return { graph, state, packs, frozen, metrics: metrics.map(([name]) => name) };
}
