import { gradients } from "../autodiff/gradients.ts";
import { OrielError } from "../base/errors.ts";
import type { DType } from "../graph/dtype.ts";
import { Graph } from "../graph/graph.ts";
import { known, type Shape } from "../graph/shape.ts";
import { input, type Tensor, withScope } from "../graph/tensor.ts";
import { type Module, type Weight, weightsOf } from "../nn/module.ts";
import { Rng } from "../nn/rng.ts";
import { trace } from "../nn/trace.ts";
import { concat, waitFor } from "../ops/move.ts";
import { average, type Optimizer } from "../optim/optimizer.ts";
import { recompute } from "../passes/recompute.ts";

/** A module that learns: from a batch, by name, to a loss and whatever else is worth knowing. */
export interface Task extends Module {
  forward(batch: Readonly<Record<string, Tensor>>): { loss: Tensor } & Record<string, Tensor>;
}

export type BatchTypes = Readonly<Record<string, { dtype: DType; shape: readonly number[] }>>;

export interface StepOptions {
  /** What a batch holds.  The first axis of each is the batch. */
  batch: BatchTypes;
  /** Parameters that stay as they are. */
  frozen?: (path: string) => boolean;
  /** Decay of an exponential moving average of the parameters; none by default. */
  ema?: number;
  /** Cuts the batch into parts that run one after the other, and sums their gradients: the memory of a part, the step of a whole. */
  accumulate?: number;
  /**
   * Bytes that a step may take, by the estimate of `memoryUse`: what would be kept for the backward pass beyond that is computed
   * again.  The results are the same.  Throws where no step can be that small, and says what the smallest takes.
   */
  memoryBudget?: number;
}

/** One piece of the state that a step reads and replaces. */
export interface StateEntry {
  /** Its name among the graph's inputs; `next.` + name among the outputs. */
  name: string;
  kind: "parameter" | "buffer" | "slot" | "ema";
  /** The parameter or buffer that it belongs to. */
  path: string;
  shape: readonly number[];
}

/**
 * A whole training step as one graph: (state, batch, lr, step, seed) -> (next state, loss, metrics).  Frozen parameters are inputs
 * that have no successor; bind them before compiling.
 */
export interface TrainStep {
  graph: Graph;
  state: readonly StateEntry[];
  frozen: readonly Weight[];
  metrics: readonly string[];
}

export const nextName = (name: string): string => `next.${name}`;

/** What a step may write over, by name: all but the weights, in which is looked for what went wrong where something does. */
export const spentNames = ({ state }: TrainStep): string[] =>
  state.filter(({ kind }) => kind === "slot" || kind === "ema").map(({ name }) => name);

const slotName = (slot: string, path: string): string => `optimizer.${slot}.${path}`;
const emaName = (path: string): string => `ema.${path}`;

/** Draws the training step of a task: forward, backward, update. */
export function trainStep(task: Task, optimizer: Optimizer, options: StepOptions): TrainStep {
  const { frozen = () => false, ema, accumulate = 1, memoryBudget } = options;
  const weights = weightsOf(task);
  const trained = weights.filter((w) => w.kind === "parameter" && !frozen(w.path));
  if (trained.length === 0)
    throw new OrielError("train", { message: "every parameter is frozen", help: "freeze fewer of them" });

  const lr = input([]);
  const step = input([]);
  const seed = input([], "uint32");
  const batch = Object.fromEntries(
    Object.entries(options.batch).map(([name, { dtype, shape }]) => [name, input(shape as Shape, dtype)]),
  );
  const { result: drawn, updates } = trace(task, { training: true, rng: new Rng(seed) }, () =>
    lossAndGradients(task, trained, cutBatch(batch, accumulate)),
  );

  const metrics: [string, Tensor][] = Object.entries(drawn.metrics);
  let grads = drawn.grads;
  for (const transform of optimizer.transforms) {
    const made = withScope("clip", () => transform(grads));
    grads = made.grads;
    metrics.push(...Object.entries(made.metrics ?? {}));
  }

  const state: StateEntry[] = [];
  const inputs: [string, Tensor][] = [];
  const outputs: [string, Tensor][] = [];
  const keep = (entry: StateEntry, now: Tensor, next: Tensor): void => {
    state.push(entry);
    inputs.push([entry.name, now]);
    outputs.push([nextName(entry.name), next]);
  };
  const update = withScope("update", () => optimizer.rule.begin({ lr, step }));
  for (const { path, tensor } of trained) {
    const shape = tensor.shape as readonly number[];
    const slots = Object.fromEntries(optimizer.rule.slots.map((slot) => [slot, input(shape)]));
    const grad = grads.get(path) as Tensor;
    const updated = withScope(`update:${path}`, () => update({ path, param: tensor, grad, slots }));
    keep({ name: path, kind: "parameter", path, shape }, tensor, updated.param);
    for (const slot of optimizer.rule.slots)
      keep({ name: slotName(slot, path), kind: "slot", path, shape }, slots[slot], updated.slots[slot]);
    if (ema !== undefined) {
      const before = input(shape);
      keep({ name: emaName(path), kind: "ema", path, shape }, before, average(before, updated.param, ema));
    }
  }
  for (const { path, tensor, kind } of weights)
    if (kind === "buffer")
      keep({ name: path, kind, path, shape: tensor.shape as readonly number[] }, tensor, updates.get(tensor) ?? tensor);

  const rest = weights.filter((w) => w.kind === "parameter" && frozen(w.path));
  const whole = new Graph(
    [
      ...inputs,
      ...rest.map((w): [string, Tensor] => [w.path, w.tensor]),
      ...Object.entries(batch),
      ["lr", lr],
      ["step", step],
      ["seed", seed],
    ],
    [...metrics, ...outputs],
  );
  const graph = memoryBudget === undefined ? whole : recompute(whole, { budget: memoryBudget });
  return { graph, state, frozen: rest, metrics: metrics.map(([name]) => name) };
}

interface Drawn {
  metrics: Record<string, Tensor>;
  grads: Map<string, Tensor>;
}

/** Loss, metrics and gradients, the mean over the parts of a batch.  Each part waits for the one before it. */
function lossAndGradients(task: Task, trained: readonly Weight[], parts: readonly Record<string, Tensor>[]): Drawn {
  let done: Drawn | undefined;
  for (const part of parts) {
    const waiting = done ? after(part, done.grads.values()) : part;
    const metrics = task.forward(waiting);
    const loss = parts.length === 1 ? metrics.loss : metrics.loss.mul(1 / parts.length);
    const dxs = gradients(
      loss,
      trained.map((w) => w.tensor),
    );
    const grads = new Map(trained.map((w, i): [string, Tensor] => [w.path, dxs[i]]));
    done = done
      ? {
          metrics: Object.fromEntries(Object.entries(metrics).map(([k, v]) => [k, (done as Drawn).metrics[k].add(v)])),
          grads: new Map([...grads].map(([path, g]) => [path, (done as Drawn).grads.get(path)!.add(g)])),
        }
      : { metrics, grads };
  }
  const { metrics, grads } = done as Drawn;
  const mean = (x: Tensor): Tensor => (parts.length === 1 ? x : x.mul(1 / parts.length));
  return { metrics: Object.fromEntries(Object.entries(metrics).map(([k, v]) => [k, mean(v)])), grads };
}

/** A batch, made to wait until every gradient is there: one that is not would hold what it reads of the part before. */
function after(batch: Record<string, Tensor>, grads: Iterable<Tensor>): Record<string, Tensor> {
  const gate = concat(
    Array.from(grads, (g) => g.reshape([-1]).slice(0, 0, 1)),
    0,
  );
  return Object.fromEntries(Object.entries(batch).map(([name, x]) => [name, waitFor(x, gate)]));
}

function cutBatch(batch: Record<string, Tensor>, parts: number): Record<string, Tensor>[] {
  if (parts === 1) return [batch];
  return Array.from({ length: parts }, (_, i) =>
    Object.fromEntries(
      Object.entries(batch).map(([name, x]) => {
        const size = known(x.shape[0], "the batch");
        if (size % parts !== 0)
          throw new OrielError("train", {
            message: `a batch of ${size} does not divide into ${parts} parts`,
            help: "choose a batch that does",
          });
        return [name, x.slice(0, (i * size) / parts, ((i + 1) * size) / parts)];
      }),
    ),
  );
}
