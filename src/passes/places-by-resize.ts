import { Graph, rewrite } from "../graph/graph.ts";
import { known } from "../graph/shape.ts";
import { constant, type Tensor } from "../graph/tensor.ts";
import { resize, type Times } from "../ops/resize.ts";

/**
 * Places of maps that are repeated, or spread among zeros, by ONNX's Resize, which the engine has a loop of its own for: its Expand and
 * Pad take ten times as long (`docs/notes/0004-speed.md`).  For processors, in float32; where a place that is spread is infinite, the
 * zeros behind it become NaN.
 */
export function placesByResize(graph: Graph): Graph {
  const outputs = rewrite(graph.outputs, ({ op, attrs }, [x]) => {
    if (op.name !== "RepeatPlaces" && op.name !== "SpreadPlaces") return undefined;
    const { times } = attrs as Times;
    if (x?.dtype !== "float32" || times.length !== 2) return undefined;
    const size = times.map((k, i) => k * known(x.shape[i + 2]));
    const repeated = resize(x, { size, mode: "nearest" });
    return [op.name === "RepeatPlaces" ? repeated : repeated.mul(firstOfEach(times, size))];
  });
  return new Graph(graph.inputs, outputs);
}

/** 1 at the first of every few places along both axes of a map, else 0.  [1, channels, H, W] */
export function firstOfEach(times: readonly number[], [height, width]: readonly number[], channels = 1): Tensor {
  const map = new Float32Array(channels * height * width);
  for (let i = 0; i < map.length; i++)
    if ((i % width) % times[1] === 0 && (Math.floor(i / width) % height) % times[0] === 0) map[i] = 1;
  return constant(map, [1, channels, height, width], "float32");
}
