/**
 * GC ViT: attention inside windows by their own queries and, in every second block, by queries that see the whole map.
 * Hatamizadeh et al., "Global Context Vision Transformers" (ICML 2023), https://arxiv.org/abs/2206.09959.  Parameter paths are timm's.
 */
import { known, mulDim } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { offsetBiases } from "../nn/adapt.ts";
import { cutLinear, projections } from "../nn/attention.ts";
import { normal, normalFanIn } from "../nn/init.ts";
import { Conv2d, DropPath, Identity, LayerNorm, LayerScale, Linear, Mlp } from "../nn/layers.ts";
import { normChannels } from "../nn/layout.ts";
import { Module } from "../nn/module.ts";
import { SqueezeExcite } from "../nn/squeeze-excite.ts";
import { acrossWindows, fromWindows, relativeBias, toWindows, type WindowPlan } from "../nn/window.ts";
import { gelu } from "../ops/elementwise.ts";
import { concat } from "../ops/move.ts";
import { softmax } from "../ops/norm.ts";
import { adaptiveAveragePool, maxPool } from "../ops/pool.ts";
import { type Backbone, type BackboneOptions, sides, stageRates, throughStages, type Variant } from "./backbone.ts";

export interface GCViTConfig {
  dim: number;
  depths: readonly number[];
  heads: readonly number[];
  /** Pixels of the image for each place of a window's side, stage by stage: windows grow with the image. */
  ratios: readonly number[];
  mlpRatio: number;
  /** Initial scale of the branches, where they have one. */
  layerScale?: number;
}

export interface GCViTOptions extends BackboneOptions {
  /**
   * Whose queries a window gets.  "tiled" hands those of a batch to its windows in turn, so that images mix: an error of timm 1.0.29
   * that leaves batches of one as they are, for comparing with figures made by it.
   */
  queries?: "own" | "tiled";
}

/** A depthwise convolution with squeeze-excite, added to its input.  [N, C, H, W] -> [N, C, H, W] */
class FusedMBConv extends Module {
  convDw;
  se;
  convPw;
  constructor(dim: number) {
    super();
    this.convDw = new Conv2d(dim, dim, { kernel: 3, padding: 1, groups: dim, bias: false });
    this.se = new SqueezeExcite(dim, dim / 4, { activate: gelu, bias: false, init: normal() });
    this.convPw = new Conv2d(dim, dim, { kernel: 1, bias: false });
  }
  forward(x: Tensor): Tensor {
    return this.convPw.forward(this.se.forward(gelu(this.convDw.forward(x)))).add(x);
  }
}

/** Halves the map between two norms.  [N, C, H, W] -> [N, C', H / 2, W / 2] */
class Downsample extends Module {
  norm1;
  convBlock;
  reduction;
  norm2;
  constructor(inputs: number, outputs: number) {
    super();
    this.norm1 = new LayerNorm(inputs);
    this.convBlock = new FusedMBConv(inputs);
    this.reduction = new Conv2d(inputs, outputs, { kernel: 3, stride: 2, padding: 1, bias: false });
    this.norm2 = new LayerNorm(outputs);
  }
  forward(x: Tensor): Tensor {
    return normChannels(this.norm2, this.reduction.forward(this.convBlock.forward(normChannels(this.norm1, x))));
  }
}

/** Overlapping patches.  [N, 3, H, W] -> [N, C, H / 4, W / 4] */
class Stem extends Module {
  conv1;
  down;
  constructor(inChannels: number, dim: number) {
    super();
    this.conv1 = new Conv2d(inChannels, dim, { kernel: 3, stride: 2, padding: 1 });
    this.down = new Downsample(dim, dim);
  }
  forward(image: Tensor): Tensor {
    return this.down.forward(this.conv1.forward(image));
  }
}

/** The whole map in as many places as a window has, to ask with.  [N, C, H, W] -> [N, C, M, M] */
class GlobalQuery extends Module {
  readonly #blocks;
  readonly #halvings;
  readonly #window;
  constructor(dim: number, halvings: number, window: readonly number[]) {
    super();
    this.#halvings = halvings;
    this.#window = window;
    this.#blocks = Array.from({ length: Math.max(1, halvings) }, () => new FusedMBConv(dim));
  }
  override *parts(): Iterable<[string, Module]> {
    for (const [i, block] of this.#blocks.entries()) yield [`blocks.conv${i + 1}`, block];
  }
  forward(x: Tensor): Tensor {
    const small = this.#blocks.reduce((y, block, i) => {
      const mixed = block.forward(y);
      return i < this.#halvings ? maxPool(mixed, { kernel: 3, stride: 2, padding: 1 }) : mixed;
    }, x);
    // Exactly a window already, unless windows do not divide the map.
    return small.shape.slice(2).every((s, i) => s === this.#window[i])
      ? small
      : adaptiveAveragePool(small, this.#window);
  }
}

/** A learned bias for each offset between two tokens of a window.  -> [heads, M², M²] */
class RelativeBias extends Module {
  relativePositionBiasTable;
  readonly #window;
  constructor(heads: number, window: readonly number[]) {
    super();
    this.#window = window;
    const offsets = (2 * window[0] - 1) * (2 * window[1] - 1);
    this.relativePositionBiasTable = this.param([offsets, heads], normal(), offsetBiases(window));
  }
  forward(): Tensor {
    return relativeBias(this.relativePositionBiasTable, this.#window);
  }
}

/** Attention inside windows, by queries of the tokens or by those given.  [N, L, C] -> [N, L, C] */
class WindowAttention extends Module {
  qkv;
  relPos;
  proj;
  readonly #heads;
  readonly #global;
  constructor(dim: number, heads: number, window: readonly number[], global: boolean) {
    super();
    this.#heads = heads;
    this.#global = global;
    this.qkv = new Linear(dim, (global ? 2 : 3) * dim);
    this.relPos = new RelativeBias(heads, window);
    this.proj = new Linear(dim, dim);
  }
  /** query: [N, 1, heads, M², D], the same for all windows of an image, or one for each */
  forward(x: Tensor, query: Tensor, plan: WindowPlan): Tensor {
    const [batch, heads] = [x.shape[0], this.#heads];
    const windows = (y: Tensor): Tensor => toWindows(y, plan, heads); // [N · windows, heads, M², D]
    const [q, k, v] = this.#global
      ? [
          query,
          ...cutLinear(this.qkv, x, 2).map((y) => windows(y).reshape([batch, plan.windows, ...query.shape.slice(2)])),
        ]
      : projections(this.qkv, x, heads).map(windows);
    const mixed = softmax(q.matmul(k.mT).add(this.relPos.forward())).matmul(v); // [..., heads, M², D]
    const each = mixed.reshape([mulDim(batch, plan.windows), ...query.shape.slice(2)]);
    return this.proj.forward(fromWindows(each, plan, batch));
  }
}

/** Attention, then an MLP.  [N, L, C] -> [N, L, C] */
class Block extends Module {
  norm1;
  attn;
  ls1;
  norm2;
  mlp;
  ls2;
  dropPath;
  readonly #window;
  constructor(dim: number, i: number, { heads, window, mlpRatio, layerScale }: StageConfig, rate: number) {
    super();
    const scale = () => (layerScale === undefined ? new Identity() : new LayerScale(dim, layerScale));
    this.#window = window;
    this.norm1 = new LayerNorm(dim);
    this.attn = new WindowAttention(dim, heads, window, i % 2 === 1);
    this.ls1 = scale();
    this.norm2 = new LayerNorm(dim);
    this.mlp = new Mlp(dim, mlpRatio * dim);
    this.ls2 = scale();
    this.dropPath = new DropPath(rate);
  }
  forward(x: Tensor, query: Tensor, size: readonly number[]): Tensor {
    const inside = (tokens: Tensor, plan: WindowPlan): Tensor => this.attn.forward(tokens, query, plan);
    const mixed = acrossWindows(this.norm1.forward(x), size, this.#window, inside);
    const y = x.add(this.dropPath.forward(this.ls1.forward(mixed)));
    return y.add(this.dropPath.forward(this.ls2.forward(this.mlp.forward(this.norm2.forward(y)))));
  }
}

interface StageConfig extends Pick<GCViTConfig, "mlpRatio" | "layerScale"> {
  inputs: number;
  dim: number;
  heads: number;
  window: readonly number[];
  /** How often the map is halved to make the global queries. */
  halvings: number;
  place: "first" | "middle" | "last";
  tiled: boolean;
}

/** Blocks at one resolution, after halving the map where it is not the first.  [N, C, H, W] -> [N, C', H', W'] */
class Stage extends Module {
  downsample;
  globalBlock;
  blocks;
  norm;
  readonly #config;
  constructor(config: StageConfig, rates: readonly number[]) {
    super();
    const { inputs, dim, window, halvings, place } = config;
    this.#config = config;
    this.downsample = place === "first" ? undefined : new Downsample(inputs, dim);
    this.globalBlock = new GlobalQuery(dim, halvings, window);
    this.blocks = rates.map((rate, i) => new Block(dim, i, config, rate));
    this.norm = place === "last" ? new LayerNorm(dim) : undefined;
  }
  forward(x: Tensor): Tensor {
    const start = this.downsample ? this.downsample.forward(x) : x;
    const [batch, dim, height, width] = [start.shape[0], ...start.shape.slice(1).map((d) => known(d))];
    const { heads, window, tiled } = this.#config;
    const each = dim / heads;
    const asked = this.globalBlock.forward(start).mul(each ** -0.5); // [N, C, M, M]
    const own = asked.reshape([batch, 1, heads, each, -1]).mT; // [N, 1, heads, M², D]
    const windows = Math.ceil(height / window[0]) * Math.ceil(width / window[1]);
    const query = tiled ? inTurn(own, windows) : own;
    const tokens = start.reshape([batch, dim, height * width]).mT; // [N, L, C]
    const mixed = this.blocks.reduce((y, block) => block.forward(y, query, [height, width]), tokens);
    return (this.norm ? this.norm.forward(mixed) : mixed).mT.reshape(start.shape);
  }
}

/** Queries of a batch, one after the other, for all windows of all images.  [N, 1, ...] -> [N, windows, ...] */
const inTurn = (query: Tensor, windows: number): Tensor =>
  concat(
    Array.from({ length: windows }, () => query),
    0,
  ).reshape([query.shape[0], windows, ...query.shape.slice(2)]);

export class GCViT extends Module implements Backbone {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim: number;
  readonly headName = "head.fc";
  stem;
  stages;
  constructor({ dim, depths, heads, ratios, ...config }: GCViTConfig, options: GCViTOptions = {}) {
    super();
    const { imageSize = 224, inChannels = 3, dropPath = 0 } = options;
    const rates = stageRates(depths, dropPath);
    const last = depths.length - 1;
    this.channels = depths.map((_, i) => dim * 2 ** i);
    this.strides = depths.map((_, i) => 4 * 2 ** i);
    this.dim = this.channels[last];
    this.stem = new Stem(inChannels, dim);
    this.stages = depths.map((_, i) => {
      const stage: StageConfig = {
        ...config,
        inputs: this.channels[i - 1],
        dim: this.channels[i],
        heads: heads[i],
        window: sides(imageSize).map((s) => Math.max(1, Math.floor(s / ratios[i]))),
        halvings: Math.log2(ratios[i] / this.strides[i]),
        place: i === 0 ? "first" : i === last ? "last" : "middle",
        tiled: options.queries === "tiled",
      };
      return new Stage(stage, rates[i]);
    });
  }
  /** The last map is normalised. */
  forward(image: Tensor): Tensor[] {
    return throughStages(this.stages, this.stem.forward(image)); // [N, C, H / 4, W / 4]
  }
  embed(image: Tensor): Tensor {
    const maps = this.forward(image);
    return maps[maps.length - 1].mean([2, 3], false);
  }
}

export const paper = "Hatamizadeh et al., Global Context Vision Transformers (2023), https://arxiv.org/abs/2206.09959";

const slim = { dim: 64, heads: [2, 4, 8, 16], ratios: [32, 32, 16, 32], mlpRatio: 3 };
const wide = { ...slim, depths: [3, 4, 19, 5], mlpRatio: 2, layerScale: 1e-5 };

/** The paper's sizes; xxtiny and xtiny are the official repository's too. */
export const variants: Record<string, Variant<GCViTConfig>> = {
  gcvit_xxtiny: { config: { ...slim, depths: [2, 2, 6, 2] } },
  gcvit_xtiny: { config: { ...slim, depths: [3, 4, 6, 5] } },
  gcvit_tiny: { config: { ...slim, depths: [3, 4, 19, 5] } },
  gcvit_small: { config: { ...wide, dim: 96, heads: [3, 6, 12, 24] } },
  gcvit_base: { config: { ...wide, dim: 128, heads: [4, 8, 16, 32] } },
  gcvit_micro_32: {
    config: { dim: 32, depths: [2, 2, 2], heads: [1, 2, 4], ratios: [8, 8, 16], mlpRatio: 3 },
    init: normalFanIn,
    preprocessing: { imageSize: 32, cropPct: 1 },
  },
};

export const options = { queries: ["own", "tiled"] } as const;

export const create = (config: GCViTConfig, options: GCViTOptions): GCViT => new GCViT(config, options);
