/**
 * Swin Transformer: a pyramid whose attention stays inside windows that shift from block to block.
 * Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows" (ICCV 2021), https://arxiv.org/abs/2103.14030.
 * Parameter paths are timm's.
 */
import { isCount, known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { offsetBiases } from "../nn/adapt.ts";
import { projections } from "../nn/attention.ts";
import { normal, normalFanIn } from "../nn/init.ts";
import { Conv2d, DropPath, LayerNorm, Linear, Mlp } from "../nn/layers.ts";
import { channelsFirst, channelsLast, complete } from "../nn/layout.ts";
import { Module } from "../nn/module.ts";
import {
  acrossWindows,
  addPlaces,
  fromWindows,
  planWindows,
  relativeBias,
  toWindows,
  type WindowPlan,
} from "../nn/window.ts";
import { softmax } from "../ops/norm.ts";
import {
  type Backbone,
  type BackboneOptions,
  type OptionRule,
  sides,
  stageRates,
  throughStages,
  type Variant,
} from "./backbone.ts";
import { below, type FamilyNames, inTransformers5, type NameMap, transformersBlock } from "./names.ts";

export interface SwinConfig {
  patch: number;
  dim: number;
  depths: readonly number[];
  heads: readonly number[];
  /** Side of a window, for all stages or for each. */
  window: number | readonly number[];
}

export interface SwinOptions extends BackboneOptions {
  /** Another side of a window than the published one; its table of biases is resized when weights are read. */
  window?: number;
}

/** Attention inside windows, with a learned bias for each offset (equation 4).  [N, L, C] -> [N, L, C] */
class WindowAttention extends Module {
  relativePositionBiasTable;
  qkv;
  proj;
  readonly #heads;
  constructor(dim: number, heads: number, window: readonly number[]) {
    super();
    this.#heads = heads;
    const offsets = (2 * window[0] - 1) * (2 * window[1] - 1);
    this.relativePositionBiasTable = this.param([offsets, heads], normal(), offsetBiases(window));
    this.qkv = new Linear(dim, 3 * dim);
    this.proj = new Linear(dim, dim);
  }
  forward(x: Tensor, plan: WindowPlan): Tensor {
    const heads = this.#heads;
    const [q, k, v] = projections(this.qkv, x, heads).map((y) => toWindows(y, plan, heads)); // [N · windows, heads, M², D]
    const scores = q.matmul(k.mT); // [N · windows, heads, M², M²]
    const bias = relativeBias(this.relativePositionBiasTable, plan.window); // [heads, M², M²]
    const mixed = softmax(addPlaces(scores, bias, plan)).matmul(v); // [N · windows, heads, M², D]
    return this.proj.forward(fromWindows(mixed, plan, x.shape[0]));
  }
}

/** Attention inside windows, rolled or not, then an MLP.  [N, L, C] -> [N, L, C] */
class Block extends Module {
  norm1;
  attn;
  norm2;
  mlp;
  dropPath;
  readonly #window;
  readonly #shift;
  constructor(dim: number, size: readonly number[], heads: number, window: number, shifted: boolean, rate: number) {
    super();
    // Where the map is no larger than a window there is one window, and nothing to shift.
    this.#window = size.map((s) => Math.min(s, window));
    this.#shift = size.map((s) => (shifted && s > window ? Math.floor(window / 2) : 0));
    this.norm1 = new LayerNorm(dim);
    this.attn = new WindowAttention(dim, heads, this.#window);
    this.norm2 = new LayerNorm(dim);
    this.mlp = new Mlp(dim, 4 * dim);
    this.dropPath = new DropPath(rate);
  }
  forward(x: Tensor, size: readonly number[]): Tensor {
    const inside = (tokens: Tensor, plan: WindowPlan): Tensor => this.attn.forward(tokens, plan);
    const mixed = acrossWindows(this.norm1.forward(x), size, this.#window, inside, (grown) =>
      planWindows(grown, this.#window, this.#shift),
    );
    const y = x.add(this.dropPath.forward(mixed));
    return y.add(this.dropPath.forward(this.mlp.forward(this.norm2.forward(y))));
  }
}

/** 2 × 2 neighbours side by side, down first; zeros complete a map of odd size.  [N, H, W, C] -> [N, H/2, W/2, 4C] */
export function joinNeighbours(x: Tensor): Tensor {
  const even = x.pad(1, 0, known(x.shape[1]) % 2).pad(2, 0, known(x.shape[2]) % 2);
  const [batch, height, width, dim] = [even.shape[0], ...even.shape.slice(1).map((d) => known(d))];
  return even
    .reshape([batch, height / 2, 2, width / 2, 2, dim])
    .permute(0, 1, 3, 4, 2, 5)
    .reshape([batch, height / 2, width / 2, 4 * dim]);
}

/** Joins 2 × 2 neighbours and halves their channels (section 3.1).  [N, H, W, C] -> [N, H/2, W/2, 2C] */
class PatchMerging extends Module {
  norm;
  reduction;
  constructor(dim: number) {
    super();
    this.norm = new LayerNorm(4 * dim);
    this.reduction = new Linear(4 * dim, 2 * dim, { bias: false });
  }
  forward(x: Tensor): Tensor {
    return this.reduction.forward(this.norm.forward(joinNeighbours(x)));
  }
}

/** Blocks at one resolution, after merging where it is not the first.  [N, H, W, C] -> [N, H', W', C'] */
class Stage extends Module {
  downsample;
  blocks;
  constructor(
    dim: number,
    first: boolean,
    size: readonly number[],
    heads: number,
    window: number,
    rates: readonly number[],
  ) {
    super();
    this.downsample = first ? undefined : new PatchMerging(dim / 2);
    this.blocks = rates.map((rate, i) => new Block(dim, size, heads, window, i % 2 === 1, rate));
  }
  forward(x: Tensor): Tensor {
    const start = this.downsample ? this.downsample.forward(x) : x;
    const [batch, height, width, dim] = [start.shape[0], ...start.shape.slice(1).map((d) => known(d))];
    const tokens = start.reshape([batch, height * width, dim]);
    return this.blocks.reduce((y, block) => block.forward(y, [height, width]), tokens).reshape(start.shape);
  }
}

/** Patches to vectors.  [N, 3, H, W] -> [N, H/4, W/4, C] */
export class PatchEmbed extends Module {
  proj;
  norm;
  readonly #patch;
  constructor(inChannels: number, dim: number, patch: number) {
    super();
    this.#patch = patch;
    this.proj = new Conv2d(inChannels, dim, { kernel: patch, stride: patch });
    this.norm = new LayerNorm(dim);
  }
  forward(image: Tensor): Tensor {
    return this.norm.forward(channelsLast(this.proj.forward(complete(image, this.#patch))));
  }
}

export class Swin extends Module implements Backbone {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim: number;
  readonly headName = "head.fc";
  patchEmbed;
  layers;
  norm;
  constructor({ patch, dim, depths, heads, window }: SwinConfig, options: SwinOptions = {}) {
    super();
    const { imageSize = 224, inChannels = 3, dropPath = 0 } = options;
    const rates = stageRates(depths, dropPath);
    this.channels = depths.map((_, i) => dim * 2 ** i);
    this.strides = depths.map((_, i) => patch * 2 ** i);
    this.dim = this.channels[depths.length - 1];
    this.patchEmbed = new PatchEmbed(inChannels, dim, patch);
    let size = sides(imageSize).map((s) => Math.ceil(s / patch));
    this.layers = depths.map((_, i) => {
      if (i > 0) size = size.map((s) => Math.ceil(s / 2));
      const side = options.window ?? (typeof window === "number" ? window : window[i]);
      return new Stage(this.channels[i], i === 0, size, heads[i], side, rates[i]);
    });
    this.norm = new LayerNorm(this.dim);
  }
  #maps(image: Tensor): Tensor[] {
    return throughStages(this.layers, this.patchEmbed.forward(image));
  }
  forward(image: Tensor): Tensor[] {
    return this.#maps(image).map(channelsFirst);
  }
  embed(image: Tensor): Tensor {
    const maps = this.#maps(image);
    return this.norm.forward(maps[maps.length - 1]).mean([1, 2], false);
  }
}

export const paper = "Liu et al., Swin Transformer (2021), https://arxiv.org/abs/2103.14030";

const tiny = { patch: 4, dim: 96, depths: [2, 2, 6, 2], heads: [3, 6, 12, 24] };
const small = { ...tiny, depths: [2, 2, 18, 2] };
const base = { patch: 4, dim: 128, depths: [2, 2, 18, 2], heads: [4, 8, 16, 32] };
const large = { patch: 4, dim: 192, depths: [2, 2, 18, 2], heads: [6, 12, 24, 48] };
const at224 = { cropPct: 0.9 };
const at384 = { imageSize: 384, cropPct: 1 };

/** Section 3.3; the s3 models are from Chen et al., "Searching the Search Space of Vision Transformer" (2021). */
export const variants: Record<string, Variant<SwinConfig>> = {
  swin_tiny_patch4_window7_224: { config: { ...tiny, window: 7 }, preprocessing: at224 },
  swin_small_patch4_window7_224: { config: { ...small, window: 7 }, preprocessing: at224 },
  swin_base_patch4_window7_224: { config: { ...base, window: 7 }, preprocessing: at224 },
  swin_base_patch4_window12_384: { config: { ...base, window: 12 }, preprocessing: at384 },
  swin_large_patch4_window7_224: { config: { ...large, window: 7 }, preprocessing: at224 },
  swin_large_patch4_window12_384: { config: { ...large, window: 12 }, preprocessing: at384 },
  swin_s3_tiny_224: { config: { ...tiny, window: [7, 7, 14, 7] }, preprocessing: at224 },
  swin_s3_small_224: { config: { ...small, window: [14, 14, 14, 7] }, preprocessing: at224 },
  swin_s3_base_224: { config: { ...small, depths: [2, 2, 30, 2], window: [7, 7, 14, 7] }, preprocessing: at224 },
  swin_micro_32: {
    config: { patch: 2, dim: 32, depths: [2, 2, 4], heads: [1, 2, 4], window: 4 },
    init: normalFanIn,
    preprocessing: { imageSize: 32, cropPct: 1 },
  },
};

const transformers: NameMap = {
  root: "swin.",
  pairs: [
    ["patch_embed.proj", "swin.embeddings.patch_embeddings.projection"],
    ["patch_embed.norm", "swin.embeddings.norm"],
    ["layers.{i+1}.downsample", "swin.encoder.layers.{i}.downsample"],
    ...below("layers.{i}.blocks.{j}", "swin.encoder.layers.{i}.blocks.{j}", [
      ...transformersBlock("attention.self"),
      ["attn.relative_position_bias_table", "attention.self.relative_position_bias_table"],
    ]),
    ["norm", "swin.layernorm"],
    ["head.fc", "classifier"],
  ],
};

export const options: Record<string, OptionRule> = { window: { wants: "a whole number of patches", takes: isCount } };

export const names = {
  // So did timm call them before its version 0.9: stages end, not begin, by merging.
  official: {
    pairs: [
      ["layers.{i+1}.downsample", "layers.{i}.downsample"],
      ["head.fc", "head"],
    ],
  },
  transformers,
  "transformers 5": inTransformers5(transformers),
} satisfies FamilyNames;

export const create = (config: SwinConfig, options: SwinOptions): Swin => new Swin(config, options);
