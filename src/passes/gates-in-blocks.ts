import { Graph, rewrite } from "../graph/graph.ts";
import { isOpen, type Shape, sameShape } from "../graph/shape.ts";
import type { Node, Tensor } from "../graph/tensor.ts";
import { globalAveragePool } from "../ops/pool.ts";
import { resize } from "../ops/resize.ts";
import { engineBlocks } from "./engine-blocks.ts";

/**
 * Keeps squeeze-and-excite in the blocks of channels in which the engine convolves on x64: the mean of a map is pooled there, and a
 * gate for each channel is enlarged to the map's size, for a product is taken in blocks only where both sides have one shape.  The
 * engine would bring the map out of blocks and into them again, which costs more (`docs/notes/0004-speed.md`).
 */
export function gatesInBlocks(graph: Graph): Graph {
  const inBlocks = engineBlocks();
  const outputs = rewrite(graph.outputs, (node, inputs) => {
    const [x, gate] = inputs as Tensor[];
    if (isMapMean(node) && inBlocks(x)) return [globalAveragePool(x).reshape(node.outputs[0].shape)];
    if (node.op.name !== "Mul" || !inBlocks(x) || !inBlocks(gate)) return undefined;
    const size = sidesOf(x);
    const enlarges = sidesOf(gate).every((d) => d === 1) && size.some((d) => d !== 1);
    if (!enlarges || size.some(isOpen) || !sameShape(gate.shape.slice(0, 2), x.shape.slice(0, 2))) return undefined;
    return [x.mul(resize(gate, { size: size as number[], mode: "nearest" }))];
  });
  return new Graph(graph.inputs, outputs);
}

const sidesOf = (map: Tensor): Shape => map.shape.slice(2);

const isMapMean = ({ op, attrs, inputs: [x] }: Node): boolean =>
  op.name === "ReduceMean" && x!.rank === 4 && (attrs.axes as number[]).join() === "2,3";
