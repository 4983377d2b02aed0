import { gradientsReached } from "../../autodiff/gradients.ts";
import { OrielError, UsageError } from "../../base/errors.ts";
import { checkNumbers } from "../../base/options.ts";
import { some } from "../../base/text.ts";
import { type DType, isFloat } from "../../graph/dtype.ts";
import { Graph, substitute } from "../../graph/graph.ts";
import { type Dim, known, type Shape, sameDim, showShape, staticSize } from "../../graph/shape.ts";
import { constant, input, Tensor, withScope } from "../../graph/tensor.ts";
import { overWeight } from "../../nn/losses.ts";
import { type Module, type Weight, weightsOf } from "../../nn/module.ts";
import { Rng } from "../../nn/rng.ts";
import { trace } from "../../nn/trace.ts";
import { concat, gather, waitFor } from "../../ops/move.ts";
import { average, averageRate, chain, type Optimizer, type Rule } from "../../optim/optimizer.ts";
import { recompute } from "../../passes/recompute.ts";
import { type Held, holding, type Pack, packable } from "./packs.ts";

/**
 * A module that learns: from a batch, by name, to a loss and whatever else is worth knowing, each a number or one entry for every
 * image of the batch.
 */
export interface Task extends Module {
  /** The loss is a mean over the batch's images: where the batch is cut into parts, those of its parts are averaged. */
  forward(batch: Readonly<Record<string, Tensor>>): { loss: Tensor } & Record<string, Tensor>;
  /**
   * What the loss is a mean over where that is not the batch's images, but weights of their classes, say: by it the parts of a batch
   * count.  [] or undefined
   */
  lossWeight?(batch: Readonly<Record<string, Tensor>>): Tensor | undefined;
}

export type BatchTypes = Readonly<Record<string, { dtype: DType; shape: readonly number[] }>>;

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

/** One piece of the state that a step reads and replaces. */
export interface StateEntry {
  /** Its name among the graph's inputs, where it is not packed; `next.` + name among the outputs. */
  name: string;
  kind: "parameter" | "buffer" | "slot" | "ema";
  /** The parameter or buffer that it belongs to. */
  path: string;
  shape: readonly number[];
}

/** What a training step reads, replaces and tells, however it is drawn. */
export interface StepState {
  state: readonly StateEntry[];
  /** Those of the state that the graph takes and gives as one vector. */
  packs: readonly Pack[];
  frozen: readonly Weight[];
  metrics: readonly string[];
}

/**
 * A whole training step as one graph: (state, batch, lr, step, seed) -> (next state, loss, metrics).  Frozen parameters are inputs
 * that have no successor; bind them before compiling.
 */
export interface TrainStep extends StepState {
  graph: Graph;
}

/** Float32 values and their shape. */
export interface FloatTensor {
  shape: readonly number[];
  data: Float32Array<ArrayBuffer>;
}

/** By the name that the training step gives them. */
export type Tensors = ReadonlyMap<string, FloatTensor>;

export const nextName = (name: string): string => `next.${name}`;

/** A graph of a step whose frozen parameters have their values. */
export function boundGraph(graph: Graph, frozen: readonly Weight[], values: Tensors): Graph {
  const missing = frozen.filter(({ path }) => !values.has(path));
  if (missing.length > 0)
    throw new OrielError("weights", {
      message: `${missing.length} frozen parameters have no values`,
      details: missing.slice(0, 8).map(({ path }) => path),
      help: "give them beside the state, by their paths",
    });
  const bound = frozen.map(({ path, tensor }): [string, Tensor] => {
    const { data } = values.get(path)!;
    return [path, constant(data, tensor.shape as number[], "float32", path)];
  });
  return graph.bind(new Map(bound));
}

/** Inputs that hold the state, its tensors or packs of them; of some kinds, or all. */
export function heldNames(
  { state, packs }: Pick<StepState, "state" | "packs">,
  ...kinds: StateEntry["kind"][]
): string[] {
  const packed = new Set(packs.flatMap(({ entries }) => entries.map(({ name }) => name)));
  const held = [...state.filter(({ name }) => !packed.has(name)), ...packs];
  return held.filter(({ kind }) => kinds.length === 0 || kinds.includes(kind)).map(({ name }) => name);
}

/** Those that a step may write over: optimizer slots and averages.  Weights stay, so that a failed step can be explained. */
export const spentNames = (step: StepState): string[] => heldNames(step, "slot", "ema");

/**
 * What a training begins with, by name: the weights given, those that are frozen too, zeros for what the optimizer keeps, and averages
 * that are the weights.
 */
export function initialState(
  { state, frozen }: Pick<StepState, "state" | "frozen">,
  weights: ReadonlyMap<string, Float32Array<ArrayBuffer>>,
): Map<string, FloatTensor & { dtype: "float32" }> {
  const still = frozen.map(({ path, tensor }) => ({
    name: path,
    kind: "parameter",
    path,
    shape: tensor.shape as number[],
  }));
  const entries = [...state, ...still];
  const given = entries.filter(({ kind }) => kind !== "slot");
  const missing = given.filter(({ path }) => !weights.has(path));
  if (missing.length > 0)
    throw new OrielError("weights", {
      message: `${missing.length} weights have no values`,
      details: missing.slice(0, 8).map(({ path }) => path),
      help: "initialWeights(task, seed) makes them",
    });
  const wrong = given.filter(({ path, shape }) => weights.get(path)!.length !== staticSize(shape));
  if (wrong.length > 0)
    throw new OrielError("weights", {
      message: `${some(wrong.length, "weight")} of another size than the model's`,
      details: wrong
        .slice(0, 8)
        .map(({ path, shape }) => `${path} ${showShape(shape)}: ${weights.get(path)!.length} values`),
    });
  return new Map(
    entries.map(({ name, kind, path, shape }) => {
      // Zeros are written, so that their memory is there before a first step asks for it page by page.
      const data = kind === "slot" ? new Float32Array(staticSize(shape)).fill(0) : weights.get(path)!;
      return [name, { dtype: "float32", shape, data }];
    }),
  );
}

const slotName = (slot: string, path: string): string => `optimizer.${slot}.${path}`;
const emaName = (path: string): string => `ema.${path}`;

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

export const batchInputs = (types: BatchTypes): Record<string, Tensor> =>
  Object.fromEntries(Object.entries(types).map(([name, { dtype, shape }]) => [name, input(shape as Shape, dtype)]));

/** What a step and its state call what is no weight. */
const taken = /^(?:optimizer|ema|next|pack)\.|^(?:image|lr|step|seed|part)$/;

/** The weights, whose names must be no others of a step or of a checkpoint. */
export function namedApart(weights: readonly Weight[], batch: BatchTypes): readonly Weight[] {
  const clashing = weights.filter(({ path }) => taken.test(path) || Object.hasOwn(batch, path));
  if (clashing.length === 0) return weights;
  throw new UsageError({
    message: `${some(clashing.length, "weight")} of the model ${clashing.length === 1 ? "is" : "are"} called as something of the training step is`,
    details: clashing.slice(0, 8).map(({ path }) => path),
    help: "give the module's field another name",
  });
}

/** The parameters that are not held back. */
export function trainedOf(weights: readonly Weight[], { frozen = () => false }: Pick<StepOptions, "frozen">): Weight[] {
  const parameters = weights.filter((w) => w.kind === "parameter");
  if (parameters.length === 0)
    throw new OrielError("train", {
      message: "the task has no parameters",
      help: "a module finds its layers in public fields and lists, not in #private fields or plain objects",
    });
  const trained = parameters.filter((w) => !frozen(w.path));
  if (trained.length === 0)
    throw new OrielError("train", { message: "every parameter is frozen", help: "freeze fewer of them" });
  return trained;
}

interface Changed {
  weights: readonly Weight[];
  /** Of parameters, by path. */
  grads: ReadonlyMap<string, Tensor>;
  /** The next values of buffers. */
  updates: ReadonlyMap<Tensor, Tensor>;
}

/** Parameters that no gradient reaches, or that are held back. */
export const frozenOf = ({ weights, grads }: Changed): Weight[] =>
  weights.filter(({ kind, path }) => kind === "parameter" && !grads.has(path));

export type Named = [name: string, tensor: Tensor];

interface Update extends Pick<StepState, "state" | "packs"> {
  /** The state, as the graph takes it and gives it. */
  inputs: Named[];
  outputs: Named[];
  /** The learning rate and the step's number. */
  controls: Named[];
  /** What transforms tell of the gradients. */
  metrics: Named[];
  /** What stands in for packed weights. */
  pieces: Map<Tensor, Tensor>;
}

/** From gradients to the next state. */
export function drawUpdate(
  { weights, grads: found, updates }: Changed,
  given: Optimizer | Rule,
  { ema, pack = false }: Pick<StepOptions, "ema" | "pack">,
): Update {
  const optimizer = "rule" in given ? given : chain(given);
  if (ema !== undefined) checkNumbers({ ema }, (decay) => decay > 0 && decay < 1, "above 0 and below 1");
  const [lr, step] = [input([]), input([])];
  const reached = weights.filter(({ path }) => found.has(path));
  const buffers = weights.filter(({ kind }) => kind === "buffer");
  const changing = buffers.filter(({ tensor }) => updates.has(tensor));
  const parameters = holding(reached, pack ? packable(optimizer) : undefined);
  const statistics = holding(changing, pack ? () => "statistics" : undefined);

  const metrics: Named[] = [];
  let grads = new Map(parameters.map((held) => [held.name, held.join((w) => found.get(w.path) as Tensor)]));
  for (const transform of optimizer.transforms) {
    const made = withScope("clip", () => transform(grads));
    grads = made.grads;
    metrics.push(...Object.entries(made.metrics ?? {}));
  }

  const state: StateEntry[] = [];
  const packs: Pack[] = [];
  const [inputs, outputs]: [Named[], Named[]] = [[], []];
  const keep = (held: Held, kind: StateEntry["kind"], nameOf: (path: string) => string, now: Tensor, next: Tensor) => {
    inputs.push([nameOf(held.name), now]);
    outputs.push([nextName(nameOf(held.name)), next]);
    const entries = held.weights.map(({ path, tensor }) => {
      return { name: nameOf(path), kind, path, shape: tensor.shape as readonly number[] };
    });
    state.push(...entries);
    if (held.isPack) packs.push({ name: nameOf(held.name), kind, entries });
  };
  const rate = ema === undefined ? undefined : averageRate(ema, step);
  const keepAverage = (held: Held, next: Tensor): void => {
    if (!rate) return;
    const before = input(next.shape);
    keep(held, "ema", emaName, before, average(before, next, rate));
  };
  const update = withScope("update", () => optimizer.rule.begin({ lr, step }));
  for (const held of parameters) {
    const { name, tensor, weights } = held;
    const [{ path, tensor: first }] = weights;
    const slots = Object.fromEntries(optimizer.rule.slots.map((slot) => [slot, input(tensor.shape)]));
    const of = { path, shape: first.shape as number[], param: tensor, grad: grads.get(name) as Tensor, slots };
    const updated = withScope(`update:${name}`, () => update(of));
    keep(held, "parameter", (path) => path, tensor, updated.param);
    for (const slot of optimizer.rule.slots)
      keep(held, "slot", (path) => slotName(slot, path), slots[slot], updated.slots[slot]);
    keepAverage(held, updated.param);
  }
  for (const held of statistics) {
    const next = held.join(({ tensor }) => updates.get(tensor) as Tensor);
    keep(held, "buffer", (path) => path, held.tensor, next);
    keepAverage(held, next);
  }
  for (const held of holding(buffers.filter(({ tensor }) => !updates.has(tensor))))
    keep(held, "buffer", (path) => path, held.tensor, held.tensor);

  const order = new Map(weights.map(({ path }, i) => [path, i]));
  state.sort((a, b) => order.get(a.path)! - order.get(b.path)!);
  const pieces = new Map([...parameters, ...statistics].flatMap((held) => held.pieces()));
  const controls: Named[] = [
    ["lr", lr],
    ["step", step],
  ];
  return { state, packs, inputs, outputs, controls, metrics, pieces };
}

interface Drawn {
  metrics: Record<string, Tensor>;
  /** Of the parameters that the loss depends on. */
  grads: Map<string, Tensor>;
}

/** Loss, metrics and gradients of a batch that is cut into parts.  Each part waits for the one before it. */
function lossAndGradients(task: Task, trained: readonly Weight[], parts: readonly Record<string, Tensor>[]): Drawn {
  if (parts.length === 1) return drawPart(task, trained, parts[0]);
  const weights = parts.map((part) => weightOf(task, part)).filter((weight) => weight !== undefined);
  const whole = weights.length > 0 ? weights.reduce((a, b) => a.add(b)) : undefined;
  const results: Record<string, Tensor>[] = [];
  let grads: Map<string, Tensor> | undefined;
  for (const [i, part] of parts.entries()) {
    const share = whole ? overWeight(weights[i], whole) : 1 / parts.length;
    const { metrics, grads: found } = drawPart(task, trained, grads ? after(part, grads.values()) : part, share);
    const before = grads;
    grads = before ? new Map([...found].map(([path, g]) => [path, (before.get(path) as Tensor).add(g)])) : found;
    results.push(metrics);
  }
  const batch = Object.values(parts[0])[0].shape[0];
  return { metrics: joinMetrics(results, batch), grads: grads as Map<string, Tensor> };
}

/** The same of one part, whose loss is multiplied by its share of the whole. */
export function drawPart(
  task: Task,
  trained: readonly Weight[],
  batch: Record<string, Tensor>,
  share?: Tensor | number,
): Drawn {
  const metrics = drawTask(task, batch);
  const loss = share === undefined ? metrics.loss : metrics.loss.mul(share);
  return { metrics: { ...metrics, loss }, grads: gradientsByPath(loss, trained) };
}

/** By what a part of a batch counts, where that is not its images. */
export const weightOf = (task: Task, part: Record<string, Tensor>): Tensor | undefined =>
  giveBatch(part, (batch) => task.lossWeight?.(batch)).result;

/** Metrics of a batch from those of its parts of `size` images: the sum of the losses' shares, and of the rest what `overParts` makes. */
export function joinMetrics(parts: readonly Record<string, Tensor>[], size: Dim): Record<string, Tensor> {
  const { loss: first, ...rest } = parts[0];
  const loss = parts.slice(1).reduce((sum, part) => sum.add(part.loss), first);
  const others = Object.keys(rest).map((name): Named => {
    const values = parts.map((part) => part[name]);
    return [name, overParts(name, values, size)];
  });
  return { loss, ...Object.fromEntries(others) };
}

/** What a task makes of a batch, all of which it reads: a loss at the least. */
function drawTask(task: Task, batch: Record<string, Tensor>): ReturnType<Task["forward"]> {
  const { result: metrics, asked } = giveBatch(batch, (given) => task.forward(given));
  if (!(metrics?.loss instanceof Tensor))
    throw new OrielError("train", {
      message: "the task's forward() gave no loss",
      help: "return { loss }, a tensor, and whatever else is worth knowing",
    });
  const unread = Object.keys(batch).filter((name) => !asked.includes(name));
  if (unread.length === 0) return metrics;
  throw new OrielError("train", {
    message: `the batch holds ${unread.join(", ")}, which the task does not read`,
    help: `it reads ${asked.join(", ") || "nothing"}`,
  });
}

/** Gives a batch to what draws from it, and tells which names it asked for; one that is missing is a fault by that name. */
function giveBatch<T>(
  batch: Record<string, Tensor>,
  draw: (batch: Readonly<Record<string, Tensor>>) => T,
): { result: T; asked: string[] } {
  const asked = new Set<string>();
  const get = (held: typeof batch, name: string): Tensor => {
    asked.add(name);
    return held[name];
  };
  try {
    return { result: draw(new Proxy(batch, { get })), asked: [...asked] };
  } catch (cause) {
    const missing = [...asked].filter((name) => !(name in batch));
    if (!(cause instanceof TypeError) || missing.length === 0) throw cause;
    throw new OrielError("train", {
      message: `the task reads ${missing.join(", ")}, which the batch does not hold`,
      help: `it holds ${Object.keys(batch).join(", ") || "nothing"}`,
      cause,
    });
  }
}

/** Gradients of the parameters that a loss depends on. */
function gradientsByPath(loss: Tensor, trained: readonly Weight[]): Map<string, Tensor> {
  const dxs = gradientsReached(
    loss,
    trained.map((w) => w.tensor),
  );
  const grads = new Map(trained.flatMap(({ path }, i): [string, Tensor][] => (dxs[i] ? [[path, dxs[i]]] : [])));
  if (grads.size > 0) return grads;
  throw new OrielError("train", {
    message: `the loss depends on none of the ${trained.length} parameters that are to be trained`,
    help: "see that forward() reads them, and that nothing stops the gradient",
  });
}

/** A metric of the batch from those of its parts: the mean of numbers, or what each has for its images, joined. */
function overParts(name: string, values: readonly Tensor[], batch: Dim): Tensor {
  const [first] = values;
  if (first.rank === 0) return values.reduce((a, b) => a.add(b)).mul(1 / values.length);
  if (sameDim(first.shape[0], batch)) return concat(values, 0);
  throw new OrielError("train", {
    message: `"${name}" is ${showShape(first.shape)} for a part of ${batch}`,
    help: "where a batch is cut into parts (accumulate, streams), a task returns numbers, or an entry for each image",
  });
}

/** A batch, made to wait until every gradient is there: one that is not would hold what it reads of the part before. */
function after(batch: Record<string, Tensor>, grads: Iterable<Tensor>): Record<string, Tensor> {
  const gate = concat(
    Array.from(grads, (g) => g.reshape([-1]).slice(0, 0, 1)),
    0,
  );
  const waiting = (x: Tensor): Tensor => (x.dtype === "bool" ? x : waitFor(x, gate)); // which is a product
  return Object.fromEntries(Object.entries(batch).map(([name, x]) => [name, waiting(x)]));
}

function cutBatch(batch: Record<string, Tensor>, parts: number): Record<string, Tensor>[] {
  if (!Number.isInteger(parts) || parts < 1)
    throw new OrielError("train", {
      message: `a batch cannot be cut into ${parts} parts`,
      help: "accumulate is 1, 2, …",
    });
  if (parts === 1) return [batch];
  return Array.from({ length: parts }, (_, i) =>
    Object.fromEntries(
      Object.entries(batch).map(([name, x]) => {
        const size = partSize(known(x.shape[0], "the batch"), parts);
        return [name, rowsOf(x, i * size, size)];
      }),
    ),
  );
}

/** The images of one of several parts of a batch, which are all as large. */
export function partSize(size: number, parts: number): number {
  if (size % parts === 0) return size / parts;
  throw new OrielError("train", {
    message: `a batch of ${size} does not divide into ${parts} parts`,
    help: "choose a batch that does",
  });
}

/** Rows of what a batch holds.  WebGPU cuts no whole numbers, but gathers them. */
function rowsOf(x: Tensor, start: number, count: number): Tensor {
  if (isFloat(x.dtype)) return x.slice(0, start, start + count);
  const rows = Int32Array.from({ length: count }, (_, i) => start + i);
  return gather(x, constant(rows, [count], "int32"), { axis: 0 });
}
