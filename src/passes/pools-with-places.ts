import { Graph, rewrite } from "../graph/graph.ts";
import type { Tensor } from "../graph/tensor.ts";
import { scatterElementsAdd, zerosLike } from "../ops/move.ts";
import { maxPoolWithPlaces, type PoolAttrs } from "../ops/pool.ts";

/**
 * Gradients of max pools by the places that the pools themselves tell, each added where it belongs: a third less time than finding the
 * places again (`docs/notes/0004-speed.md`).  For processors, which scatter float16 into no sums; WebGPU's pool tells none.
 */
export function poolsWithPlaces(graph: Graph): Graph {
  const told = new Set<Tensor>();
  for (const { op, inputs } of graph.nodes) if (op.name === "MaxPoolGradient") told.add(inputs[1] as Tensor);
  const placesOf = new Map<Tensor, Tensor>();

  const outputs = rewrite(graph.outputs, ({ op, attrs, outputs: [y] }, inputs) => {
    if (op.name === "MaxPool" && told.has(y) && y.dtype !== "float16") {
      const [made, places] = maxPoolWithPlaces(inputs, attrs as PoolAttrs);
      placesOf.set(made, places);
      return [made];
    }
    if (op.name !== "MaxPoolGradient") return undefined;
    const [x, pooled, dy] = inputs as Tensor[];
    const places = placesOf.get(pooled);
    if (!places) return undefined;
    const flat = (t: Tensor): Tensor => t.reshape([-1]);
    return [scatterElementsAdd(flat(zerosLike(x)), flat(places), flat(dy), { axis: 0 }).reshape(x.shape)];
  });
  return new Graph(graph.inputs, outputs);
}
