import { OrielError } from "../base/errors.ts";
import type { Graph } from "../graph/graph.ts";
import { showShape, staticSize } from "../graph/shape.ts";
import { constant, type Tensor } from "../graph/tensor.ts";
import { type Module, weightsOf } from "./module.ts";

/** A graph with a model's weights as constants: what is left to feed is what changes from run to run. */
export function bindWeights(
  graph: Graph,
  model: Module,
  values: ReadonlyMap<string, Float32Array<ArrayBuffer>>,
): Graph {
  const weights = weightsOf(model);
  const missing = weights.filter(({ path }) => !values.has(path));
  if (missing.length > 0)
    throw new OrielError("weights", {
      message: `${missing.length} of ${weights.length} weights have no values`,
      details: missing.slice(0, 8).map(({ path }) => path),
    });
  for (const { path, tensor } of weights) {
    const { length } = values.get(path) as Float32Array;
    if (length !== staticSize(tensor.shape))
      throw new OrielError("weights", {
        message: `${path} is ${showShape(tensor.shape)}, ${length} values came`,
        help: "give the values of this model; `fitWeights` makes them of another's",
      });
  }
  const bound = weights.map(({ path, tensor }): [string, Tensor] => [
    path,
    constant(values.get(path)!, tensor.shape as number[], "float32", path),
  ]);
  return graph.bind(new Map(bound));
}
