import type { Graph } from "../graph/graph.ts";
import { sizeForOne } from "../graph/shape.ts";
import type { Node } from "../graph/tensor.ts";

/** What a graph costs for one image: an open batch counts once. */
export interface Cost {
  /** Multiply-adds as timm publishes them: those of products, and a few for norms. */
  macs: number;
  /** Multiply-adds of convolutions and matrix products alone, by which a processor's use is told. */
  products: number;
  /** Elements that convolutions and matrix products write: a better guide to time on memory-bound devices.  Dollár et al. (2021). */
  activations: number;
}

/** Multiply-adds for each element of a norm, as fvcore, timm's counter, has them. */
const norms: Readonly<Record<string, number>> = {
  BatchNormalization: 2,
  LayerNormalization: 5,
  InstanceNormalization: 5,
};

/** Multiply-adds of a node, norms included. */
export const macsOf = (node: Node): number =>
  node.op.cost(node) + (node.op.domain === "" ? (norms[node.op.name] ?? 0) * sizeForOne(node.outputs[0].shape) : 0);

/** Counts a graph's multiply-adds and activations. */
export function cost(graph: Graph): Cost {
  let [macs, products, activations] = [0, 0, 0];
  for (const node of graph.nodes) {
    macs += macsOf(node);
    const own = node.op.cost(node);
    if (own === 0) continue;
    products += own;
    for (const y of node.outputs) activations += sizeForOne(y.shape);
  }
  return { macs, products, activations };
}
