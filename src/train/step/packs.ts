import { Graph } from "../../graph/graph.ts";
import { staticSize } from "../../graph/shape.ts";
import { input, type Tensor } from "../../graph/tensor.ts";
import type { Weight } from "../../nn/module.ts";
import { concat } from "../../ops/move.ts";
import type { Optimizer } from "../../optim/optimizer.ts";
import type { StateEntry } from "./state.ts";

/**
 * Small tensors of a training state as one vector, one behind the other: most parameters of a network are norms and biases, and with
 * an update for each the engine takes seconds to make a graph ready (`docs/notes/0004-speed.md`).
 */
export interface Pack {
  /** Its name among the graph's inputs; `next.` + name among the outputs. */
  name: string;
  kind: StateEntry["kind"];
  entries: readonly StateEntry[];
}

/** Tensors of up to so many numbers are packed: of larger ones the copies take longer. */
const largestPacked = 4096;

/**
 * Weights that follow one another, of which the small ones are packed.  As one, all of a network's would have every gradient wait for
 * the first layer's, and what they are made of stay in memory until then.
 */
const neighbourhood = 16;

/** How a state holds weights: together small neighbours of one key, which none need to have. */
export function holding(
  weights: readonly Weight[],
  keyOf: (weight: Weight) => string | undefined = () => undefined,
): Held[] {
  const runs = Array.from({ length: Math.ceil(weights.length / neighbourhood) }, (_, i) =>
    weights.slice(i * neighbourhood, (i + 1) * neighbourhood),
  );
  return runs.flatMap((neighbours) => {
    const groups = new Map<string | Weight, Weight[]>();
    for (const weight of neighbours) {
      const isSmall = staticSize(weight.tensor.shape) <= largestPacked;
      const key = (isSmall ? keyOf(weight) : undefined) ?? weight;
      const group = groups.get(key);
      if (group) group.push(weight);
      else groups.set(key, [weight]);
    }
    return Array.from(groups.values(), (group) => new Held(group));
  });
}

/** Which parameters an optimizer may update as one vector, by what they have in common. */
export const packable = ({ transforms, rule }: Optimizer): ((weight: Weight) => string | undefined) =>
  transforms.every(({ joint }) => joint)
    ? ({ path, tensor }) => rule.alike?.(path, tensor.shape as readonly number[])
    : () => undefined;

/** Weights as a training step's state holds them: one by itself, or several as a vector. */
export class Held {
  readonly name: string;
  readonly weights: readonly Weight[];
  /** The weight, or the vector. */
  readonly tensor: Tensor;
  constructor(weights: readonly Weight[]) {
    const [{ path, tensor }] = weights;
    this.weights = weights;
    this.name = weights.length > 1 ? `pack.${path}` : path;
    this.tensor = weights.length > 1 ? input([lengthOf(shapesOf(weights))]) : tensor;
  }

  get isPack(): boolean {
    return this.weights.length > 1;
  }

  /** What stands for it where each of its weights has something of its shape: their vector. */
  join(of: (weight: Weight) => Tensor): Tensor {
    return this.isPack ? joined(this.weights.map(of)) : of(this.weights[0]);
  }

  /** Packed weights, each as its piece of the vector. */
  pieces(): [Tensor, Tensor][] {
    if (!this.isPack) return [];
    const pieces = cut(this.tensor, shapesOf(this.weights));
    return this.weights.map(({ tensor }, i) => [tensor, pieces[i]]);
  }
}

/** A graph of the same weights that takes them as a training step's state has them. */
export function packInputs(graph: Graph, packs: readonly Pack[]): Graph {
  const vectors: [string, Tensor][] = [];
  const values = new Map<string, Tensor>();
  for (const { name, entries } of packs) {
    if (!entries.some((entry) => graph.inputs.has(entry.name))) continue;
    const shapes = entries.map(({ shape }) => shape);
    const vector = input([lengthOf(shapes)]);
    vectors.push([name, vector]);
    for (const [i, piece] of cut(vector, shapes).entries()) values.set(entries[i].name, piece);
  }
  const bound = graph.bind(values);
  return new Graph([...bound.inputs, ...vectors], bound.outputs);
}

type Shapes = readonly (readonly number[])[];

const shapesOf = (weights: readonly Weight[]): Shapes => weights.map(({ tensor }) => tensor.shape as readonly number[]);

/** How long the vector of tensors of these shapes is. */
export const lengthOf = (shapes: Shapes): number => shapes.reduce((sum, shape) => sum + staticSize(shape), 0);

/** Tensors one behind the other.  -> [n] */
export const joined = (tensors: readonly Tensor[]): Tensor =>
  concat(
    tensors.map((x) => x.reshape([-1])),
    0,
  );

/** vector: [n] -> tensors of these shapes, of n numbers in all.  By slices: WebGPU's `Split` has no room for more than a few. */
export function cut(vector: Tensor, shapes: Shapes): Tensor[] {
  let end = 0;
  return shapes.map((shape) => {
    const start = end;
    end += staticSize(shape);
    return vector.slice(0, start, end).reshape(shape);
  });
}
