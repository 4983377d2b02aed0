import type { Graph } from "../graph/graph.ts";
import { sizeForOne } from "../graph/shape.ts";

/** What a graph costs for one image: an open batch counts once. */
export interface Cost {
  /** Multiply-adds of convolutions and matrix products. */
  macs: number;
  /** Elements that convolutions and matrix products write: a better guide to time on memory-bound devices.  Dollár et al. (2021). */
  activations: number;
}

/** Counts a graph's multiply-adds and activations. */
export function cost(graph: Graph): Cost {
  let [macs, activations] = [0, 0];
  for (const node of graph.nodes) {
    const own = node.op.cost(node);
    if (own === 0) continue;
    macs += own;
    for (const y of node.outputs) activations += sizeForOne(y.shape);
  }
  return { macs, activations };
}
