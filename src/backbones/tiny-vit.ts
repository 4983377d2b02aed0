/**
 * TinyViT: a pyramid of convolutions, then attention inside windows, small enough to learn from a large teacher.
 * Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision Transformers" (ECCV 2022), https://arxiv.org/abs/2207.10666.
 * Parameter paths are timm's.
 */
import { known } from "../graph/shape.ts";
import { constant, type Tensor } from "../graph/tensor.ts";
import { distanceBiases } from "../nn/adapt.ts";
import { projections, queriesFirst } from "../nn/attention.ts";
import { ones, zeros } from "../nn/init.ts";
import { BatchNorm2d, Conv2d, DropPath, LayerNorm, Linear } from "../nn/layers.ts";
import { Module } from "../nn/module.ts";
import { acrossWindows, fromWindows, toWindows, type WindowPlan } from "../nn/window.ts";
import type { ConvOptions } from "../ops/conv.ts";
import { gelu } from "../ops/elementwise.ts";
import { gather } from "../ops/move.ts";
import { softmax } from "../ops/norm.ts";
import { type Backbone, type BackboneOptions, stageRates, throughStages, type Variant } from "./backbone.ts";

export interface TinyViTConfig {
  dims: readonly number[];
  depths: readonly number[];
  /** Of every stage but the first, which convolves. */
  heads: readonly number[];
  windows: readonly number[];
}

/** A convolution that keeps the size at stride 1, and batch norm.  [N, C, H, W] -> [N, C', H / stride, W / stride] */
class ConvNorm extends Module {
  conv;
  bn;
  constructor(inputs: number, outputs: number, kernel: number, options: ConvOptions = {}, init = ones) {
    super();
    this.conv = new Conv2d(inputs, outputs, { kernel, padding: (kernel - 1) / 2, bias: false, ...options });
    this.bn = new BatchNorm2d(outputs, { init });
  }
  forward(x: Tensor): Tensor {
    return this.bn.forward(this.conv.forward(x));
  }
}

/** Two strided convolutions (section 3.2).  [N, 3, H, W] -> [N, C, H/4, W/4] */
class PatchEmbed extends Module {
  conv1;
  conv2;
  constructor(inChannels: number, dim: number) {
    super();
    this.conv1 = new ConvNorm(inChannels, dim / 2, 3, { stride: 2 });
    this.conv2 = new ConvNorm(dim / 2, dim, 3, { stride: 2 });
  }
  forward(image: Tensor): Tensor {
    return this.conv2.forward(gelu(this.conv1.forward(image)));
  }
}

/** An inverted bottleneck, whose last norm starts at 0.  [N, C, H, W] -> [N, C, H, W] */
class MBConv extends Module {
  conv1;
  conv2;
  conv3;
  dropPath;
  constructor(dim: number, rate: number) {
    super();
    const inner = 4 * dim;
    this.conv1 = new ConvNorm(dim, inner, 1);
    this.conv2 = new ConvNorm(inner, inner, 3, { groups: inner });
    this.conv3 = new ConvNorm(inner, dim, 1, {}, zeros);
    this.dropPath = new DropPath(rate);
  }
  forward(x: Tensor): Tensor {
    const y = gelu(this.conv2.forward(gelu(this.conv1.forward(x)))); // [N, 4C, H, W]
    return gelu(x.add(this.dropPath.forward(this.conv3.forward(y))));
  }
}

/** The same without its shortcut, to half the size.  [N, C, H, W] -> [N, C', H/2, W/2] */
class PatchMerging extends Module {
  conv1;
  conv2;
  conv3;
  constructor(inputs: number, dim: number) {
    super();
    this.conv1 = new ConvNorm(inputs, dim, 1);
    this.conv2 = new ConvNorm(dim, dim, 3, { stride: 2, groups: dim });
    this.conv3 = new ConvNorm(dim, dim, 1);
  }
  forward(x: Tensor): Tensor {
    return this.conv3.forward(gelu(this.conv2.forward(gelu(this.conv1.forward(x)))));
  }
}

/** Attention inside windows, with a learned bias for each distance along the two axes.  [N, L, C] -> [N, L, C] */
class Attention extends Module {
  attentionBiases;
  norm;
  qkv;
  proj;
  readonly #heads;
  readonly #window;
  constructor(dim: number, heads: number, window: number) {
    super();
    this.#heads = heads;
    this.#window = window;
    this.attentionBiases = this.param([heads, window * window], zeros, distanceBiases);
    this.norm = new LayerNorm(dim);
    this.qkv = new Linear(dim, 3 * dim);
    this.proj = new Linear(dim, dim);
  }
  forward(x: Tensor, plan: WindowPlan): Tensor {
    const heads = this.#heads;
    const [q, k, v] = projections(queriesFirst(this.qkv, heads), this.norm.forward(x), heads).map((y) =>
      toWindows(y, plan, heads),
    ); // [N · windows, heads, M², D]
    const scores = q.matmul(k.mT).add(this.#bias()); // [N · windows, heads, M², M²]
    return this.proj.forward(fromWindows(softmax(scores).matmul(v), plan, x.shape[0]));
  }
  /** [heads, M², M²] */
  #bias(): Tensor {
    const [window, tokens] = [this.#window, this.#window ** 2];
    const row = (token: number): number => Math.floor(token / window);
    const index = new Int32Array(tokens * tokens);
    for (let i = 0; i < tokens; i++)
      for (let j = 0; j < tokens; j++)
        index[i * tokens + j] = Math.abs(row(i) - row(j)) * window + Math.abs((i % window) - (j % window));
    const places = constant(index, [tokens * tokens], "int32");
    return gather(this.attentionBiases, places, { axis: 1 }).reshape([this.#heads, tokens, tokens]);
  }
}

/** [N, ..., C] -> [N, ..., C] */
class NormMlp extends Module {
  norm;
  fc1;
  fc2;
  constructor(dim: number) {
    super();
    this.norm = new LayerNorm(dim);
    this.fc1 = new Linear(dim, 4 * dim);
    this.fc2 = new Linear(4 * dim, dim);
  }
  forward(x: Tensor): Tensor {
    return this.fc2.forward(gelu(this.fc1.forward(this.norm.forward(x))));
  }
}

/** Attention, a depthwise convolution for what is near, then an MLP (figure 3).  [N, H, W, C] -> [N, H, W, C] */
class Block extends Module {
  attn;
  localConv;
  mlp;
  dropPath;
  readonly #window;
  constructor(dim: number, heads: number, window: number, rate: number) {
    super();
    this.#window = window;
    this.attn = new Attention(dim, heads, window);
    this.localConv = new ConvNorm(dim, dim, 3, { groups: dim });
    this.mlp = new NormMlp(dim);
    this.dropPath = new DropPath(rate);
  }
  forward(x: Tensor): Tensor {
    const y = x.add(this.dropPath.forward(this.#attend(x))).permute(0, 3, 1, 2);
    const z = this.localConv.forward(y).permute(0, 2, 3, 1); // [N, H, W, C]
    return z.add(this.dropPath.forward(this.mlp.forward(z)));
  }
  #attend(x: Tensor): Tensor {
    const [batch, height, width, dim] = [x.shape[0], ...x.shape.slice(1).map((d) => known(d))];
    const inside = (tokens: Tensor, plan: WindowPlan): Tensor => this.attn.forward(tokens, plan);
    const tokens = x.reshape([batch, height * width, dim]);
    return acrossWindows(tokens, [height, width], [this.#window, this.#window], inside).reshape(x.shape);
  }
}

/** The first stage.  [N, C, H, W] -> [N, C, H, W] */
class ConvStage extends Module {
  blocks;
  constructor(dim: number, rates: readonly number[]) {
    super();
    this.blocks = rates.map((rate) => new MBConv(dim, rate));
  }
  forward(x: Tensor): Tensor {
    return this.blocks.reduce((y, block) => block.forward(y), x);
  }
}

/** The other stages.  [N, C, H, W] -> [N, C', H/2, W/2] */
class AttentionStage extends Module {
  downsample;
  blocks;
  constructor(inputs: number, dim: number, heads: number, window: number, rates: readonly number[]) {
    super();
    this.downsample = new PatchMerging(inputs, dim);
    this.blocks = rates.map((rate) => new Block(dim, heads, window, rate));
  }
  forward(x: Tensor): Tensor {
    const start = this.downsample.forward(x).permute(0, 2, 3, 1); // [N, H/2, W/2, C']
    return this.blocks.reduce((y, block) => block.forward(y), start).permute(0, 3, 1, 2);
  }
}

/** What stands before the classifier. */
class Head extends Module {
  norm;
  constructor(dim: number) {
    super();
    this.norm = new LayerNorm(dim);
  }
  /** [N, C, H, W] -> [N, C] */
  forward(x: Tensor): Tensor {
    return this.norm.forward(x.mean([2, 3]));
  }
}

export class TinyViT extends Module implements Backbone {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim: number;
  readonly headName = "head.fc";
  patchEmbed;
  stages: (ConvStage | AttentionStage)[];
  head;
  constructor({ dims, depths, heads, windows }: TinyViTConfig, options: BackboneOptions = {}) {
    super();
    const { inChannels = 3, dropPath = 0 } = options;
    const rates = stageRates(depths, dropPath);
    this.channels = dims;
    this.strides = dims.map((_, i) => 4 * 2 ** i);
    this.dim = dims[dims.length - 1];
    this.patchEmbed = new PatchEmbed(inChannels, dims[0]);
    this.stages = depths.map((_, i) => {
      const own = rates[i];
      return i === 0
        ? new ConvStage(dims[0], own)
        : new AttentionStage(dims[i - 1], dims[i], heads[i - 1], windows[i - 1], own);
    });
    this.head = new Head(this.dim);
  }
  forward(image: Tensor): Tensor[] {
    return throughStages(this.stages, this.patchEmbed.forward(image));
  }
  embed(image: Tensor): Tensor {
    const maps = this.forward(image);
    return this.head.forward(maps[maps.length - 1]);
  }
}

export const paper = "Wu et al., TinyViT (2022), https://arxiv.org/abs/2207.10666";

const depths = [2, 2, 6, 2];
const of21m = { dims: [96, 192, 384, 576], depths, heads: [6, 12, 18] };
const at224 = { windows: [7, 14, 7] };
const pictures = { cropPct: 0.95 };

const imagenet22k = 21841;

/** Section 4.1; the windows grow with the pictures. */
export const variants: Record<string, Variant<TinyViTConfig>> = {
  tiny_vit_5m_224: {
    config: { dims: [64, 128, 160, 320], depths, heads: [4, 5, 10], ...at224 },
    preprocessing: pictures,
    classes: imagenet22k,
  },
  tiny_vit_11m_224: {
    config: { dims: [64, 128, 256, 448], depths, heads: [4, 8, 14], ...at224 },
    preprocessing: pictures,
    classes: imagenet22k,
  },
  tiny_vit_21m_224: { config: { ...of21m, ...at224 }, preprocessing: pictures, classes: imagenet22k },
  tiny_vit_21m_384: { config: { ...of21m, windows: [12, 24, 12] }, preprocessing: { imageSize: 384, cropPct: 1 } },
  tiny_vit_21m_512: {
    config: { ...of21m, windows: [16, 32, 16] },
    preprocessing: { imageSize: 512, cropPct: 1, cropMode: "squash" },
  },
};

export const create = (config: TinyViTConfig, options: BackboneOptions): TinyViT => new TinyViT(config, options);
