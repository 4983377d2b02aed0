import { Graph, rewrite } from "../graph/graph.ts";
import { isOpen } from "../graph/shape.ts";
import type { Node, Tensor } from "../graph/tensor.ts";
import { convOp } from "../ops/conv.ts";
import { averagePool } from "../ops/pool.ts";
import { valuesOf } from "./fold.ts";

/**
 * Convolutions of single places that step over some, as in a ResNet's shortcuts: the places are taken first, by a pool of one place,
 * which the engine has in blocks of channels, too.  Then nothing is stepped over, and the kernels take rows as one, not each by
 * itself (`docs/notes/0004-speed.md`).  Results are the same.  For x64, where weights are constant.
 */
export function stridedPointwise(graph: Graph): Graph {
  const outputs = rewrite(graph.outputs, (node, [x, w, bias]) => {
    if (!isStridedPointwise(node)) return undefined;
    const { strides } = node.attrs;
    const taken = averagePool(x!, { kernel: 1, stride: strides });
    return [convOp(taken, w!, bias, { ...node.attrs, strides: strides.map(() => 1) })];
  });
  return new Graph(graph.inputs, outputs);
}

function isStridedPointwise({ op, attrs, inputs }: Node): boolean {
  if (op.name !== "Conv" || op.domain !== "") return false;
  const [x, w] = inputs as Tensor[];
  const isPointwise = w.rank === 4 && w.shape[2] === 1 && w.shape[3] === 1 && attrs.group === 1;
  const steps = attrs.strides.some((s: number) => s > 1) && attrs.pads.every((p: number) => p === 0);
  // The engine takes a Pad for the pool's own padding, which would then be wider than its kernel.
  const isTaken = x.dtype === "float32" && !x.shape.slice(2).some(isOpen) && x.node.op.name !== "Pad";
  return isPointwise && steps && isTaken && valuesOf(w) !== undefined;
}
