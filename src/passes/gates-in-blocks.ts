import { Graph, rewrite } from "../graph/graph.ts";
import { isOpen, type Shape, sameShape } from "../graph/shape.ts";
import type { Node, Tensor } from "../graph/tensor.ts";
import { globalAveragePool } from "../ops/pool.ts";
import { resize } from "../ops/resize.ts";
import { valuesOf } from "./fold.ts";

/** What the engine computes in blocks where it finds its input there. */
const followers = new Set(
  "Relu Sigmoid Tanh HardSigmoid HardSwish LeakyRelu MaxPool AveragePool GlobalAveragePool".split(" "),
);

/**
 * Keeps squeeze-and-excite in the blocks of channels in which the engine convolves on x64: the mean of a map is pooled there, and a
 * gate for each channel is enlarged to the map's size, for a product is taken in blocks only where both sides have one shape.  The
 * engine would bring the map out of blocks and into them again, which costs more (`docs/notes/0004-speed.md`).
 */
export function gatesInBlocks(graph: Graph): Graph {
  const seen = new Map<Tensor, boolean>();
  const inBlocks = (x: Tensor): boolean => {
    const found = seen.get(x) ?? isMadeInBlocks(x.node, inBlocks);
    seen.set(x, found);
    return found;
  };
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

/** Whether the engine has a node's result in blocks, given which tensors it has there. */
function isMadeInBlocks({ op, inputs }: Node, inBlocks: (x: Tensor) => boolean): boolean {
  const [x, w] = inputs as Tensor[];
  if (op.domain !== "") return false;
  if (op.name === "Conv") return x.rank === 4 && x.dtype === "float32" && valuesOf(w) !== undefined;
  if (op.name === "Add" || op.name === "Mul") return sameShape(x.shape, w.shape) && inBlocks(x) && inBlocks(w);
  return followers.has(op.name) && inBlocks(x);
}
