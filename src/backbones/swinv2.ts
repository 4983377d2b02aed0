/**
 * Swin Transformer V2: Swin whose branches are normalised at their end, whose attention compares directions rather than lengths, and
 * whose position bias is a function of the offset, so that weights carry over to windows of another size.
 * Liu et al., "Swin Transformer V2: Scaling Up Capacity and Resolution" (CVPR 2022), https://arxiv.org/abs/2111.09883.
 * Parameter paths are timm's.
 */
import { isCount, known } from "../graph/shape.ts";
import { scalar, type Tensor } from "../graph/tensor.ts";
import { fixed, normalFanIn, zeros } from "../nn/init.ts";
import { DropPath, LayerNorm, Linear, Mlp } from "../nn/layers.ts";
import { channelsFirst } from "../nn/layout.ts";
import { Module } from "../nn/module.ts";
import {
  acrossWindows,
  addPlaces,
  fromWindows,
  offsetTable,
  planWindows,
  relativeBias,
  toWindows,
  type WindowPlan,
} from "../nn/window.ts";
import { minimum, relu, sigmoid } from "../ops/elementwise.ts";
import { linear } from "../ops/linalg.ts";
import { split } from "../ops/move.ts";
import { softmax, unitNorm } from "../ops/norm.ts";
import {
  type Backbone,
  type BackboneOptions,
  type OptionRule,
  sides,
  stageRates,
  throughStages,
  type Variant,
} from "./backbone.ts";
import { below, type FamilyNames, transformersBlock } from "./names.ts";
import { joinNeighbours, PatchEmbed } from "./swin.ts";

export interface SwinV2Config {
  patch: number;
  dim: number;
  depths: readonly number[];
  heads: readonly number[];
  /** Side of a window. */
  window: number;
  /** Sides of the windows of each stage in which the position bias was learned: its unit of distance. */
  learned: readonly number[];
}

export interface SwinV2Options extends BackboneOptions {
  /** Another side of a window than the weights were trained with. */
  window?: number;
}

/** A bias for each offset inside a window, from a small network of the offset's logarithm (equations 3 and 4).  -> [heads, M², M²] */
class PositionBias extends Module {
  readonly #first;
  readonly #second;
  readonly #learned;
  constructor(heads: number, learned: number) {
    super();
    this.#first = new Linear(2, 512);
    this.#second = new Linear(512, heads, { bias: false });
    this.#learned = learned;
  }
  override *parts(): Iterable<[string, Module]> {
    yield ["0", this.#first];
    yield ["2", this.#second];
  }
  forward(window: readonly number[]): Tensor {
    const table = offsetTable(window, logOffset(this.#learned));
    const biases = this.#second.forward(relu(this.#first.forward(table))); // [(2M-1)², heads]
    return relativeBias(sigmoid(biases).mul(16), window);
  }
}

/** sign(d) log₂(1 + 8|d| / (learned - 1)) / 3 of an offset d: ±1.06 at the ends of the window where it was learned. */
const logOffset =
  (learned: number) =>
  (d: number): number => {
    const offset = (8 * d) / Math.max(learned - 1, 1);
    return (Math.sign(offset) * Math.log2(1 + Math.abs(offset))) / 3;
  };

/** Attention inside windows by cosine, τ cos(q, k) + bias, with 1/τ no smaller than 0.01 (equation 2).  [N, L, C] -> [N, L, C] */
class WindowAttention extends Module {
  logitScale;
  qBias;
  vBias;
  cpbMlp;
  qkv;
  proj;
  readonly #heads;
  constructor(dim: number, heads: number, learned: number) {
    super();
    this.#heads = heads;
    this.logitScale = this.param([heads, 1, 1], fixed(Math.log(10)));
    this.qBias = this.param([dim], zeros);
    this.vBias = this.param([dim], zeros);
    this.cpbMlp = new PositionBias(heads, learned);
    this.qkv = new Linear(dim, 3 * dim, { bias: false });
    this.proj = new Linear(dim, dim);
  }
  forward(x: Tensor, plan: WindowPlan): Tensor {
    const biases = [this.qBias, undefined, this.vBias];
    const [q, k, v] = split(this.qkv.weight, 0, 3).map((weight, i) =>
      toWindows(linear(x, weight, biases[i]), plan, this.#heads),
    ); // [N · windows, heads, M², D]
    const scale = minimum(this.logitScale, scalar(Math.log(100), x.dtype)).exp(); // [heads, 1, 1]
    const scores = unitNorm(q).mul(scale).matmul(unitNorm(k).mT); // [N · windows, heads, M², M²]
    const bias = this.cpbMlp.forward(plan.window); // [heads, M², M²]
    const mixed = softmax(addPlaces(scores, bias, plan)).matmul(v); // [N · windows, heads, M², D]
    return this.proj.forward(fromWindows(mixed, plan, x.shape[0]));
  }
}

/** Attention, then an MLP, each normalised before it is added (figure 1).  [N, L, C] -> [N, L, C] */
class Block extends Module {
  attn;
  norm1;
  mlp;
  norm2;
  dropPath;
  readonly #window;
  readonly #shift;
  constructor({ dim, size, heads, window, learned }: StageConfig, shifted: boolean, rate: number) {
    super();
    // Where the map is no larger than a window there is one window, and nothing to shift.
    this.#window = size.map((s) => Math.min(s, window));
    this.#shift = size.map((s) => (shifted && s > window ? Math.floor(window / 2) : 0));
    // Norms that start at 0 make every block start as its shortcut.
    this.attn = new WindowAttention(dim, heads, learned);
    this.norm1 = new LayerNorm(dim, { init: zeros });
    this.mlp = new Mlp(dim, 4 * dim);
    this.norm2 = new LayerNorm(dim, { init: zeros });
    this.dropPath = new DropPath(rate);
  }
  forward(x: Tensor, size: readonly number[]): Tensor {
    const inside = (tokens: Tensor, plan: WindowPlan): Tensor => this.attn.forward(tokens, plan);
    const mixed = acrossWindows(x, size, this.#window, inside, (grown) =>
      planWindows(grown, this.#window, this.#shift),
    );
    const y = x.add(this.dropPath.forward(this.norm1.forward(mixed)));
    return y.add(this.dropPath.forward(this.norm2.forward(this.mlp.forward(y))));
  }
}

/** Joins 2 × 2 neighbours, halves their channels, then normalises.  [N, H, W, C] -> [N, H/2, W/2, 2C] */
class PatchMerging extends Module {
  reduction;
  norm;
  constructor(dim: number) {
    super();
    this.reduction = new Linear(4 * dim, 2 * dim, { bias: false });
    this.norm = new LayerNorm(2 * dim);
  }
  forward(x: Tensor): Tensor {
    return this.norm.forward(this.reduction.forward(joinNeighbours(x)));
  }
}

interface StageConfig {
  dim: number;
  /** Of the map, in elements. */
  size: readonly number[];
  heads: number;
  window: number;
  learned: number;
}

/** Blocks at one resolution, after merging where it is not the first.  [N, H, W, C] -> [N, H', W', C'] */
class Stage extends Module {
  downsample;
  blocks;
  constructor(config: StageConfig, first: boolean, rates: readonly number[]) {
    super();
    this.downsample = first ? undefined : new PatchMerging(config.dim / 2);
    this.blocks = rates.map((rate, i) => new Block(config, i % 2 === 1, rate));
  }
  forward(x: Tensor): Tensor {
    const start = this.downsample ? this.downsample.forward(x) : x;
    const [batch, height, width, dim] = [start.shape[0], ...start.shape.slice(1).map((d) => known(d))];
    const tokens = start.reshape([batch, height * width, dim]);
    return this.blocks.reduce((y, block) => block.forward(y, [height, width]), tokens).reshape(start.shape);
  }
}

export class SwinV2 extends Module implements Backbone {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim: number;
  readonly headName = "head.fc";
  patchEmbed;
  layers;
  norm;
  constructor({ patch, dim, depths, heads, window, learned }: SwinV2Config, options: SwinV2Options = {}) {
    super();
    const { imageSize = 256, inChannels = 3, dropPath = 0 } = options;
    const rates = stageRates(depths, dropPath);
    this.channels = depths.map((_, i) => dim * 2 ** i);
    this.strides = depths.map((_, i) => patch * 2 ** i);
    this.dim = this.channels[depths.length - 1];
    this.patchEmbed = new PatchEmbed(inChannels, dim, patch);
    this.layers = depths.map((_, i) => {
      const size = sides(imageSize).map((s) => Math.ceil(s / this.strides[i]));
      const stage = {
        dim: this.channels[i],
        size,
        heads: heads[i],
        window: options.window ?? window,
        learned: learned[i],
      };
      return new Stage(stage, i === 0, rates[i]);
    });
    this.norm = new LayerNorm(this.dim);
  }
  #maps(image: Tensor): Tensor[] {
    return throughStages(this.layers, this.patchEmbed.forward(image)); // [N, H/4, W/4, C]
  }
  forward(image: Tensor): Tensor[] {
    return this.#maps(image).map(channelsFirst);
  }
  embed(image: Tensor): Tensor {
    const maps = this.#maps(image);
    return this.norm.forward(maps[maps.length - 1]).mean([1, 2], false);
  }
}

export const paper = "Liu et al., Swin Transformer V2 (2022), https://arxiv.org/abs/2111.09883";

const tiny = { patch: 4, dim: 96, depths: [2, 2, 6, 2], heads: [3, 6, 12, 24] };
const small = { ...tiny, depths: [2, 2, 18, 2] };
const base = { patch: 4, dim: 128, depths: [2, 2, 18, 2], heads: [4, 8, 16, 32] };
const large = { patch: 4, dim: 192, depths: [2, 2, 18, 2], heads: [6, 12, 24, 48] };
const window8 = { window: 8, learned: [8, 8, 8, 8] };
const window16 = { window: 16, learned: [16, 16, 16, 8] };
const window12 = { window: 12, learned: [12, 12, 12, 6] };
const at = (imageSize: number, cropPct = 0.9) => ({ imageSize, cropPct });

const imagenet22k = 21841;

/** Section 3.6; `12to16` was trained in windows of 12 and fine-tuned in windows of 16. */
export const variants: Record<string, Variant<SwinV2Config>> = {
  swinv2_tiny_window8_256: { config: { ...tiny, ...window8 }, preprocessing: at(256) },
  swinv2_tiny_window16_256: { config: { ...tiny, ...window16 }, preprocessing: at(256) },
  swinv2_small_window8_256: { config: { ...small, ...window8 }, preprocessing: at(256) },
  swinv2_small_window16_256: { config: { ...small, ...window16 }, preprocessing: at(256) },
  swinv2_base_window8_256: { config: { ...base, ...window8 }, preprocessing: at(256) },
  swinv2_base_window16_256: { config: { ...base, ...window16 }, preprocessing: at(256) },
  swinv2_base_window12_192: { config: { ...base, ...window12 }, preprocessing: at(192), classes: imagenet22k },
  swinv2_base_window12to16_192to256: { config: { ...base, ...window12, window: 16 }, preprocessing: at(256) },
  swinv2_base_window12to24_192to384: { config: { ...base, ...window12, window: 24 }, preprocessing: at(384, 1) },
  swinv2_large_window12_192: { config: { ...large, ...window12 }, preprocessing: at(192), classes: imagenet22k },
  swinv2_large_window12to16_192to256: { config: { ...large, ...window12, window: 16 }, preprocessing: at(256) },
  swinv2_large_window12to24_192to384: { config: { ...large, ...window12, window: 24 }, preprocessing: at(384, 1) },
  swinv2_micro_32: {
    config: { patch: 2, dim: 32, depths: [2, 2, 4], heads: [1, 2, 4], window: 4, learned: [4, 4, 4] },
    init: normalFanIn,
    preprocessing: { imageSize: 32, cropPct: 1 },
  },
};

export const options: Record<string, OptionRule> = { window: { wants: "a whole number of patches", takes: isCount } };

export const names: FamilyNames = {
  official: {
    pairs: [
      ["layers.{i+1}.downsample", "layers.{i}.downsample"],
      ["head.fc", "head"],
    ],
  },
  transformers: {
    root: "swinv2.",
    pairs: [
      ["patch_embed.proj", "swinv2.embeddings.patch_embeddings.projection"],
      ["patch_embed.norm", "swinv2.embeddings.norm"],
      ["layers.{i+1}.downsample", "swinv2.encoder.layers.{i}.downsample"],
      ...below("layers.{i}.blocks.{j}", "swinv2.encoder.layers.{i}.blocks.{j}", [
        ["attn.q_bias", "attention.self.query.bias"],
        ["attn.v_bias", "attention.self.value.bias"],
        ["attn.logit_scale", "attention.self.logit_scale"],
        ["attn.cpb_mlp", "attention.self.continuous_position_bias_mlp"],
        ...transformersBlock("attention.self"),
      ]),
      ["norm", "swinv2.layernorm"],
      ["head.fc", "classifier"],
    ],
  },
};

export const create = (config: SwinV2Config, options: SwinV2Options): SwinV2 => new SwinV2(config, options);
