import { Graph, rewrite } from "../graph/graph.ts";
import { known } from "../graph/shape.ts";
import { constant, type Tensor } from "../graph/tensor.ts";
import { findsNearest, resize, type Times } from "../ops/resize.ts";

/**
 * Places of maps that are repeated, spread among zeros, or of which one in a few is taken, by ONNX's Resize, which the engine has a loop
 * of its own for: its Expand and Pad take ten times as long, its Slice three times (`docs/notes/0004-speed.md`).  For processors, in
 * float32; where a place that is spread is infinite, the zeros behind it become NaN.
 */
export function placesByResize(graph: Graph): Graph {
  const outputs = rewrite(graph.outputs, ({ op, attrs, outputs: [y] }, [x]) => {
    const { times } = attrs as Times;
    const by = (mask?: Tensor): Tensor[] => {
      const resized = resize(x!, { size: y.shape.slice(2) as number[], mode: "nearest" });
      return [mask ? resized.mul(mask) : resized];
    };
    if (x?.dtype !== "float32" || x.rank !== 4) return undefined;
    if (op.name === "RepeatPlaces") return by();
    if (op.name === "SpreadPlaces") return by(firstOfEach(times, y.shape.slice(2) as number[]));
    return op.name === "TakePlaces" && times.every((k, i) => isTaken(known(x.shape[i + 2]), k)) ? by() : undefined;
  });
  return new Graph(graph.inputs, outputs);
}

/** Whether Resize takes the first of every `k` places, no others. */
const isTaken = (size: number, k: number): boolean => size % k === 0 && findsNearest(size, size / k);

/** 1 at the first of every few places along both axes of a map, else 0.  [1, channels, H, W] */
export function firstOfEach(times: readonly number[], [height, width]: readonly number[], channels = 1): Tensor {
  const map = new Float32Array(channels * height * width);
  for (let i = 0; i < map.length; i++)
    if ((i % width) % times[1] === 0 && (Math.floor(i / width) % height) % times[0] === 0) map[i] = 1;
  return constant(map, [1, channels, height, width], "float32");
}
