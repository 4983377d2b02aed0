import { mulDim } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { softmax } from "../ops/norm.ts";
import { normal, zeros } from "./init.ts";
import { Conv2d } from "./layers.ts";
import { Module } from "./module.ts";

/**
 * Disentangled non-local block: every position attends to all by what is special about the two (queries and keys have their mean over
 * the map taken away), and beside it all share one weighing of the positions.  It starts as the identity for the first part.
 * [N, C, H, W] -> [N, C, H, W].  Yin et al., "Disentangled Non-Local Neural Networks" (ECCV 2020), https://arxiv.org/abs/2006.06668.
 */
export class DisentangledNonLocal extends Module {
  gamma;
  convValue;
  convQuery;
  convKey;
  convMask;
  /** `inner`: channels of queries and keys. */
  constructor(channels: number, inner: number) {
    super();
    const init = normal(0.01);
    this.gamma = this.param([1], zeros);
    this.convValue = new Conv2d(channels, channels, { kernel: 1, bias: false, init });
    this.convQuery = new Conv2d(channels, inner, { kernel: 1, init });
    this.convKey = new Conv2d(channels, inner, { kernel: 1, init });
    this.convMask = new Conv2d(channels, 1, { kernel: 1, init });
  }
  forward(x: Tensor): Tensor {
    const [batch, , height, width] = x.shape;
    const positions = (y: Tensor): Tensor => y.reshape([batch, y.shape[1], mulDim(height, width)]); // [N, C, L]
    const whitened = (y: Tensor): Tensor => y.sub(y.mean([2], true));
    const query = whitened(positions(this.convQuery.forward(x))); // [N, inner, L]
    const key = whitened(positions(this.convKey.forward(x)));
    const value = positions(this.convValue.forward(x)); // [N, C, L]
    const pairwise = softmax(query.mT.matmul(key)); // [N, L, L]
    const unary = softmax(positions(this.convMask.forward(x))); // [N, 1, L]
    const y = value.matmul(pairwise.mT).mul(this.gamma).add(value.matmul(unary.mT)); // [N, C, L]
    return y.reshape(x.shape).add(x);
  }
}
