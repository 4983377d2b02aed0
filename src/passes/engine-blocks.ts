import { sameShape } from "../graph/shape.ts";
import type { Node, Tensor } from "../graph/tensor.ts";
import { valuesOf } from "./fold.ts";

/** What the engine computes in blocks where it finds its input there. */
const followers = new Set(
  "Relu Sigmoid Tanh HardSigmoid HardSwish LeakyRelu MaxPool AveragePool GlobalAveragePool Resize".split(" "),
);

/**
 * Tells which maps the engine has in blocks of channels by itself on x64: what convolutions with constant weights make, and what
 * follows them.  Some operations it has only outside, and brings a map there and back for them.
 */
export function engineBlocks(): (x: Tensor) => boolean {
  const seen = new Map<Tensor, boolean>();
  const inBlocks = (x: Tensor): boolean => {
    const found = seen.get(x) ?? isMadeInBlocks(x.node, inBlocks);
    seen.set(x, found);
    return found;
  };
  return inBlocks;
}

/** Whether the engine has a node's result in blocks, given which tensors it has there. */
function isMadeInBlocks({ op, inputs }: Node, inBlocks: (x: Tensor) => boolean): boolean {
  const [x, w] = inputs as Tensor[];
  if (op.domain !== "") return false;
  if (op.name === "Conv") return x.rank === 4 && x.dtype === "float32" && valuesOf(w) !== undefined;
  if (op.name === "Add" || op.name === "Mul") return sameShape(x.shape, w.shape) && inBlocks(x) && inBlocks(w);
  return followers.has(op.name) && inBlocks(x);
}
