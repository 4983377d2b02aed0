import { allOrNone } from "../../base/close.ts";
import { OrielError } from "../../base/errors.ts";
import type { Data } from "../../graph/dtype.ts";
import { Graph, substitute } from "../../graph/graph.ts";
import { input, type Tensor } from "../../graph/tensor.ts";
import { overWeight } from "../../nn/losses.ts";
import { type Weight, weightsOf } from "../../nn/module.ts";
import { Rng } from "../../nn/rng.ts";
import { trace } from "../../nn/trace.ts";
import type { Optimizer, Rule } from "../../optim/optimizer.ts";
import { sizeInBytes } from "../../passes/memory.ts";
import {
  type CompileOptions,
  DeviceTensor,
  type Feeds,
  type HostTensor,
  type Program,
  type RunOptions,
  type Runtime,
  type Value,
} from "../../runtime/runtime.ts";
import { cut, joined } from "./packs.ts";
import { boundGraph, heldNames, namedApart, type StepState, type Tensors } from "./state.ts";
import type { StepOptions, TrainStep } from "./step.ts";
import { type BatchTypes, batchInputs, drawPart, joinMetrics, partSize, type Task, weightOf } from "./task.ts";
import { drawUpdate, frozenOf, type Named, trainedOf } from "./update.ts";

/** A step's program, in one graph or more. */
export interface CompiledStep extends Pick<Program, "profile" | "release"> {
  run(feeds: Feeds, options: RunOptions): Promise<Record<string, Value>>;
}

export interface SplitOptions extends Pick<StepOptions, "batch" | "frozen" | "ema" | "pack"> {
  parts: number;
}

/**
 * A training step in two graphs: parts of the batch go through one side by side, on a stream each; the other makes the next state of the
 * sum of their gradients, on every stream, so that all hold the same weights.  Up to rounding it is the step of the whole batch.
 */
export interface SplitStep extends StepState {
  /** Of one part: (weights, its images, seed, its number) -> (loss, metrics, gradients) */
  part: Graph;
  /** (state, what the other graph gives of each part, lr, step) -> (next state, loss, metrics) */
  update: Graph;
  parts: number;
  /** What of its feeds is cut. */
  batch: readonly string[];
}

/** A training step in one graph, or in two. */
export type AnyStep = TrainStep | SplitStep;

export const isSplit = (step: AnyStep): step is SplitStep => "update" in step;

/** All that is compiled of a step. */
export const graphsOf = (step: AnyStep): Graph[] => (isSplit(step) ? [step.part, step.update] : [step.graph]);

/** The step with the values of its frozen parameters. */
export const withFrozen = (step: AnyStep, values: Tensors): AnyStep =>
  isSplit(step)
    ? { ...step, part: boundGraph(step.part, step.frozen, values) }
    : { ...step, graph: boundGraph(step.graph, step.frozen, values) };

export const bytesOfWeights = (weights: readonly Weight[]): number =>
  weights.reduce((sum, { tensor }) => sum + sizeInBytes(tensor), 0);

/** Weights of more bytes cost more to hand from stream to stream than streams gain. */
const mostBytes = 5e6;

/** Parts of fewer images are not worth an update each. */
const leastImages = 16;

/**
 * Parts in which a batch goes through a model soonest: on the processor as many as there are threads, up to four, where the model is
 * small and has no statistics of whole batches.  Measured: `docs/notes/0004-speed.md`.
 */
export function partsThatPay(
  { batch, device, threads }: { batch: number; device: string; threads: number },
  weights: readonly Weight[],
): number {
  if (device !== "cpu" || bytesOfWeights(weights) > mostBytes || weights.some(({ kind }) => kind === "buffer"))
    return 1;
  const most = Math.min(4, threads, Math.floor(batch / leastImages));
  return [4, 3, 2].find((parts) => parts <= most && batch % parts === 0) ?? 1;
}

/** Results of a part beside the task's metrics, whose names these cannot be. */
const [allGradients, lossWeight] = ["all gradients", "loss weight"];
/** What the second graph calls a result of a part. */
const ofPart = (part: number, name: string): string => `${part}.${name}`;

/** Draws the training step of a task for a batch that is cut into `parts`. */
export function splitStep(
  task: Task,
  optimizer: Optimizer | Rule,
  { batch: types, parts, ...options }: SplitOptions,
): SplitStep {
  const weights = namedApart(weightsOf(task), types);
  const trained = trainedOf(weights, options);
  const [seed, part] = [input([], "uint32"), input([], "uint32")];
  const batch = batchInputs(partTypes(types, parts));
  const { result: drawn, updates } = trace(task, { training: true, rng: new Rng(seed, part) }, () => {
    const weight = weightOf(task, batch);
    return { ...drawPart(task, trained, batch, weight ?? 1 / parts), weight };
  });
  if (updates.size > 0)
    throw new OrielError("train", {
      message: "the model learns statistics of whole batches, which cannot go through it in parts side by side",
      help: "train it on one stream",
    });
  const { metrics, grads, weight } = drawn;
  const shapes = Array.from(grads.values(), ({ shape }) => shape as readonly number[]);
  // One vector of all gradients: the fewer tensors there are, the less time goes into handing them over.
  const results = {
    ...metrics,
    [allGradients]: joined([...grads.values()]),
    ...(weight && { [lossWeight]: weight }),
  };

  const given = Array.from({ length: parts }, () =>
    Object.fromEntries(Object.entries(results).map(([name, { shape, dtype }]) => [name, input(shape, dtype)])),
  );
  const sum = (name: string): Tensor => given.map((of) => of[name]).reduce((a, b) => a.add(b));
  /** Of what has been multiplied by the parts' weights. */
  const mean = (x: Tensor): Tensor => (weight ? overWeight(x, sum(lossWeight)) : x);
  const sums = cut(mean(sum(allGradients)), shapes);
  const paths = [...grads.keys()];
  const changed = { weights, grads: new Map(paths.map((path, i) => [path, sums[i]])), updates };
  const { state, packs, ...update } = drawUpdate(changed, optimizer, options);
  const own = given.map((of) => Object.fromEntries(Object.keys(metrics).map((name) => [name, of[name]])));
  const { loss, ...others } = joinMetrics(own, Object.values(batch)[0].shape[0]);
  const told: Named[] = [...Object.entries({ loss: mean(loss), ...others }), ...update.metrics];
  const inputs = given.flatMap((of, i) => Object.entries(of).map(([name, x]): Named => [ofPart(i, name), x]));

  const frozen = frozenOf(changed);
  const step = { state, packs, frozen, metrics: told.map(([name]) => name) };
  const read = new Set(heldNames(step, "parameter", "buffer"));
  const ofOne = new Graph(
    [
      ...update.inputs.filter(([name]) => read.has(name)),
      ...frozen.map(({ path, tensor }): Named => [path, tensor]),
      ...Object.entries(batch),
      ["seed", seed],
      ["part", part],
    ],
    substitute(Object.entries(results), update.pieces),
  );
  return {
    ...step,
    part: ofOne,
    update: new Graph([...update.inputs, ...inputs, ...update.controls], [...told, ...update.outputs]),
    parts,
    batch: Object.keys(types),
  };
}

/** What a part of a batch holds. */
function partTypes(types: BatchTypes, parts: number): BatchTypes {
  const cut = Object.entries(types).map(([name, { dtype, shape }]): [string, BatchTypes[string]] => {
    return [name, { dtype, shape: [partSize(shape[0], parts), ...shape.slice(1)] }];
  });
  return Object.fromEntries(cut);
}

/** Compiles both graphs.  What they are together is fed, and gives, what the step of a whole batch would. */
export async function compileSplit(
  runtime: Runtime,
  step: SplitStep,
  options: CompileOptions = {},
): Promise<CompiledStep> {
  const { parts, batch } = step;
  const [part, next] = await allOrNone(
    graphsOf(step).map((graph) => runtime.compile(graph, options)),
    (program) => program.release(),
  );
  const [reads, readsNext] = [part, next].map(({ inputs }) => new Set(inputs.map(({ name }) => name)));
  const isBatch = new Set(batch);
  return {
    run: async (feeds, options) => {
      const pick = (names: ReadonlySet<string>): [string, Value][] =>
        Object.entries(feeds).filter(([name]) => names.has(name));
      const feedsOf = (i: number): Feeds => {
        const own = pick(reads).map(([name, x]) => [name, isBatch.has(name) ? partOf(x, i, parts) : ownCopy(x)]);
        return Object.fromEntries([...own, ["part", { dtype: "uint32", shape: [], data: Uint32Array.of(i) }]]);
      };
      const results = await Promise.all(
        Array.from({ length: parts }, (_, i) => part.run(feedsOf(i), { transfer: true })),
      );
      const given = results.flatMap((of, i) => Object.entries(of).map(([name, x]) => [ofPart(i, name), x]));
      const all = Object.fromEntries([...pick(readsNext), ...given]);
      return next.run(all, { ...options, transfer: true, everywhere: true });
    },
    profile: async () => [...(await part.profile()), ...(await next.profile())],
    release: async () => void (await Promise.all([part.release(), next.release()])),
  };
}

/** The images of one part. */
function partOf(value: Value, part: number, parts: number): HostTensor {
  if (value instanceof DeviceTensor)
    throw new OrielError("train", {
      message: "a batch on the device cannot be cut into parts",
      help: "give its values",
    });
  const { dtype, shape, data } = value;
  const [size, ...rest] = shape;
  const each = data.length / parts;
  return { dtype, shape: [size / parts, ...rest], data: slice.call(data, part * each, (part + 1) * each) };
}

/** A value that may be handed over. */
const ownCopy = (value: Value): Value =>
  value instanceof DeviceTensor ? value : { ...value, data: slice.call(value.data) };

const slice = Float32Array.prototype.slice as (this: Data, start?: number, end?: number) => Data;
