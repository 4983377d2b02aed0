/**
 * ProxylessNAS: the search holds one path of a large network in memory at a time, so that it can look at the real task and the real phone.
 * Cai et al., "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware" (ICLR 2019),
 * https://arxiv.org/abs/1812.00332.  Parameter paths are those of the official repository (mit-han-lab/proxylessnas).
 */
import type { Tensor } from "../graph/tensor.ts";
import { relu6 } from "../nn/activation.ts";
import { BatchNorm2d, DropPath } from "../nn/layers.ts";
import { Module } from "../nn/module.ts";
import { type Backbone, type BackboneOptions, dropPathRates, type Variant } from "./backbone.ts";
import { type ConvShape, convolution } from "./mobile.ts";

/** A block: channels, kernel, stride and expansion; undefined where the search chose none. */
type Choice = readonly [channels: number, kernel: number, stride: number, expand: number] | undefined;

export interface ProxylessConfig {
  stem: number;
  blocks: readonly Choice[];
  head: number;
}

/** A convolution and its norm.  [N, C, H, W] -> [N, C', H / stride, W / stride] */
class ConvNorm extends Module {
  conv;
  bn;
  constructor(inputs: number, outputs: number, options: ConvShape = {}) {
    super();
    this.conv = convolution(inputs, outputs, options);
    this.bn = new BatchNorm2d(outputs, { eps: 1e-3 });
  }
  forward(x: Tensor): Tensor {
    return this.bn.forward(this.conv.forward(x));
  }
}

/** An inverted residual; with expansion 1 it has no first convolution.  [N, C, H, W] -> [N, C', H / stride, W / stride] */
class InvertedResidual extends Module {
  invertedBottleneck;
  depthConv;
  pointLinear;
  constructor(inputs: number, [channels, kernel, stride, expand]: NonNullable<Choice>) {
    super();
    const inner = inputs * expand;
    this.invertedBottleneck = expand === 1 ? undefined : new ConvNorm(inputs, inner);
    this.depthConv = new ConvNorm(inner, inner, { kernel, stride, groups: inner });
    this.pointLinear = new ConvNorm(inner, channels);
  }
  forward(x: Tensor): Tensor {
    const y = this.invertedBottleneck ? relu6(this.invertedBottleneck.forward(x)) : x; // [N, inner, H, W]
    return this.pointLinear.forward(relu6(this.depthConv.forward(y)));
  }
}

/** Adds to what it is given, where the shape allows. */
class Block extends Module {
  mobileInvertedConv;
  readonly #shortcut: boolean;
  readonly #dropPath;
  constructor(inputs: number, choice: NonNullable<Choice>, rate: number) {
    super();
    const [channels, , stride] = choice;
    this.mobileInvertedConv = new InvertedResidual(inputs, choice);
    this.#shortcut = stride === 1 && inputs === channels;
    this.#dropPath = new DropPath(rate);
  }
  forward(x: Tensor): Tensor {
    const y = this.mobileInvertedConv.forward(x);
    return this.#shortcut ? x.add(this.#dropPath.forward(y)) : y;
  }
}

export class Proxyless extends Module implements Backbone {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim: number;
  readonly headName = "classifier.linear";
  /** After which blocks a map is ready: before each that halves it, and at the end. */
  readonly #ends: readonly number[];
  firstConv;
  blocks: readonly (Block | undefined)[];
  featureMixLayer;
  constructor({ stem, blocks, head }: ProxylessConfig, options: BackboneOptions = {}) {
    super();
    const { inChannels = 3, dropPath = 0 } = options;
    const rates = dropPathRates(blocks.length, dropPath);
    this.firstConv = new ConvNorm(inChannels, stem, { kernel: 3, stride: 2 });
    const widths: number[] = [];
    let channels = stem;
    this.blocks = blocks.map((choice, i) => {
      const block = choice && new Block(channels, choice, rates[i]);
      channels = choice?.[0] ?? channels;
      widths.push(channels);
      return block;
    });
    this.#ends = blocks.flatMap((_, i) => (i + 1 === blocks.length || blocks[i + 1]?.[2] === 2 ? [i] : []));
    this.channels = this.#ends.map((i) => widths[i]);
    this.strides = this.#ends.map((_, i) => 2 ** (i + 1));
    this.dim = head;
    this.featureMixLayer = new ConvNorm(channels, head);
  }
  forward(image: Tensor): Tensor[] {
    let x = relu6(this.firstConv.forward(image)); // [N, stem, H / 2, W / 2]
    const maps = this.blocks.map((block) => {
      x = block ? block.forward(x) : x;
      return x;
    });
    return this.#ends.map((i) => maps[i]);
  }
  embed(image: Tensor): Tensor {
    const maps = this.forward(image);
    return relu6(this.featureMixLayer.forward(maps[maps.length - 1])).mean([2, 3]);
  }
}

export const paper = "Cai et al., ProxylessNAS (2019), https://arxiv.org/abs/1812.00332";

/** The network found for a phone: the configuration published with its weights. */
export const variants: Record<string, Variant<ProxylessConfig>> = {
  proxyless_mobile: {
    config: {
      stem: 32,
      blocks: [
        [16, 3, 1, 1],
        [32, 5, 2, 3],
        [32, 3, 1, 3],
        undefined,
        undefined,
        [40, 7, 2, 3],
        [40, 3, 1, 3],
        [40, 5, 1, 3],
        [40, 5, 1, 3],
        [80, 7, 2, 6],
        [80, 5, 1, 3],
        [80, 5, 1, 3],
        [80, 5, 1, 3],
        [96, 5, 1, 6],
        [96, 5, 1, 3],
        [96, 5, 1, 3],
        [96, 5, 1, 3],
        [192, 7, 2, 6],
        [192, 7, 1, 6],
        [192, 7, 1, 3],
        [192, 7, 1, 3],
        [320, 7, 1, 6],
      ],
      head: 1280,
    },
    preprocessing: { interpolation: "bilinear" },
  },
};

export const create = (config: ProxylessConfig, options: BackboneOptions): Proxyless => new Proxyless(config, options);
