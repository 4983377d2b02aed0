import { UsageError } from "../base/errors.ts";
import { known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { type ConvOptions, conv, eachAxis } from "../ops/conv.ts";
import { gelu } from "../ops/elementwise.ts";
import { linear } from "../ops/linalg.ts";
import { batchNorm, batchNormTraining, layerNorm } from "../ops/norm.ts";
import * as init from "./init.ts";
import { Module } from "./module.ts";
import { currentRng, isTraining, updateBuffer } from "./trace.ts";

/** x Wᵀ + b.  [...B, in] -> [...B, out], weight [out, in] as PyTorch stores it */
export class Linear extends Module {
  weight;
  bias;
  constructor(inputs: number, outputs: number, options: { bias?: boolean; init?: init.Initializer } = {}) {
    super();
    this.weight = this.param([outputs, inputs], options.init ?? init.truncatedNormal());
    this.bias = (options.bias ?? true) ? this.param([outputs], init.zeros) : undefined;
  }
  forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias);
  }
}

/** Convolution over a map.  [N, in, H, W] -> [N, out, H', W'] */
export class Conv2d extends Module {
  weight;
  bias;
  readonly #options;
  constructor(
    inputs: number,
    outputs: number,
    {
      kernel,
      bias = true,
      init: initial,
      ...options
    }: ConvOptions & { kernel: number | readonly [number, number]; bias?: boolean; init?: init.Initializer },
  ) {
    super();
    const shape = [outputs, inputs / (options.groups ?? 1), ...eachAxis(kernel, 2)];
    this.weight = this.param(shape, initial ?? init.uniformFanIn);
    this.bias = bias ? this.param([outputs], init.zeros) : undefined;
    this.#options = options;
  }
  forward(x: Tensor): Tensor {
    return conv(x, this.weight, this.bias, this.#options);
  }
}

/** Normalises the last axis.  Ba et al., "Layer Normalization" (2016).  [...B, D] */
export class LayerNorm extends Module {
  weight;
  bias;
  readonly #eps;
  constructor(dim: number, { eps = 1e-5 }: { eps?: number } = {}) {
    super();
    this.weight = this.param([dim], init.ones);
    this.bias = this.param([dim], init.zeros);
    this.#eps = eps;
  }
  forward(x: Tensor): Tensor {
    return layerNorm(x, this.weight, this.bias, this.#eps);
  }
}

/**
 * Normalises each channel over the batch, by running statistics when it does not train.
 * Ioffe and Szegedy, "Batch Normalization" (2015).  [N, C, H, W]
 */
export class BatchNorm2d extends Module {
  weight;
  bias;
  runningMean;
  runningVar;
  readonly #eps;
  readonly #momentum;
  constructor(channels: number, options: { eps?: number; momentum?: number; init?: init.Initializer } = {}) {
    super();
    this.weight = this.param([channels], options.init ?? init.ones);
    this.bias = this.param([channels], init.zeros);
    this.runningMean = this.buffer([channels], init.zeros);
    this.runningVar = this.buffer([channels], init.ones);
    this.#eps = options.eps ?? 1e-5;
    this.#momentum = options.momentum ?? 0.1;
  }
  forward(x: Tensor): Tensor {
    const epsilon = this.#eps;
    if (!isTraining()) return batchNorm(x, this.weight, this.bias, this.runningMean, this.runningVar, { epsilon });
    const count = x.shape.reduce<number>((n, d, i) => (i === 1 ? n : n * known(d, "the batch")), 1);
    if (count < 2)
      throw new UsageError("batch norm needs more than one value for each channel: use a larger batch or image");
    const { y, mean, variance } = batchNormTraining(x, this.weight, this.bias, epsilon);
    const towards = (old: Tensor, now: Tensor): Tensor => old.mul(1 - this.#momentum).add(now.mul(this.#momentum));
    updateBuffer(this.runningMean, towards(this.runningMean, mean));
    updateBuffer(this.runningVar, towards(this.runningVar, variance.mul(count / (count - 1))));
    return y;
  }
}

/**
 * Drops whole samples of a branch while training, and scales the others up.
 * Huang et al., "Deep Networks with Stochastic Depth" (2016).  [N, ...]
 */
export class DropPath extends Module {
  readonly #rate;
  constructor(rate: number) {
    super();
    this.#rate = rate;
  }
  forward(x: Tensor): Tensor {
    if (!isTraining() || this.#rate === 0) return x;
    const keep = 1 - this.#rate;
    const shape = x.shape.map((d, i) => (i === 0 ? known(d, "the batch") : 1));
    return x.mul(
      currentRng()
        .bernoulli(keep, shape)
        .mul(1 / keep),
    );
  }
}

/** Drops single values while training, and scales the others up.  Srivastava et al., "Dropout" (2014). */
export class Dropout extends Module {
  readonly #rate;
  constructor(rate: number) {
    super();
    this.#rate = rate;
  }
  forward(x: Tensor): Tensor {
    if (!isTraining() || this.#rate === 0) return x;
    const keep = 1 - this.#rate;
    return x.mul(
      currentRng()
        .bernoulli(
          keep,
          x.shape.map((d) => known(d, "every axis")),
        )
        .mul(1 / keep),
    );
  }
}

/** Two linear layers with an activation between.  [...B, dim] -> [...B, dim] */
export class Mlp extends Module {
  fc1;
  fc2;
  readonly #activate;
  constructor(dim: number, hidden: number, { activate = gelu }: { activate?: (x: Tensor) => Tensor } = {}) {
    super();
    this.fc1 = new Linear(dim, hidden);
    this.fc2 = new Linear(hidden, dim);
    this.#activate = activate;
  }
  forward(x: Tensor): Tensor {
    return this.fc2.forward(this.#activate(this.fc1.forward(x)));
  }
}

/** Leaves its input as it is. */
export class Identity extends Module {
  forward(x: Tensor): Tensor {
    return x;
  }
}
