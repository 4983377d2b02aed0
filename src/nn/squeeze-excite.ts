import type { Tensor } from "../graph/tensor.ts";
import { relu, sigmoid } from "../ops/elementwise.ts";
import { heNormal, type Initializer } from "./init.ts";
import { Conv2d } from "./layers.ts";
import { Module } from "./module.ts";

export interface SqueezeExciteOptions {
  activate?: (x: Tensor) => Tensor;
  gate?: (x: Tensor) => Tensor;
  bias?: boolean;
  /** Names of the two layers in published checkpoints. */
  names?: readonly [string, string];
  init?: Initializer;
}

/**
 * Scales each channel by a gate that sees the whole map: x · σ(W₂ relu(W₁ mean(x))).  [N, C, H, W] -> [N, C, H, W].
 * Hu et al., "Squeeze-and-Excitation Networks" (CVPR 2018), https://arxiv.org/abs/1709.01507, equations 2 to 4.
 */
export class SqueezeExcite extends Module {
  readonly #reduce;
  readonly #expand;
  readonly #names;
  readonly #activate;
  readonly #gate;
  /** `reduced`: channels between the two layers. */
  constructor(channels: number, reduced: number, options: SqueezeExciteOptions = {}) {
    super();
    const { activate = relu, gate = sigmoid, bias = true, names = ["fc1", "fc2"], init = heNormal } = options;
    this.#reduce = new Conv2d(channels, reduced, { kernel: 1, bias, init });
    this.#expand = new Conv2d(reduced, channels, { kernel: 1, bias, init });
    this.#names = names;
    this.#activate = activate;
    this.#gate = gate;
  }
  override *parts(): Iterable<[string, Module]> {
    yield [this.#names[0], this.#reduce];
    yield [this.#names[1], this.#expand];
  }
  forward(x: Tensor): Tensor {
    const whole = x.mean([2, 3], true); // [N, C, 1, 1]
    return x.mul(this.#gate(this.#expand.forward(this.#activate(this.#reduce.forward(whole)))));
  }
}
