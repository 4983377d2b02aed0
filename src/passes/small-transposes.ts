import { Graph, rewrite } from "../graph/graph.ts";
import { isOpen } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { permuteAlong } from "../ops/move.ts";

/**
 * Many small matrices transposed, the kernels of a depthwise convolution laid on their side, say, by gathering their numbers: the
 * engine's Transpose asks all its threads about each matrix ([128, 1, 3, 3] in a training step of CSWin-T: 0.28 ms, gathered 0.02).
 * For processors.
 */
export function smallTransposes(graph: Graph): Graph {
  const outputs = rewrite(graph.outputs, ({ op, attrs, outputs: [y] }, [x]) => {
    const matrices = op.name === "Transpose" && x ? matricesOf(x, attrs.perm) : undefined;
    if (!matrices) return undefined;
    const { count, rows, columns } = matrices;
    const order = Array.from({ length: rows * columns }, (_, i) => (i % rows) * columns + Math.floor(i / rows));
    return [permuteAlong((x as Tensor).reshape([count, rows * columns]), order, 1).reshape(y.shape)];
  });
  return new Graph(graph.inputs, outputs);
}

/** From how many matrices on, and up to how many numbers in each, gathering is faster. */
const [leastCount, mostNumbers] = [16, 64];

/** Where an order of axes exchanges the last two that are longer than 1, and these are short. */
function matricesOf(
  { shape }: Tensor,
  perm: readonly number[],
): { count: number; rows: number; columns: number } | undefined {
  if (shape.some(isOpen)) return undefined;
  const axes = shape.flatMap((d, axis) => (d === 1 ? [] : [axis]));
  const moved = perm.filter((axis) => axes.includes(axis));
  const exchanged = [...axes.slice(0, -2), axes.at(-1), axes.at(-2)];
  if (axes.length < 3 || moved.some((axis, i) => axis !== exchanged[i])) return undefined;
  const [columns, rows, ...lead] = axes.toReversed().map((axis) => shape[axis] as number);
  const count = lead.reduce((a, b) => a * b, 1);
  return count >= leastCount && rows * columns <= mostNumbers ? { count, rows, columns } : undefined;
}
