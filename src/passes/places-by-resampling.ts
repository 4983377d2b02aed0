import { Graph, rewrite } from "../graph/graph.ts";
import { constant, type Tensor } from "../graph/tensor.ts";
import { averagePool } from "../ops/pool.ts";
import { resize, type Times } from "../ops/resize.ts";
import { storageOf } from "./memory.ts";

/**
 * Places of maps that are repeated or spread among zeros by ONNX's Resize, which the engine has a loop of its own for, and those of
 * which one in a few is taken by a pool of one place: the engine's Expand and Pad take ten times as long, its Slice six times, two
 * threads (`docs/notes/0004-speed.md`).  For processors, in float32; where a place that is spread is infinite, the zeros behind it
 * become NaN.
 */
export function placesByResampling(graph: Graph): Graph {
  const outputs = rewrite(graph.outputs, ({ op, attrs, outputs: [y] }, [x]) => {
    const { times } = attrs as Times;
    const by = (mask?: Tensor): Tensor[] => {
      const resized = resize(x!, { size: y.shape.slice(2) as number[], mode: "nearest" });
      return [mask ? resized.mul(mask) : resized];
    };
    if (x?.dtype !== "float32" || x.rank !== 4) return undefined;
    if (op.name === "RepeatPlaces") return by();
    if (op.name === "SpreadPlaces") return by(firstOfEach(times, y.shape.slice(2) as number[]));
    const taken = op.name === "TakePlaces" ? takenByPool(x, times) : undefined;
    return taken && [taken];
  });
  return new Graph(graph.inputs, outputs);
}

/**
 * The first of every few places of a map by a pool of one place.  [N, C, H, W] -> [N, C, H', W'].  undefined behind a pad, which the
 * engine would join to the pool and find wider than its window.
 */
export const takenByPool = (x: Tensor, times: readonly number[]): Tensor | undefined =>
  storageOf(x).node.op.name === "Pad" ? undefined : averagePool(x, { kernel: 1, stride: times });

/** 1 at the first of every few places along both axes of a map, else 0.  [1, channels, H, W] */
export function firstOfEach(times: readonly number[], [height, width]: readonly number[], channels = 1): Tensor {
  const map = new Float32Array(channels * height * width);
  for (let i = 0; i < map.length; i++)
    if ((i % width) % times[1] === 0 && (Math.floor(i / width) % height) % times[0] === 0) map[i] = 1;
  return constant(map, [1, channels, height, width], "float32");
}
