import { UsageError } from "../base/errors.ts";
import { known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { type ConvOptions, conv, eachAxis, samePadding } from "../ops/conv.ts";
import { gelu } from "../ops/elementwise.ts";
import { linear } from "../ops/linalg.ts";
import { batchNorm, batchNormTraining, groupNorm, layerNorm } from "../ops/norm.ts";
import { patchKernel, pictureChannels } from "./adapt.ts";
import * as init from "./init.ts";
import { Module } from "./module.ts";
import { currentRng, isTraining, updateBuffer } from "./trace.ts";

/**
 * x Wᵀ + b; unless `init` says otherwise the weights begin with a deviation of 0.02, as transformers do, the bias with 0.
 * [...B, in] -> [...B, out], weight [out, in] as PyTorch stores it
 */
export class Linear extends Module {
  weight;
  bias;
  constructor(
    inputs: number,
    outputs: number,
    options: { bias?: boolean; init?: init.Initializer; biasInit?: init.Initializer } = {},
  ) {
    super();
    this.weight = this.param([outputs, inputs], options.init ?? init.normal());
    this.bias = (options.bias ?? true) ? this.param([outputs], options.biasInit ?? init.zeros) : undefined;
  }
  /** `scale` multiplies what comes out, a number for each output: given to the weights it costs next to nothing. */
  forward(x: Tensor, scale?: Tensor): Tensor {
    return scale
      ? linear(x, this.weight.mul(scale.reshape([-1, 1])), this.bias?.mul(scale))
      : linear(x, this.weight, this.bias);
  }
}

export interface Conv2dOptions extends Omit<ConvOptions, "padding"> {
  kernel: number | readonly [number, number];
  /** "same", as TensorFlow pads: H' = ⌈H / stride⌉, and where the padding is odd its larger part is at the end. */
  padding?: ConvOptions["padding"] | "same";
  bias?: boolean;
  init?: init.Initializer;
}

/** Convolution over a map; unless `init` says otherwise kernels begin as in PyTorch, the bias with 0.  [N, in, H, W] -> [N, out, H', W'] */
export class Conv2d extends Module {
  weight;
  bias;
  readonly #padding;
  readonly #options;
  constructor(
    inputs: number,
    outputs: number,
    { kernel, padding, bias = true, init: initial, ...options }: Conv2dOptions,
  ) {
    super();
    const { groups = 1, stride = 1 } = options;
    const adapt = groups > 1 ? undefined : stride === kernel ? patchKernel : pictureChannels;
    const shape = [outputs, inputs / groups, ...eachAxis(kernel, 2)];
    this.weight = this.param(shape, initial ?? init.uniformFanIn, adapt);
    this.bias = bias ? this.param([outputs], init.zeros) : undefined;
    this.#padding = padding;
    this.#options = options;
  }
  /** `scale` multiplies what comes out, a number for each channel: given to the weights it costs next to nothing. */
  forward(x: Tensor, scale?: Tensor): Tensor {
    const weight = scale ? this.weight.mul(scale.reshape([-1, 1, 1, 1])) : this.weight;
    return conv(x, weight, scale ? this.bias?.mul(scale) : this.bias, {
      ...this.#options,
      padding: this.#paddingOf(x),
    });
  }
  #paddingOf(x: Tensor): ConvOptions["padding"] {
    if (this.#padding !== "same") return this.#padding;
    const size = x.shape.slice(2).map((s) => known(s, "a map's side"));
    return samePadding(size, this.weight.shape.slice(2) as number[], this.#options.stride);
  }
}

/** Normalises the last axis.  Ba et al., "Layer Normalization" (2016).  [...B, D] */
export class LayerNorm extends Module {
  weight;
  bias;
  readonly #eps;
  constructor(dim: number, options: { eps?: number; bias?: boolean; init?: init.Initializer } = {}) {
    super();
    const { eps = 1e-5, bias = true, init: initial = init.ones } = options;
    this.weight = this.param([dim], initial);
    this.bias = bias ? this.param([dim], init.zeros) : undefined;
    this.#eps = eps;
  }
  forward(x: Tensor): Tensor {
    return layerNorm(x, this.weight, this.bias, this.#eps);
  }
}

/** Normalises groups of channels of each image; one group by default.  Wu and He, "Group Normalization" (2018).  [N, C, H, W] */
export class GroupNorm extends Module {
  weight;
  bias;
  readonly #groups;
  readonly #eps;
  constructor(channels: number, options: { groups?: number; eps?: number; bias?: boolean } = {}) {
    super();
    this.weight = this.param([channels], init.ones);
    this.bias = (options.bias ?? true) ? this.param([channels], init.zeros) : undefined;
    this.#groups = options.groups ?? 1;
    this.#eps = options.eps ?? 1e-5;
  }
  forward(x: Tensor): Tensor {
    return groupNorm(x, this.#groups, this.weight, this.bias, this.#eps);
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
  numBatchesTracked;
  readonly #eps;
  readonly #momentum;
  constructor(channels: number, options: { eps?: number; momentum?: number; init?: init.Initializer } = {}) {
    super();
    this.weight = this.param([channels], options.init ?? init.ones);
    this.bias = this.param([channels], init.zeros);
    this.runningMean = this.buffer([channels], init.zeros);
    this.runningVar = this.buffer([channels], init.ones);
    this.numBatchesTracked = this.fixed([]);
    this.#eps = options.eps ?? 1e-5;
    this.#momentum = options.momentum ?? 0.1;
  }
  forward(x: Tensor): Tensor {
    const [eps, momentum] = [this.#eps, this.#momentum];
    if (isTraining()) return batchNormUpdating(x, this, { eps, momentum });
    return batchNorm(x, this.weight, this.bias, this.runningMean, this.runningVar, { epsilon: eps });
  }
}

/** Batch norm as it trains: by the batch's own statistics, which the running ones follow. */
export function batchNormUpdating(
  x: Tensor,
  { weight, bias, runningMean, runningVar }: Readonly<Record<"weight" | "bias" | "runningMean" | "runningVar", Tensor>>,
  { eps, momentum }: { eps: number; momentum: number },
): Tensor {
  const count = x.shape.reduce<number>((n, d, i) => (i === 1 ? n : n * known(d, "the batch")), 1);
  if (count < 2)
    throw new UsageError("batch norm needs more than one value for each channel: use a larger batch or image");
  const { y, mean, variance } = batchNormTraining(x, weight, bias, eps);
  const follow = (buffer: Tensor, now: Tensor, scale = 1): void =>
    updateBuffer(buffer, (before) => before.mul(1 - momentum).add(now.mul(momentum * scale)));
  follow(runningMean, mean);
  follow(runningVar, variance, count / (count - 1));
  return y;
}

/**
 * Lets channels compete: each is scaled by its norm over the map relative to the others' mean norm, and the input is added.
 * Woo et al., "ConvNeXt V2" (2023), section 3, algorithm 1.  [N, H, W, C]
 */
export class GlobalResponseNorm extends Module {
  weight;
  bias;
  readonly #eps;
  constructor(dim: number, { eps = 1e-6 }: { eps?: number } = {}) {
    super();
    this.weight = this.param([dim], init.zeros);
    this.bias = this.param([dim], init.zeros);
    this.#eps = eps;
  }
  forward(x: Tensor): Tensor {
    // A channel that is zero everywhere has a norm of 0, where the root has no slope.
    const norm = x.square().sum([1, 2], true).add(1e-24).sqrt(); // [N, 1, 1, C]
    const response = norm.div(norm.mean([-1], true).add(this.#eps));
    return x.mul(response.mul(this.weight).add(1)).add(this.bias);
  }
}

function checkedRate(rate: number): number {
  if (rate >= 0 && rate < 1) return rate;
  throw new UsageError({ message: `${rate} is no share to drop`, help: "give a number from 0 to below 1" });
}

/**
 * Drops whole samples of a branch while training, and scales the others up.
 * Huang et al., "Deep Networks with Stochastic Depth" (2016).  [N, ...]
 */
export class DropPath extends Module {
  readonly #rate;
  constructor(rate: number) {
    super();
    this.#rate = checkedRate(rate);
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
    this.#rate = checkedRate(rate);
  }
  forward(x: Tensor): Tensor {
    return isTraining() && this.#rate > 0 ? dropout(x, this.#rate) : x;
  }
}

/** Single values dropped at random, the others scaled up. */
export function dropout(x: Tensor, rate: number): Tensor {
  const keep = 1 - rate;
  const shape = x.shape.map((d) => known(d, "every axis"));
  return x.mul(
    currentRng()
      .bernoulli(keep, shape)
      .mul(1 / keep),
  );
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
  forward(x: Tensor, scale?: Tensor): Tensor {
    return this.fc2.forward(this.#activate(this.fc1.forward(x)), scale);
  }
}

/**
 * A learned factor for each channel, small at first, for what a branch adds.  Touvron et al., "Going deeper with Image Transformers"
 * (2021), section 2.  `axis` counts from the end: -1 where channels lie last, -3 for a map [N, C, H, W].
 */
export class LayerScale extends Module {
  gamma;
  readonly #axis;
  constructor(dim: number, initial = 1e-5, { axis = -1 }: { axis?: -1 | -3 } = {}) {
    super();
    this.gamma = this.param([dim], init.fixed(initial));
    this.#axis = axis;
  }
  forward(x: Tensor): Tensor {
    return x.mul(this.#axis === -1 ? this.gamma : this.gamma.reshape([-1, 1, 1]));
  }
}

/** Leaves its input as it is. */
export class Identity extends Module {
  forward(x: Tensor): Tensor {
    return x;
  }
}
