/**
 * DaViT: attention between places inside windows, then attention between channels over the whole map.
 * Ding et al., "DaViT: Dual Attention Vision Transformers" (ECCV 2022), https://arxiv.org/abs/2204.03645; the `fl` models are the image
 * towers of Xiao et al., "Florence-2" (CVPR 2024), https://arxiv.org/abs/2311.06242.  Parameter paths are timm's.
 */
import { known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { cutLinear, projections } from "../nn/attention.ts";
import { normalFanIn } from "../nn/init.ts";
import { Conv2d, DropPath, LayerNorm, Linear, Mlp } from "../nn/layers.ts";
import { complete, normChannels } from "../nn/layout.ts";
import { Module } from "../nn/module.ts";
import { acrossWindows, fromWindows, toWindows } from "../nn/window.ts";
import { softmax } from "../ops/norm.ts";
import { type Backbone, type BackboneOptions, stageRates, throughStages, type Variant } from "./backbone.ts";

export interface DaViTConfig {
  patch: number;
  dims: readonly number[];
  /** Pairs of blocks in each stage. */
  depths: readonly number[];
  heads: readonly number[];
  /** Side of a window. */
  window: number;
  /** As in Florence-2: overlapping patches between stages, channels compared by queries and keys, names for the two blocks. */
  florence?: boolean;
}

/** A map's places as a sequence.  [N, C, H, W] -> [N, L, C] */
const toTokens = (x: Tensor): Tensor =>
  x.reshape([x.shape[0], x.shape[1], known(x.shape[2]) * known(x.shape[3])]).swapAxes(1, 2);

/** Attention between the places of each window ("spatial window attention").  [N, L, C] -> [N, L, C] */
class WindowAttention extends Module {
  qkv;
  proj;
  readonly #heads;
  readonly #window;
  constructor(dim: number, heads: number, window: number) {
    super();
    this.#heads = heads;
    this.#window = [window, window];
    this.qkv = new Linear(dim, 3 * dim);
    this.proj = new Linear(dim, dim);
  }
  forward(x: Tensor, size: readonly number[]): Tensor {
    const heads = this.#heads;
    return acrossWindows(x, size, this.#window, (y, plan) => {
      const [q, k, v] = projections(this.qkv, y, heads).map((t) => toWindows(t, plan, heads)); // [N · windows, heads, M², D]
      const mixed = softmax(q.matmul(k.mT)).matmul(v);
      return this.proj.forward(fromWindows(mixed, plan, x.shape[0]));
    });
  }
}

/** Attention between the channels of each group, over all places ("channel group attention").  [N, L, C] -> [N, L, C] */
class ChannelAttention extends Module {
  qkv;
  proj;
  readonly #groups;
  readonly #florence;
  constructor(dim: number, groups: number, florence: boolean) {
    super();
    this.#groups = groups;
    this.#florence = florence;
    this.qkv = new Linear(dim, 3 * dim);
    this.proj = new Linear(dim, dim);
  }
  forward(x: Tensor): Tensor {
    const [batch, tokens, dim] = [x.shape[0], known(x.shape[1]), known(x.shape[2])];
    const each = dim / this.#groups;
    const [q, k, v] = cutLinear(this.qkv, x, 3).map((y) =>
      y.reshape([batch, tokens, this.#groups, each]).permute(0, 2, 1, 3),
    ); // [N, groups, L, D]
    // The published weights of DaViT compare keys with values and mix queries.
    const [a, b, mixed] = this.#florence ? [q, k, v] : [k, v, q];
    const scale = (this.#florence ? tokens : each) ** -0.5;
    const weights = softmax(a.mT.matmul(b).mul(scale)); // [N, groups, D, D]
    const y = mixed.matmul(weights.mT).permute(0, 2, 1, 3); // [N, L, groups, D]
    return this.proj.forward(y.reshape([batch, tokens, dim]));
  }
}

/** Adds a depthwise convolution, which tells places apart.  [N, C, H, W] -> [N, C, H, W] */
class PositionalConv extends Module {
  proj;
  constructor(dim: number) {
    super();
    this.proj = new Conv2d(dim, dim, { kernel: 3, padding: 1, groups: dim });
  }
  forward(x: Tensor): Tensor {
    return x.add(this.proj.forward(x));
  }
}

/** Attention of either kind, then an MLP, each after a convolution.  [N, C, H, W] -> [N, C, H, W] */
class Block extends Module {
  cpe1;
  norm1;
  attn;
  cpe2;
  norm2;
  mlp;
  dropPath;
  constructor(dim: number, attn: WindowAttention | ChannelAttention, rate: number) {
    super();
    this.cpe1 = new PositionalConv(dim);
    this.norm1 = new LayerNorm(dim);
    this.attn = attn;
    this.cpe2 = new PositionalConv(dim);
    this.norm2 = new LayerNorm(dim);
    this.mlp = new Mlp(dim, 4 * dim);
    this.dropPath = new DropPath(rate);
  }
  forward(x: Tensor): Tensor {
    const size = x.shape.slice(2).map((s) => known(s));
    const attend = (y: Tensor): Tensor => this.attn.forward(this.norm1.forward(y), size);
    const y = this.#add(this.cpe1.forward(x), attend);
    return this.#add(this.cpe2.forward(y), (z) => this.mlp.forward(this.norm2.forward(z)));
  }
  /** Adds a branch that reads the map as a sequence. */
  #add(x: Tensor, branch: (tokens: Tensor) => Tensor): Tensor {
    const tokens = toTokens(x);
    return tokens
      .add(this.dropPath.forward(branch(tokens)))
      .swapAxes(1, 2)
      .reshape(x.shape);
  }
}

/** Attention between places, then between channels.  [N, C, H, W] -> [N, C, H, W] */
class DualBlock extends Module {
  readonly #spatial;
  readonly #channel;
  readonly #names;
  constructor(dim: number, heads: number, { window, florence = false }: DaViTConfig, rate: number) {
    super();
    this.#spatial = new Block(dim, new WindowAttention(dim, heads, window), rate);
    this.#channel = new Block(dim, new ChannelAttention(dim, heads, florence), rate);
    this.#names = florence ? ["spatial_block", "channel_block"] : ["0", "1"];
  }
  override *parts(): Iterable<[string, Module]> {
    yield [this.#names[0], this.#spatial];
    yield [this.#names[1], this.#channel];
  }
  forward(x: Tensor): Tensor {
    return this.#channel.forward(this.#spatial.forward(x));
  }
}

/** Patches to vectors; zeros complete the last ones.  [N, 3, H, W] -> [N, C, H / P, W / P] */
class Stem extends Module {
  conv;
  norm;
  readonly #patch;
  constructor(inChannels: number, dim: number, patch: number) {
    super();
    this.#patch = patch;
    this.conv = new Conv2d(inChannels, dim, { kernel: 2 * patch - 1, stride: patch, padding: patch - 1 });
    this.norm = new LayerNorm(dim);
  }
  forward(image: Tensor): Tensor {
    return normChannels(this.norm, this.conv.forward(complete(image, this.#patch)));
  }
}

/** Normalises, then halves the map.  [N, C, H, W] -> [N, C', H / 2, W / 2] */
class Downsample extends Module {
  norm;
  conv;
  readonly #overlap;
  constructor(inputs: number, outputs: number, overlap: boolean) {
    super();
    this.#overlap = overlap;
    this.norm = new LayerNorm(inputs);
    this.conv = new Conv2d(inputs, outputs, overlap ? { kernel: 3, stride: 2, padding: 1 } : { kernel: 2, stride: 2 });
  }
  forward(x: Tensor): Tensor {
    const y = normChannels(this.norm, x);
    return this.conv.forward(this.#overlap ? y : complete(y, 2));
  }
}

/** Blocks at one resolution, after halving the map where it is not the first.  [N, C, H, W] -> [N, C', H', W'] */
class Stage extends Module {
  downsample;
  blocks;
  constructor(config: DaViTConfig, i: number, rates: readonly number[]) {
    super();
    const { dims, heads, florence = false } = config;
    this.downsample = i === 0 ? undefined : new Downsample(dims[i - 1], dims[i], florence);
    this.blocks = rates.map((rate) => new DualBlock(dims[i], heads[i], config, rate));
  }
  forward(x: Tensor): Tensor {
    const start = this.downsample ? this.downsample.forward(x) : x;
    return this.blocks.reduce((y, block) => block.forward(y), start);
  }
}

export class DaViT extends Module implements Backbone {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim: number;
  readonly headName = "head.fc";
  readonly #stem;
  readonly #stages: readonly Stage[];
  readonly #norm;
  constructor(config: DaViTConfig, options: BackboneOptions = {}) {
    super();
    const { patch, dims, depths } = config;
    const { inChannels = 3, dropPath = 0 } = options;
    const rates = stageRates(depths, dropPath);
    this.channels = dims;
    this.strides = dims.map((_, i) => patch * 2 ** i);
    this.dim = dims[dims.length - 1];
    this.#stem = new Stem(inChannels, dims[0], patch);
    this.#stages = depths.map((_, i) => new Stage(config, i, rates[i]));
    this.#norm = new LayerNorm(this.dim);
  }
  override *parts(): Iterable<[string, Module]> {
    yield ["stem", this.#stem];
    for (const [i, stage] of this.#stages.entries()) yield [`stages.${i}`, stage];
    yield ["head.norm", this.#norm];
  }
  forward(image: Tensor): Tensor[] {
    return throughStages(this.#stages, this.#stem.forward(image)); // [N, C, H/4, W/4]
  }
  embed(image: Tensor): Tensor {
    const maps = this.forward(image);
    return this.#norm.forward(maps[maps.length - 1].mean([2, 3], false));
  }
}

export const paper = "Ding et al., DaViT (2022), https://arxiv.org/abs/2204.03645";

const common = { patch: 4, window: 7, depths: [1, 1, 9, 1] };
const widths = (dim: number) => ({
  dims: [dim, 2 * dim, 4 * dim, 8 * dim],
  heads: [1, 2, 4, 8].map((n) => (n * dim) / 32),
});
const florence = { window: 12, florence: true };
const at224 = { cropPct: 0.95 };
const at768 = { imageSize: 768, cropPct: 0.95 };

/** The paper's model instantiations; those of Florence-2 have names of their own for the same widths. */
export const variants: Record<string, Variant<DaViTConfig>> = {
  davit_tiny: { config: { ...common, ...widths(96), depths: [1, 1, 3, 1] }, preprocessing: at224 },
  davit_small: { config: { ...common, ...widths(96) }, preprocessing: at224 },
  davit_base: { config: { ...common, ...widths(128) }, preprocessing: at224 },
  davit_large: { config: { ...common, ...widths(192) }, preprocessing: at224 },
  davit_huge: { config: { ...common, ...widths(256) }, preprocessing: at224 },
  davit_giant: { config: { ...common, ...widths(384), depths: [1, 1, 12, 3] }, preprocessing: at224 },
  davit_base_fl: { config: { ...common, ...widths(128), ...florence }, preprocessing: at768, classes: 0 },
  davit_huge_fl: { config: { ...common, ...widths(256), ...florence }, preprocessing: at768, classes: 0 },
  davit_micro_32: {
    config: { patch: 2, window: 4, dims: [32, 64, 128], depths: [1, 1, 2], heads: [1, 2, 4] },
    init: normalFanIn,
    preprocessing: { imageSize: 32, cropPct: 1 },
  },
};

export const create = (config: DaViTConfig, options: BackboneOptions): DaViT => new DaViT(config, options);
