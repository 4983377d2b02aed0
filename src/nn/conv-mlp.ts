import type { Tensor } from "../graph/tensor.ts";
import { gelu } from "../ops/elementwise.ts";
import { heNormalFor } from "./init.ts";
import { Conv2d, Linear } from "./layers.ts";
import { channelsFirst, channelsLast } from "./layout.ts";
import { Module } from "./module.ts";

/** A depthwise 3 × 3 convolution of places whose channels lie last.  [N, H, W, C] -> [N, H, W, C] */
class Depthwise extends Module {
  dwconv;
  constructor(dim: number) {
    super();
    this.dwconv = new Conv2d(dim, dim, { kernel: 3, padding: 1, groups: dim, init: heNormalFor(dim) });
  }
  forward(x: Tensor): Tensor {
    return channelsLast(this.dwconv.forward(channelsFirst(x)));
  }
}

export interface ConvMlpOptions {
  /** Adds what the convolution reads to what it makes. */
  residual?: boolean;
}

/**
 * An MLP with a depthwise convolution between its layers.  Wang et al., "PVT v2: Improved Baselines with Pyramid Vision Transformer"
 * (2022), section 3.2.  [N, H, W, C] -> [N, H, W, C]
 */
export class ConvMlp extends Module {
  fc1;
  dwconv;
  fc2;
  readonly #residual;
  constructor(dim: number, hidden: number, { residual = false }: ConvMlpOptions = {}) {
    super();
    this.#residual = residual;
    this.fc1 = new Linear(dim, hidden);
    this.dwconv = new Depthwise(hidden);
    this.fc2 = new Linear(hidden, dim);
  }
  /** `scale` multiplies each channel of the result. */
  forward(x: Tensor, scale?: Tensor): Tensor {
    const y = this.fc1.forward(x);
    const z = this.dwconv.forward(y);
    return this.fc2.forward(gelu(this.#residual ? y.add(z) : z), scale);
  }
}
