import { Graph, rewrite } from "../graph/graph.ts";
import { isOpen, type Shape, sameShape } from "../graph/shape.ts";
import { constant, type Node, type Tensor } from "../graph/tensor.ts";
import { conv } from "../ops/conv.ts";
import { globalAveragePool } from "../ops/pool.ts";
import { resize } from "../ops/resize.ts";
import { engineBlocks } from "./engine-blocks.ts";

/**
 * Keeps squeeze-and-excite in the blocks of channels in which the engine convolves on x64: the mean of a map is pooled there, and a
 * gate for each channel is enlarged to the map's size, for a product is taken in blocks only where both sides have one shape.  The
 * engine would bring the map out of blocks of `size` channels and into them again, which costs more (`docs/notes/0004-speed.md`).
 */
export function gatesInBlocks(graph: Graph, size: number): Graph {
  const inBlocks = engineBlocks();
  const outputs = rewrite(graph.outputs, (node, inputs) => {
    const [x, gate] = inputs as Tensor[];
    if (isMapMean(node) && inBlocks(x)) {
      const fills = x.shape.slice(1).some(isOpen) || (x.shape[1] as number) % size === 0;
      return [(fills ? globalAveragePool(x) : meanInBlocks(x)).reshape(node.outputs[0].shape)];
    }
    if (node.op.name !== "Mul" || !inBlocks(x) || !inBlocks(gate)) return undefined;
    const sides = sidesOf(x);
    const enlarges = sidesOf(gate).every((d) => d === 1) && sides.some((d) => d !== 1);
    if (!enlarges || sides.some(isOpen) || !sameShape(gate.shape.slice(0, 2), x.shape.slice(0, 2))) return undefined;
    return [x.mul(resize(gate, { size: sides as number[], mode: "nearest" }))];
  });
  return new Graph(graph.inputs, outputs);
}

/** A mean for each channel, of columns and then of rows, by convolutions: the engine pools whole blocks alone.  [N, C, H, W] -> [N, C, 1, 1] */
function meanInBlocks(x: Tensor): Tensor {
  const [channels, height, width] = x.shape.slice(1) as number[];
  const mean = (map: Tensor, kernel: [number, number]): Tensor => {
    const size = kernel[0] * kernel[1];
    const weights = new Float32Array(channels * size).fill(1 / size);
    return conv(map, constant(weights, [channels, 1, ...kernel], "float32"), undefined, { groups: channels });
  };
  return mean(mean(x, [height, 1]), [1, width]);
}

const sidesOf = (map: Tensor): Shape => map.shape.slice(2);

const isMapMean = ({ op, attrs, inputs: [x] }: Node): boolean =>
  op.name === "ReduceMean" && x!.rank === 4 && (attrs.axes as number[]).join() === "2,3";
