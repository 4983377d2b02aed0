import { UsageError } from "../base/errors.ts";
import type { Tensor } from "../graph/tensor.ts";
import { relu } from "../ops/elementwise.ts";
import { softmax } from "../ops/norm.ts";
import { convByImage } from "./conv-by-image.ts";
import { heNormal, normal, zeros } from "./init.ts";
import { Conv2d } from "./layers.ts";
import { Module } from "./module.ts";

export interface DynamicConvOptions {
  kernel: number;
  stride?: number;
  padding?: number;
  /** How many kernels are mixed. */
  kernels?: number;
  /** Hidden channels of the attention, as a share of those that come in. */
  ratio?: number;
  /** Divides the scores: high while training starts, so that all kernels learn; 1 at the end.  See `DynamicConv2d.temperature`. */
  temperature?: number;
}

/** Scores of the kernels by the mean of the map.  [N, C, H, W] -> [N, K] */
class Attention extends Module {
  fc1;
  fc2;
  constructor(channels: number, kernels: number, ratio: number) {
    super();
    this.fc1 = new Conv2d(channels, Math.floor(channels * ratio) + 1, { kernel: 1, bias: false, init: heNormal });
    this.fc2 = new Conv2d(Math.floor(channels * ratio) + 1, kernels, { kernel: 1, init: heNormal });
  }
  forward(x: Tensor): Tensor {
    const scores = this.fc2.forward(relu(this.fc1.forward(x.mean([2, 3], true)))); // [N, K, 1, 1]
    return scores.reshape([x.shape[0], scores.shape[1]]);
  }
}

/**
 * A convolution whose kernel is mixed for each image out of several: Σ πₖ(x) Wₖ, Σ πₖ(x) bₖ.  [N, C, H, W] -> [N, O, H', W'].
 * Chen et al., "Dynamic Convolution: Attention over Convolution Kernels" (CVPR 2020), https://arxiv.org/abs/1912.03458, equation 2.
 * Kernels are mixed before they are applied, which costs next to nothing.
 */
export class DynamicConv2d extends Module {
  weight;
  bias;
  attention;
  /** A number, or a tensor [] of the batch, set before the layer is drawn, where it falls while training (section 3.2). */
  temperature: number | Tensor;
  readonly #options;
  constructor(inputs: number, outputs: number, options: DynamicConvOptions) {
    super();
    const { kernel, kernels = 4, ratio = 0.25, temperature = 30, ...rest } = options;
    if (temperature <= 0)
      throw new UsageError(`the temperature of a dynamic convolution is above 0, it is ${temperature}`);
    const std = Math.sqrt(2 / (outputs * kernel * kernel)); // each kernel as an ordinary convolution
    this.weight = this.param([kernels, outputs, inputs, kernel, kernel], normal(std));
    this.bias = this.param([kernels, outputs], zeros);
    this.attention = new Attention(inputs, kernels, ratio);
    this.temperature = temperature;
    this.#options = rest;
  }
  forward(x: Tensor): Tensor {
    const [kernels, ...shape] = this.weight.shape as number[];
    const share = softmax(this.attention.forward(x).div(this.temperature)); // [N, K]
    const weight = share.matmul(this.weight.reshape([kernels, -1])).reshape([x.shape[0], ...shape]); // [N, O, C, k, k]
    const bias = share.matmul(this.bias).reshape([x.shape[0], shape[0], 1, 1]); // [N, O, 1, 1]
    return convByImage(x, weight, this.#options).add(bias);
  }
}
