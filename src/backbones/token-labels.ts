import type { Tensor } from "../graph/tensor.ts";
import type { Linear } from "../nn/layers.ts";
import type { Backbone } from "./backbone.ts";

/**
 * A backbone with a second classifier that labels every patch.  Jiang et al., "All Tokens Matter: Token Labeling for Training Better
 * Vision Transformers" (NeurIPS 2021), https://arxiv.org/abs/2104.10858.
 */
export interface TokenLabelled extends Backbone {
  readonly otherHeads?: readonly [string];
  /** What the two classifiers read.  `mix` may exchange patches between the images of a batch as soon as they are embedded. */
  tokens(image: Tensor, mix?: MixPatches): Tokens;
}

/** [N, C, H, W] -> [N, C, H, W] */
export type MixPatches = (patches: Tensor) => Tensor;

export interface Tokens {
  /** The image as one vector.  [N, D] */
  whole: Tensor;
  /** Its patches.  [N, H', W', D] */
  patches: Tensor;
}

/** The logits of the image and half of the largest of its patches', as the models are evaluated.  [N, classes] */
export function tokenLogits({ whole, patches }: Tokens, [head, auxiliary]: readonly Linear[]): Tensor {
  const logits = head.forward(whole);
  return auxiliary ? logits.add(auxiliary.forward(patches).max([1, 2]).mul(0.5)) : logits;
}
