/**
 * AttNet: attentive convolutions, whose 3 × 3 kernels each image makes for itself, in place of attention.
 * Yu et al., "Attentive Convolution: Unifying the Expressivity of Self-Attention with Convolutional Efficiency" (2025),
 * https://arxiv.org/abs/2510.20092.  Parameter paths are those of the official repository (price112/Attentive-Convolution).
 */
import { mulDim } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { convByImage } from "../nn/conv-by-image.ts";
import { fixed, normal, zeros } from "../nn/init.ts";
import { BatchNorm2d, Conv2d, DropPath, LayerNorm, LayerScale, Linear } from "../nn/layers.ts";
import { channelsFirst, channelsLast, LayerNorm2d } from "../nn/layout.ts";
import { Module } from "../nn/module.ts";
import { Sequential } from "../nn/sequential.ts";
import type { ConvOptions } from "../ops/conv.ts";
import { gelu, sigmoid } from "../ops/elementwise.ts";
import { split } from "../ops/move.ts";
import { rmsNorm } from "../ops/norm.ts";
import { adaptiveAveragePool } from "../ops/pool.ts";
import { type Backbone, type BackboneOptions, stageRates, type Variant } from "./backbone.ts";

export interface AttNetConfig {
  depths: readonly number[];
  dims: readonly number[];
  /** Whether branches start small, scaled channel by channel. */
  layerScale: boolean;
  /** Whether what a gated unit makes is normalised. */
  gateNorm: boolean;
}

/** Hidden channels of the gated units for each channel, by stage; two thirds of them remain for each half. */
const expansions = [8, 8, 4, 4];
/** Side of the kernels. */
const side = 3;

const convolution = (
  inputs: number,
  outputs: number,
  options: Partial<ConvOptions> & { kernel?: number; bias?: boolean } = {},
) => new Conv2d(inputs, outputs, { kernel: 1, init: normal(), ...options });

/** x / √(mean(x²) + ε) · weight over the channels of each place.  [N, C, H, W] */
class RmsNorm2d extends Module {
  weight;
  constructor(dim: number) {
    super();
    this.weight = this.param([dim], fixed(1));
  }
  forward(x: Tensor): Tensor {
    return channelsFirst(rmsNorm(channelsLast(x), this.weight, 1e-6));
  }
}

/**
 * A kernel for each channel of each image, made from means over nine parts of the map, less a share of its own mean, which lets channels
 * inhibit each other as attention does.  [N, C, H, W] -> [N, C, H, W]
 */
class AttentiveConv extends Module {
  differenceControl;
  kernelProj;
  kernelGen;
  xProj;
  proj;
  constructor(dim: number) {
    super();
    this.differenceControl = this.param([dim], zeros);
    this.kernelProj = convolution(dim, dim);
    this.kernelGen = new Linear(side * side, side * side);
    this.xProj = convolution(dim, dim);
    this.proj = convolution(dim, dim);
  }
  /** [N, C, H, W] -> [N, C, 1, K, K] */
  #kernels(x: Tensor): Tensor {
    const [batch, dim, height, width] = x.shape;
    const parts = adaptiveAveragePool(x.reshape([batch, dim, mulDim(height, width)]), [side * side]); // [N, C, K²]
    // The projection comes after the means, which it does not change: so it reads nine places instead of all.
    const context = this.kernelProj.forward(parts.unsqueeze(2)).reshape(parts.shape);
    const kernels = this.kernelGen.forward(gelu(context)); // [N, C, K²]
    const share = sigmoid(this.differenceControl).unsqueeze(1); // [C, 1]
    return kernels.sub(kernels.mean([2], true).mul(share)).reshape([batch, dim, 1, side, side]);
  }
  forward(x: Tensor): Tensor {
    return this.proj.forward(convByImage(this.xProj.forward(x), this.#kernels(x), { padding: (side - 1) / 2 }));
  }
}

/** gelu(dwconv(a)) · b, where fc1 makes a and b.  [N, C, H, W] -> [N, C, H, W].  Shi, "TransNeXt" (2024), section 3.3. */
class GatedUnit extends Module {
  fc1;
  dwconv;
  normLayer;
  fc2;
  constructor(dim: number, hidden: number, norm: boolean) {
    super();
    this.fc1 = convolution(dim, 2 * hidden);
    this.dwconv = convolution(hidden, hidden, { kernel: 3, padding: 1, groups: hidden });
    this.normLayer = norm ? new RmsNorm2d(hidden) : undefined;
    this.fc2 = convolution(hidden, dim);
  }
  forward(x: Tensor): Tensor {
    const [a, b] = split(this.fc1.forward(x), 1, 2); // [N, hidden, H, W]
    const gated = gelu(this.dwconv.forward(a)).mul(b);
    return this.fc2.forward(this.normLayer ? this.normLayer.forward(gated) : gated);
  }
}

/** Mixes space, then channels.  [N, C, H, W] -> [N, C, H, W] */
class Block extends Module {
  tokenMixer;
  channelMixer;
  layerScale1;
  layerScale2;
  norm1;
  norm2;
  dropPath;
  constructor(dim: number, expansion: number, { layerScale, gateNorm }: AttNetConfig, rate: number) {
    super();
    this.tokenMixer = new AttentiveConv(dim);
    this.channelMixer = new GatedUnit(dim, Math.floor((2 * dim * expansion) / 3), gateNorm);
    this.layerScale1 = layerScale ? new LayerScale(dim, 1e-6, { axis: -3 }) : undefined;
    this.layerScale2 = layerScale ? new LayerScale(dim, 1e-6, { axis: -3 }) : undefined;
    this.norm1 = new LayerNorm2d(dim, { eps: 1e-6 });
    this.norm2 = new LayerNorm2d(dim, { eps: 1e-6 });
    this.dropPath = new DropPath(rate);
  }
  override *parts(): Iterable<[string, Module | Tensor]> {
    // The published names have a low line before the number.
    for (const [name, part] of super.parts()) yield [name.replace(/([a-z])(\d)$/, "$1_$2"), part];
  }
  forward(x: Tensor): Tensor {
    const spatial = this.tokenMixer.forward(this.norm1.forward(x));
    const y = x.add(this.dropPath.forward(this.layerScale1 ? this.layerScale1.forward(spatial) : spatial));
    const mixed = this.channelMixer.forward(this.norm2.forward(y));
    return y.add(this.dropPath.forward(this.layerScale2 ? this.layerScale2.forward(mixed) : mixed));
  }
}

/** Halves the map.  [N, C, H, W] -> [N, C', H / 2, W / 2] */
const halve = (inputs: number, outputs: number): Sequential =>
  new Sequential(
    convolution(inputs, outputs, { kernel: 3, stride: 2, padding: 1, bias: false }),
    new BatchNorm2d(outputs),
  );

export class AttNet extends Module implements Backbone {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim: number;
  readonly headName = "head";
  downsampleLayers;
  stages: readonly (readonly Block[])[];
  norm;
  constructor(config: AttNetConfig, options: BackboneOptions = {}) {
    super();
    const { depths, dims } = config;
    const { inChannels = 3, dropPath = 0 } = options;
    const rates = stageRates(depths, dropPath);
    this.channels = dims;
    this.strides = dims.map((_, i) => 2 ** (i + 2));
    this.dim = dims[dims.length - 1];
    this.downsampleLayers = dims.map((dim, i) =>
      i === 0 ? new Sequential(halve(inChannels, dim / 2), gelu, halve(dim / 2, dim)) : halve(dims[i - 1], dim),
    );
    this.stages = depths.map((_, i) => rates[i].map((rate) => new Block(dims[i], expansions[i], config, rate)));
    this.norm = new LayerNorm(this.dim);
  }
  forward(image: Tensor): Tensor[] {
    let x = image;
    return this.stages.map((blocks, i) => {
      x = blocks.reduce((y, block) => block.forward(y), this.downsampleLayers[i].forward(x));
      return x;
    });
  }
  embed(image: Tensor): Tensor {
    const maps = this.forward(image);
    return this.norm.forward(maps[maps.length - 1].mean([2, 3]));
  }
}

export const paper = "Yu et al., Attentive Convolution (2025), https://arxiv.org/abs/2510.20092";

const narrow = { dims: [40, 80, 160, 320], gateNorm: false };
const wide = { layerScale: true, gateNorm: true };

/** As in the official repository. */
export const variants: Record<string, Variant<AttNetConfig>> = {
  attnet_xxs_224: {
    config: { depths: [2, 2, 4, 2], dims: [32, 64, 128, 240], layerScale: false, gateNorm: false },
  },
  attnet_xs_224: { config: { ...narrow, depths: [2, 2, 7, 2], layerScale: true } },
  attnet_s_224: { config: { ...narrow, depths: [2, 3, 10, 3], layerScale: false } },
  attnet_t1_224: { config: { ...wide, depths: [2, 3, 12, 3], dims: [48, 96, 224, 384] } },
  attnet_t2_224: { config: { ...wide, depths: [3, 3, 16, 3], dims: [64, 128, 288, 512] } },
  attnet_t3_224: { config: { ...wide, depths: [4, 4, 26, 4], dims: [72, 144, 320, 576] } },
  attnet_t4_224: { config: { ...wide, depths: [5, 5, 28, 5], dims: [96, 192, 384, 768] } },
};

export const create = (config: AttNetConfig, options: BackboneOptions): AttNet => new AttNet(config, options);
