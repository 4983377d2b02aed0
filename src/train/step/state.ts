import { OrielError, UsageError } from "../../base/errors.ts";
import { some } from "../../base/text.ts";
import type { Graph } from "../../graph/graph.ts";
import { showShape, staticSize } from "../../graph/shape.ts";
import { constant, type Tensor } from "../../graph/tensor.ts";
import type { Weight } from "../../nn/module.ts";
import type { Pack } from "./packs.ts";
import type { BatchTypes } from "./task.ts";

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

/** Float32 values and their shape. */
export interface FloatTensor {
  shape: readonly number[];
  data: Float32Array<ArrayBuffer>;
}

/** By the name that the training step gives them. */
export type Tensors = ReadonlyMap<string, FloatTensor>;

export const nextName = (name: string): string => `next.${name}`;
export const slotName = (slot: string, path: string): string => `optimizer.${slot}.${path}`;
export const emaName = (path: string): string => `ema.${path}`;

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
