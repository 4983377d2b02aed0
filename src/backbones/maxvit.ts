/**
 * MaxViT: each block is a convolution, attention inside windows, then attention along a grid that spans the map.
 * Tu et al., "MaxViT: Multi-Axis Vision Transformer" (ECCV 2022), https://arxiv.org/abs/2204.01697.  Parameter paths are timm's.
 */
import { known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { offsetBiases } from "../nn/adapt.ts";
import { projections } from "../nn/attention.ts";
import { heNormalFor, normal, normalFanIn } from "../nn/init.ts";
import { BatchNorm2d, Conv2d, type Conv2dOptions, DropPath, LayerNorm, Linear, Mlp } from "../nn/layers.ts";
import { Module } from "../nn/module.ts";
import { SqueezeExcite } from "../nn/squeeze-excite.ts";
import { acrossWindows, fromWindows, planGrid, planWindows, relativeBias, toWindows } from "../nn/window.ts";
import { geluTanh, silu, tanh } from "../ops/elementwise.ts";
import { softmax } from "../ops/norm.ts";
import { averagePool } from "../ops/pool.ts";
import { type Backbone, type BackboneOptions, sides, stageRates, throughStages, type Variant } from "./backbone.ts";

export interface MaxViTConfig {
  stem: number;
  dims: readonly number[];
  depths: readonly number[];
  /** Channels of an attention head. */
  headDim: number;
  /** Pixels of the image for each place of a window's side: windows and grids grow with the image. */
  ratio: number;
}

/** As TensorFlow pads, and as EfficientNet starts. */
function convolution(inputs: number, outputs: number, options: Conv2dOptions): Conv2d {
  return new Conv2d(inputs, outputs, { padding: "same", init: heNormalFor(options.groups ?? 1), ...options });
}

const batchNorm = (channels: number): BatchNorm2d => new BatchNorm2d(channels, { eps: 1e-3 });

/** Two 3 × 3 convolutions.  [N, 3, H, W] -> [N, C, H / 2, W / 2] */
class Stem extends Module {
  conv1;
  norm1;
  conv2;
  constructor(inChannels: number, dim: number) {
    super();
    this.conv1 = convolution(inChannels, dim, { kernel: 3, stride: 2 });
    this.norm1 = batchNorm(dim);
    this.conv2 = convolution(dim, dim, { kernel: 3 });
  }
  forward(image: Tensor): Tensor {
    return this.conv2.forward(geluTanh(this.norm1.forward(this.conv1.forward(image))));
  }
}

/** Means over 2 × 2 places, then other channels where they change.  [N, C, H, W] -> [N, C', H / 2, W / 2] */
class Shortcut extends Module {
  expand;
  constructor(inputs: number, outputs: number) {
    super();
    this.expand = inputs === outputs ? undefined : convolution(inputs, outputs, { kernel: 1 });
  }
  forward(x: Tensor): Tensor {
    const half = averagePool(x, { kernel: 2, ceilMode: true });
    return this.expand ? this.expand.forward(half) : half;
  }
}

/** The inverted bottleneck with squeeze-excite.  [N, C, H, W] -> [N, C', H / stride, W / stride] */
class MBConv extends Module {
  shortcut;
  preNorm;
  readonly #expand;
  norm1;
  readonly #depthwise;
  norm2;
  se;
  readonly #project;
  dropPath;
  constructor(inputs: number, outputs: number, stride: number, rate: number) {
    super();
    const inner = 4 * outputs;
    this.shortcut = stride > 1 ? new Shortcut(inputs, outputs) : undefined;
    this.preNorm = batchNorm(inputs);
    this.#expand = convolution(inputs, inner, { kernel: 1, bias: false });
    this.norm1 = batchNorm(inner);
    this.#depthwise = convolution(inner, inner, { kernel: 3, stride, groups: inner, bias: false });
    this.norm2 = batchNorm(inner);
    this.se = new SqueezeExcite(inner, outputs / 4, { activate: silu });
    this.#project = convolution(inner, outputs, { kernel: 1 });
    this.dropPath = new DropPath(rate);
  }
  override *parts(): Iterable<[string, Module | Tensor]> {
    yield* super.parts();
    yield ["conv1_1x1", this.#expand];
    yield ["conv2_kxk", this.#depthwise];
    yield ["conv3_1x1", this.#project];
  }
  forward(x: Tensor): Tensor {
    const wide = geluTanh(this.norm1.forward(this.#expand.forward(this.preNorm.forward(x)))); // [N, 4C', H, W]
    const mixed = geluTanh(this.norm2.forward(this.#depthwise.forward(wide))); // [N, 4C', H / stride, W / stride]
    const y = this.#project.forward(this.se.forward(mixed));
    return this.dropPath.forward(y).add(this.shortcut ? this.shortcut.forward(x) : x);
  }
}

/** A learned bias for each offset between two tokens of a window, key minus query. */
class RelativeBias extends Module {
  relativePositionBiasTable;
  readonly #window;
  constructor(heads: number, window: readonly number[]) {
    super();
    this.#window = window;
    this.relativePositionBiasTable = this.param(
      [heads, 2 * window[0] - 1, 2 * window[1] - 1],
      normal(0.02),
      offsetBiases(window),
    );
  }
  /** -> [heads, tokens, tokens] */
  forward(): Tensor {
    const table = this.relativePositionBiasTable.reshape([this.relativePositionBiasTable.shape[0], -1]).mT;
    return relativeBias(table, this.#window).mT;
  }
}

/** How the tokens that attend to each other are chosen: neighbours, or spread over the map (figure 3). */
const plans = { block: planWindows, grid: planGrid } as const;

/** Attention among the tokens of each window (section 3.1).  [N, L, C] -> [N, L, C] */
class Attention extends Module {
  qkv;
  relPos;
  proj;
  readonly #heads;
  readonly #window;
  readonly #plan;
  constructor(dim: number, heads: number, window: readonly number[], kind: keyof typeof plans) {
    super();
    this.#heads = heads;
    this.#window = window;
    this.#plan = plans[kind];
    this.qkv = new Linear(dim, 3 * dim);
    this.relPos = new RelativeBias(heads, window);
    this.proj = new Linear(dim, dim);
  }
  forward(x: Tensor, size: readonly number[]): Tensor {
    const heads = this.#heads;
    const inside = (y: Tensor, plan: ReturnType<typeof planGrid>): Tensor => {
      const [q, k, v] = projections(this.qkv, y, heads).map((t) => toWindows(t, plan, heads)); // [N · windows, heads, P², D]
      const mixed = softmax(q.matmul(k.mT).add(this.relPos.forward())).matmul(v);
      return this.proj.forward(fromWindows(mixed, plan, x.shape[0]));
    };
    return acrossWindows(x, size, this.#window, inside, this.#plan);
  }
}

/** Attention, then an MLP.  [N, L, C] -> [N, L, C] */
class AttentionBlock extends Module {
  norm1;
  attn;
  norm2;
  mlp;
  dropPath;
  constructor(dim: number, attn: Attention, rate: number) {
    super();
    this.norm1 = new LayerNorm(dim);
    this.attn = attn;
    this.norm2 = new LayerNorm(dim);
    this.mlp = new Mlp(dim, 4 * dim, { activate: geluTanh });
    this.dropPath = new DropPath(rate);
  }
  forward(x: Tensor, size: readonly number[]): Tensor {
    const y = x.add(this.dropPath.forward(this.attn.forward(this.norm1.forward(x), size)));
    return y.add(this.dropPath.forward(this.mlp.forward(this.norm2.forward(y))));
  }
}

/** Convolution, attention inside windows, attention along the grid (figure 2).  [N, C, H, W] -> [N, C', H / stride, W / stride] */
class Block extends Module {
  conv;
  attnBlock;
  attnGrid;
  constructor(inputs: number, dim: number, stride: number, heads: number, window: readonly number[], rate: number) {
    super();
    const attention = (kind: keyof typeof plans): AttentionBlock =>
      new AttentionBlock(dim, new Attention(dim, heads, window, kind), rate);
    this.conv = new MBConv(inputs, dim, stride, rate);
    this.attnBlock = attention("block");
    this.attnGrid = attention("grid");
  }
  forward(x: Tensor): Tensor {
    const map = this.conv.forward(x);
    const [height, width] = map.shape.slice(2).map((s) => known(s));
    const tokens = map.reshape([map.shape[0], map.shape[1], height * width]).mT; // [N, L, C]
    const near = this.attnBlock.forward(tokens, [height, width]);
    return this.attnGrid.forward(near, [height, width]).mT.reshape(map.shape);
  }
}

/** Blocks at one resolution, the first of which halves it.  [N, C, H, W] -> [N, C', H / 2, W / 2] */
class Stage extends Module {
  blocks;
  constructor(inputs: number, dim: number, heads: number, window: readonly number[], rates: readonly number[]) {
    super();
    this.blocks = rates.map((rate, i) => new Block(i === 0 ? inputs : dim, dim, i === 0 ? 2 : 1, heads, window, rate));
  }
  forward(x: Tensor): Tensor {
    return this.blocks.reduce((y, block) => block.forward(y), x);
  }
}

export class MaxViT extends Module implements Backbone {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim: number;
  readonly headName = "head.fc";
  readonly #stem;
  readonly #stages: readonly Stage[];
  readonly #norm;
  readonly #preLogits;
  constructor({ stem, dims, depths, headDim, ratio }: MaxViTConfig, options: BackboneOptions = {}) {
    super();
    const { imageSize = 224, inChannels = 3, dropPath = 0 } = options;
    const rates = stageRates(depths, dropPath);
    const window = sides(imageSize).map((s) => Math.max(1, Math.floor(s / ratio)));
    this.channels = dims;
    this.strides = dims.map((_, i) => 4 * 2 ** i);
    this.dim = dims[dims.length - 1];
    this.#stem = new Stem(inChannels, stem);
    this.#stages = dims.map((dim, i) => new Stage(dims[i - 1] ?? stem, dim, dim / headDim, window, rates[i]));
    this.#norm = new LayerNorm(this.dim);
    this.#preLogits = new Linear(this.dim, this.dim);
  }
  override *parts(): Iterable<[string, Module]> {
    yield ["stem", this.#stem];
    for (const [i, stage] of this.#stages.entries()) yield [`stages.${i}`, stage];
    yield ["head.norm", this.#norm];
    yield ["head.pre_logits.fc", this.#preLogits];
  }
  forward(image: Tensor): Tensor[] {
    return throughStages(this.#stages, this.#stem.forward(image)); // [N, C, H / 2, W / 2]
  }
  embed(image: Tensor): Tensor {
    const maps = this.forward(image);
    return tanh(this.#preLogits.forward(this.#norm.forward(maps[maps.length - 1].mean([2, 3], false))));
  }
}

export const paper = "Tu et al., MaxViT (2022), https://arxiv.org/abs/2204.01697";

const common = { headDim: 32, ratio: 32 };
const pyramid = (dim: number): number[] => [dim, 2 * dim, 4 * dim, 8 * dim];
const sizes = {
  tiny: { ...common, stem: 64, dims: pyramid(64), depths: [2, 2, 5, 2] },
  small: { ...common, stem: 64, dims: pyramid(96), depths: [2, 2, 5, 2] },
  base: { ...common, stem: 64, dims: pyramid(96), depths: [2, 6, 14, 2] },
  large: { ...common, stem: 128, dims: pyramid(128), depths: [2, 6, 14, 2] },
  xlarge: { ...common, stem: 192, dims: pyramid(192), depths: [2, 6, 14, 2] },
};

const half = [0.5, 0.5, 0.5] as const;
const centred = { mean: half, std: half };
const at224 = { cropPct: 0.95 };
const at384 = { imageSize: 384, cropPct: 1, ...centred };
const at512 = { imageSize: 512, cropPct: 1, ...centred };

/** Table 1, for images of three sizes. */
export const variants: Record<string, Variant<MaxViTConfig>> = {
  maxvit_tiny_tf_224: { config: sizes.tiny, preprocessing: at224 },
  maxvit_tiny_tf_384: { config: sizes.tiny, preprocessing: at384 },
  maxvit_tiny_tf_512: { config: sizes.tiny, preprocessing: at512 },
  maxvit_small_tf_224: { config: sizes.small, preprocessing: at224 },
  maxvit_small_tf_384: { config: sizes.small, preprocessing: at384 },
  maxvit_small_tf_512: { config: sizes.small, preprocessing: at512 },
  maxvit_base_tf_224: { config: sizes.base, preprocessing: at224 },
  maxvit_base_tf_384: { config: sizes.base, preprocessing: at384 },
  maxvit_base_tf_512: { config: sizes.base, preprocessing: at512 },
  maxvit_large_tf_224: { config: sizes.large, preprocessing: at224 },
  maxvit_large_tf_384: { config: sizes.large, preprocessing: at384 },
  maxvit_large_tf_512: { config: sizes.large, preprocessing: at512 },
  maxvit_xlarge_tf_224: { config: sizes.xlarge, preprocessing: { ...at224, ...centred } },
  maxvit_xlarge_tf_384: { config: sizes.xlarge, preprocessing: at384 },
  maxvit_xlarge_tf_512: { config: sizes.xlarge, preprocessing: at512 },
  maxvit_micro_32: {
    config: { stem: 32, dims: [32, 64, 128], depths: [1, 2, 1], headDim: 32, ratio: 16 },
    init: normalFanIn,
    preprocessing: { imageSize: 32, cropPct: 1 },
  },
};

export const create = (config: MaxViTConfig, options: BackboneOptions): MaxViT => new MaxViT(config, options);
