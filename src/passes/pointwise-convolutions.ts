import { Graph, readersOf, rewrite } from "../graph/graph.ts";
import { isOpen, staticSize } from "../graph/shape.ts";
import type { Node, Tensor } from "../graph/tensor.ts";
import { convOp } from "../ops/conv.ts";
import { valuesOf } from "./fold.ts";
import { takenByPool } from "./places-by-resampling.ts";

/** Weights of a convolution over maps of one place that are worth reordering its images for. */
const many = 1 << 16;

/**
 * Convolutions of single places with constant weights in forms that the engine has faster on x64 (`docs/notes/0004-speed.md`).  One
 * that steps over places, as in a ResNet's shortcuts, follows a pool that takes the others: the kernels then have rows that lie side
 * by side as one.  Over maps of one place, as pooled ones are, images become places: the kernels would read all weights for each.
 */
export function pointwiseConvolutions(graph: Graph): Graph {
  const readers = readersOf(graph.nodes);
  /** Whether it is enlarged to a map, which the engine does in blocks if a convolution made what it enlarges. */
  const isGate = (y: Tensor): boolean =>
    (readers.get(y) ?? []).some(
      ({ op, inputs, outputs }) => op.name === "Resize" || (inputs.length === 1 && isGate(outputs[0])),
    );
  const outputs = rewrite(graph.outputs, (node, [x, w, bias]) => {
    if (!isPointwise(node)) return undefined;
    const [y] = node.outputs;
    const apply = (map: Tensor): Tensor => convOp(map, w!, bias, { ...node.attrs, strides: [1, 1] });
    if (isOnePlace(x!)) {
      const pays = x!.shape[0] !== 1 && staticSize(w!.shape) >= many && !isGate(y);
      return pays ? [ofImages(x!, apply).reshape(y.shape)] : undefined;
    }
    const { strides } = node.attrs;
    const seen = strides.some((s: number) => s > 1) ? takenByPool(x!, strides) : undefined;
    return seen && [apply(seen)];
  });
  return new Graph(graph.inputs, outputs);
}

/** Images of one place each as one image of so many places, and back.  [N, C, 1, 1] -> [1, 1, N, O] */
const ofImages = (x: Tensor, apply: (map: Tensor) => Tensor): Tensor =>
  apply(x.reshape([1, 1, -1, x.shape[1]]).permute(0, 3, 1, 2)).permute(0, 2, 3, 1);

function isPointwise({ op, attrs, inputs }: Node): boolean {
  if (op.name !== "Conv" || op.domain !== "" || attrs.group !== 1) return false;
  const [x, w] = inputs as Tensor[];
  const isOfPlaces = w.rank === 4 && isOnePlace(w) && attrs.pads.every((p: number) => p === 0);
  return isOfPlaces && x.dtype === "float32" && !x.shape.slice(2).some(isOpen) && valuesOf(w) !== undefined;
}

const isOnePlace = ({ shape }: Tensor): boolean => shape.slice(2).every((d) => d === 1);
