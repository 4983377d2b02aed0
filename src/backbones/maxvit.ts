/**
 * MaxViT: each block is a convolution, attention inside windows, then attention along a grid that spans the map.
 * Tu et al., "MaxViT: Multi-Axis Vision Transformer" (ECCV 2022), https://arxiv.org/abs/2204.01697.  Parameter paths are timm's.
 */
import { known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { offsetBiases } from "../nn/adapt.ts";
import { projections, queriesFirst } from "../nn/attention.ts";
import { heNormalFor, type Initializer, normal, normalFanIn, uniformFanIn, xavierUniform } from "../nn/init.ts";
import {
  BatchNorm2d,
  Conv2d,
  type Conv2dOptions,
  DropPath,
  Identity,
  LayerNorm,
  LayerScale,
  Linear,
  Mlp,
} from "../nn/layers.ts";
import { LayerNorm2d, normChannels } from "../nn/layout.ts";
import { initializeMatrices, Module } from "../nn/module.ts";
import { Sequential } from "../nn/sequential.ts";
import { SqueezeExcite } from "../nn/squeeze-excite.ts";
import {
  acrossWindows,
  fromWindows,
  offsetTable,
  planGrid,
  planWindows,
  relativeBias,
  toWindows,
} from "../nn/window.ts";
import { gelu, geluTanh, relu, silu, tanh } from "../ops/elementwise.ts";
import { concat } from "../ops/move.ts";
import { softmax } from "../ops/norm.ts";
import { averagePool } from "../ops/pool.ts";
import { type Backbone, type BackboneOptions, sides, stageRates, throughStages, type Variant } from "./backbone.ts";

export interface MaxViTConfig {
  /** Channels after each of the two convolutions of the stem. */
  stem: readonly [number, number];
  dims: readonly number[];
  depths: readonly number[];
  /** Pixels of the image for each place of a window's side: windows and grids grow with the image. */
  ratio?: number;
  /** A reading of the paper: its authors' code for TensorFlow, timm's from before that, or timm's with the blocks of ConvNeXt. */
  style: "tf" | "rw" | "next";
  /** Whether the bias of an offset between tokens is looked up, or made by an MLP as Swin V2 does. */
  offsets?: "table" | "mlp";
  /** What the factors of attention and MLP begin with; none where it is not given. */
  layerScale?: number;
  /** Attention in windows and along the grid: one after the other, side by side with half of the channels each, or the grid alone. */
  attend?: "in turn" | "side by side" | "grid";
  /** How all layers of the stem and the stages begin, where it is not as EfficientNet's convolutions and ViT's matrices do. */
  init?: Initializer;
  /** The same of the classifier: as PyTorch has it by default. */
  headInit?: Initializer;
  /** Whether one more layer comes before the classifier. */
  preLogits?: boolean;
}

/** The details in which the readings of the paper part. */
interface Style {
  block: "mbconv" | "convnext";
  /** Between convolutions. */
  activate: (x: Tensor) => Tensor;
  /** Inside the MLPs. */
  mlpActivate: (x: Tensor) => Tensor;
  /** "same" pads as TensorFlow does. */
  padding: 1 | "same";
  /** ε of batch norms, and of layer norms. */
  eps: readonly [batch: number, layer: number];
  /** Whether the convolutions of the stem, and those that end a branch, have a bias. */
  bias: { stem: boolean; last: boolean };
  /** Channels inside a convolution block, and between the two layers of its gate. */
  inner(inputs: number, outputs: number): number;
  squeezed(inner: number, outputs: number): number;
  /** Whether query, key and value of a head lie together among the channels, or all queries first. */
  headFirst: boolean;
}

/** As the authors' own code for TensorFlow has it. */
const tf: Style = {
  block: "mbconv",
  activate: geluTanh,
  mlpActivate: geluTanh,
  padding: "same",
  eps: [1e-3, 1e-5],
  bias: { stem: true, last: true },
  inner: (_, outputs) => 4 * outputs,
  squeezed: (_, outputs) => outputs / 4,
  headFirst: false,
};

/** As timm read the paper before that code was there: the models of whose name "rw" is a part. */
const rw: Style = {
  block: "mbconv",
  activate: silu,
  mlpActivate: gelu,
  padding: 1,
  eps: [1e-5, 1e-6],
  bias: { stem: false, last: false },
  inner: (inputs) => 4 * inputs,
  squeezed: (inner) => Math.floor(inner / 16),
  headFirst: true,
};

/** timm's MaxxViT, with blocks of ConvNeXt for convolutions. */
const next: Style = { ...rw, block: "convnext", activate: gelu, bias: { stem: false, last: true } };

const styles: Readonly<Record<MaxViTConfig["style"], Style>> = { tf, rw, next };

/** As EfficientNet starts. */
const convolution = (inputs: number, outputs: number, options: Conv2dOptions): Conv2d =>
  new Conv2d(inputs, outputs, { init: heNormalFor(options.groups ?? 1), ...options });

/** The norm of a style's convolutions. */
const mapNorm = (channels: number, { block, eps }: Style): BatchNorm2d | LayerNorm2d =>
  block === "mbconv" ? new BatchNorm2d(channels, { eps: eps[0] }) : new LayerNorm2d(channels, { eps: eps[1] });

/** Two 3 × 3 convolutions.  [N, 3, H, W] -> [N, C, H / 2, W / 2] */
class Stem extends Module {
  conv1;
  norm1;
  conv2;
  readonly #activate;
  constructor(inChannels: number, [first, second]: MaxViTConfig["stem"], style: Style) {
    super();
    const options = { kernel: 3, padding: style.padding, bias: style.bias.stem } as const;
    this.#activate = style.activate;
    this.conv1 = convolution(inChannels, first, { ...options, stride: 2 });
    this.norm1 = mapNorm(first, style);
    this.conv2 = convolution(first, second, options);
  }
  forward(image: Tensor): Tensor {
    return this.conv2.forward(this.#activate(this.norm1.forward(this.conv1.forward(image))));
  }
}

/** Means over 2 × 2 places, then other channels where they change.  [N, C, H, W] -> [N, C', H / 2, W / 2] */
class Shortcut extends Module {
  expand;
  constructor(inputs: number, outputs: number, bias: boolean) {
    super();
    this.expand = inputs === outputs ? undefined : convolution(inputs, outputs, { kernel: 1, bias });
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
  readonly #activate;
  constructor(inputs: number, outputs: number, stride: number, style: Style, rate: number) {
    super();
    const { padding, activate } = style;
    const inner = style.inner(inputs, outputs);
    this.shortcut = stride > 1 ? new Shortcut(inputs, outputs, style.bias.last) : undefined;
    this.preNorm = mapNorm(inputs, style);
    this.#expand = convolution(inputs, inner, { kernel: 1, bias: false });
    this.norm1 = mapNorm(inner, style);
    this.#depthwise = convolution(inner, inner, { kernel: 3, padding, stride, groups: inner, bias: false });
    this.norm2 = mapNorm(inner, style);
    this.se = new SqueezeExcite(inner, style.squeezed(inner, outputs), { activate: silu });
    this.#project = convolution(inner, outputs, { kernel: 1, bias: style.bias.last });
    this.dropPath = new DropPath(rate);
    this.#activate = activate;
  }
  override *parts(): Iterable<[string, Module | Tensor]> {
    yield* super.parts();
    yield ["conv1_1x1", this.#expand];
    yield ["conv2_kxk", this.#depthwise];
    yield ["conv3_1x1", this.#project];
  }
  forward(x: Tensor): Tensor {
    const wide = this.#activate(this.norm1.forward(this.#expand.forward(this.preNorm.forward(x)))); // [N, inner, H, W]
    const mixed = this.#activate(this.norm2.forward(this.#depthwise.forward(wide))); // [N, inner, H / stride, W / stride]
    const y = this.#project.forward(this.se.forward(mixed));
    return this.dropPath.forward(y).add(this.shortcut ? this.shortcut.forward(x) : x);
  }
}

/** Two layers at every place.  [N, C, H, W] -> [N, C, H, W] */
class MapMlp extends Module {
  fc1;
  fc2;
  constructor(dim: number) {
    super();
    this.fc1 = convolution(dim, 4 * dim, { kernel: 1 });
    this.fc2 = convolution(4 * dim, dim, { kernel: 1 });
  }
  forward(x: Tensor): Tensor {
    return this.fc2.forward(gelu(this.fc1.forward(x)));
  }
}

/** The block of ConvNeXt, whose wide depthwise convolution may halve the map.  [N, C, H, W] -> [N, C', H / stride, W / stride] */
class ConvNeXtBlock extends Module {
  shortcut;
  convDw;
  norm;
  mlp;
  ls;
  dropPath;
  constructor(inputs: number, outputs: number, stride: number, style: Style, rate: number) {
    super();
    this.shortcut = stride > 1 ? new Shortcut(inputs, outputs, style.bias.last) : undefined;
    this.convDw = convolution(inputs, outputs, { kernel: 7, padding: 3, stride, groups: inputs });
    this.norm = mapNorm(outputs, style);
    this.mlp = new MapMlp(outputs);
    this.ls = new LayerScale(outputs, 1e-6, { axis: -3 });
    this.dropPath = new DropPath(rate);
  }
  forward(x: Tensor): Tensor {
    const y = this.ls.forward(this.mlp.forward(this.norm.forward(this.convDw.forward(x))));
    return this.dropPath.forward(y).add(this.shortcut ? this.shortcut.forward(x) : x);
  }
}

const convBlocks = { mbconv: MBConv, convnext: ConvNeXtBlock };

/** A learned bias for each offset between two tokens of a window: query minus key, and in TensorFlow key minus query. */
class OffsetTable extends Module {
  relativePositionBiasTable;
  readonly #window;
  readonly #tf;
  constructor(heads: number, window: readonly number[], style: Style) {
    super();
    this.#window = window;
    this.#tf = style === tf;
    const spans = window.map((w) => 2 * w - 1);
    const shape = this.#tf ? [heads, ...spans] : [spans[0] * spans[1], heads];
    this.relativePositionBiasTable = this.param(shape, normal(), offsetBiases(window));
  }
  /** -> [heads, tokens, tokens] */
  forward(): Tensor {
    const table = this.relativePositionBiasTable;
    if (!this.#tf) return relativeBias(table, this.#window);
    return relativeBias(table.reshape([table.shape[0], -1]).mT, this.#window).mT;
  }
}

/**
 * The same made by an MLP from sign(d) ln(1 + |d|) of every offset d, as in Swin V2, section 3.3: it fits every window.  timm drops an
 * eighth of the values between its layers while it trains; here all are kept.
 */
class OffsetMlp extends Module {
  mlp;
  readonly #window;
  constructor(heads: number, window: readonly number[]) {
    super();
    this.mlp = new OffsetLayers(heads);
    this.#window = window;
  }
  forward(): Tensor {
    const table = offsetTable(this.#window, (d) => Math.sign(d) * Math.log(1 + Math.abs(d)));
    return relativeBias(this.mlp.forward(table), this.#window);
  }
}

/** [L, 2] -> [L, heads] */
class OffsetLayers extends Module {
  fc1;
  fc2;
  constructor(heads: number) {
    super();
    this.fc1 = new Linear(2, 512);
    this.fc2 = new Linear(512, heads);
  }
  forward(offsets: Tensor): Tensor {
    return this.fc2.forward(relu(this.fc1.forward(offsets)));
  }
}

/** How the tokens that attend to each other are chosen: neighbours, or spread over the map (figure 3). */
const plans = { block: planWindows, grid: planGrid } as const;

/** What all attention of a model shares. */
interface AttentionConfig extends Pick<MaxViTConfig, "offsets" | "layerScale" | "attend"> {
  style: Style;
  window: readonly number[];
}

/** Attention among the tokens of each window (section 3.1).  [N, L, C] -> [N, L, C'] */
class Attention extends Module {
  qkv;
  relPos;
  proj;
  readonly #heads;
  readonly #window;
  readonly #headFirst;
  readonly #plan;
  constructor(dim: number, outputs: number, kind: keyof typeof plans, { style, offsets, window }: AttentionConfig) {
    super();
    const heads = dim / headDim;
    this.#heads = heads;
    this.#window = window;
    this.#headFirst = style.headFirst;
    this.#plan = plans[kind];
    this.qkv = new Linear(dim, 3 * dim);
    this.relPos = offsets === "mlp" ? new OffsetMlp(heads, window) : new OffsetTable(heads, window, style);
    this.proj = new Linear(dim, outputs);
  }
  forward(x: Tensor, size: readonly number[]): Tensor {
    const heads = this.#heads;
    const rows = this.#headFirst ? queriesFirst(this.qkv, heads) : this.qkv;
    const inside = (y: Tensor, plan: ReturnType<typeof planGrid>): Tensor => {
      const [q, k, v] = projections(rows, y, heads).map((t) => toWindows(t, plan, heads)); // [N · windows, heads, P², D]
      const mixed = softmax(q.matmul(k.mT).add(this.relPos.forward())).matmul(v);
      return fromWindows(mixed, plan, x.shape[0]);
    };
    return this.proj.forward(acrossWindows(x, size, this.#window, inside, this.#plan));
  }
}

/** Attention, then an MLP.  Several kinds of attention, by name, make their channels side by side.  [N, L, C] -> [N, L, C] */
class AttentionBlock extends Module {
  norm1;
  readonly #attentions: Readonly<Record<string, Attention>>;
  ls1;
  norm2;
  mlp;
  ls2;
  dropPath;
  constructor(dim: number, attentions: Readonly<Record<string, Attention>>, config: AttentionConfig, rate: number) {
    super();
    const { style, layerScale } = config;
    const norm = () => new LayerNorm(dim, { eps: style.eps[1] });
    const scale = () => (layerScale === undefined ? new Identity() : new LayerScale(dim, layerScale));
    this.norm1 = norm();
    this.#attentions = attentions;
    this.ls1 = scale();
    this.norm2 = norm();
    this.mlp = new Mlp(dim, 4 * dim, { activate: style.mlpActivate });
    this.ls2 = scale();
    this.dropPath = new DropPath(rate);
  }
  override *parts(): Iterable<[string, Module | Tensor]> {
    yield* super.parts();
    yield* Object.entries(this.#attentions);
  }
  forward(x: Tensor, size: readonly number[]): Tensor {
    const tokens = this.norm1.forward(x);
    const mixed = Object.values(this.#attentions).map((attention) => attention.forward(tokens, size));
    const y = x.add(this.dropPath.forward(this.ls1.forward(concat(mixed, 2))));
    return y.add(this.dropPath.forward(this.ls2.forward(this.mlp.forward(this.norm2.forward(y)))));
  }
}

/** Convolution, attention inside windows, attention along the grid (figure 2).  [N, C, H, W] -> [N, C', H / stride, W / stride] */
class Block extends Module {
  conv;
  readonly #attention: Readonly<Record<string, AttentionBlock>>;
  constructor(inputs: number, dim: number, stride: number, config: AttentionConfig, rate: number) {
    super();
    const { style, attend = "in turn" } = config;
    const ConvBlock = convBlocks[style.block];
    const first = new ConvBlock(inputs, dim, stride, style, rate);
    const block = (attentions: Record<string, Attention>) => new AttentionBlock(dim, attentions, config, rate);
    const attention = (kind: keyof typeof plans, outputs = dim) => new Attention(dim, outputs, kind, config);
    if (attend === "side by side") {
      this.conv = new Sequential(first, new ConvBlock(dim, dim, 1, style, rate));
      const halves = { attn_block: attention("block", dim / 2), attn_grid: attention("grid", dim / 2) };
      this.#attention = { attn: block(halves) };
    } else {
      this.conv = first;
      const grid = { attn_grid: block({ attn: attention("grid") }) };
      this.#attention = attend === "grid" ? grid : { attn_block: block({ attn: attention("block") }), ...grid };
    }
  }
  override *parts(): Iterable<[string, Module | Tensor]> {
    yield* super.parts();
    yield* Object.entries(this.#attention);
  }
  forward(x: Tensor): Tensor {
    const map = this.conv.forward(x);
    const size = map.shape.slice(2).map((s) => known(s));
    const tokens = map.reshape([map.shape[0], map.shape[1], size[0] * size[1]]).mT; // [N, L, C]
    const mixed = Object.values(this.#attention).reduce((y, attention) => attention.forward(y, size), tokens);
    return mixed.mT.reshape(map.shape);
  }
}

/** Blocks at one resolution, the first of which halves it.  [N, C, H, W] -> [N, C', H / 2, W / 2] */
class Stage extends Module {
  blocks;
  constructor(inputs: number, dim: number, config: AttentionConfig, rates: readonly number[]) {
    super();
    this.blocks = rates.map((rate, i) => new Block(i === 0 ? inputs : dim, dim, i === 0 ? 2 : 1, config, rate));
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
  readonly headInit: Initializer;
  readonly #stem;
  readonly #stages: readonly Stage[];
  readonly #norm;
  readonly #preLogits;
  constructor(
    { stem, dims, depths, ratio = 32, init, headInit = uniformFanIn, preLogits, ...config }: MaxViTConfig,
    options: BackboneOptions = {},
  ) {
    super();
    const style = styles[config.style];
    const { imageSize = 224, inChannels = 3, dropPath = 0 } = options;
    const rates = stageRates(depths, dropPath);
    const window = sides(imageSize).map((s) => Math.max(1, Math.floor(s / ratio)));
    this.channels = dims;
    this.strides = dims.map((_, i) => 4 * 2 ** i);
    this.dim = dims[dims.length - 1];
    this.#stem = new Stem(inChannels, stem, style);
    this.#stages = dims.map((dim, i) => new Stage(dims[i - 1] ?? stem[1], dim, { ...config, style, window }, rates[i]));
    this.#norm = new LayerNorm(this.dim, { eps: style.eps[1] });
    this.headInit = headInit;
    this.#preLogits = preLogits ? new Linear(this.dim, this.dim, { init: uniformFanIn }) : undefined;
    for (const stage of this.#stages) initializeMatrices(stage, init ?? xavierUniform);
    if (init) for (const part of [this.#stem, ...this.#stages]) initializeMatrices(part, init, 4);
  }
  override *parts(): Iterable<[string, Module]> {
    yield ["stem", this.#stem];
    for (const [i, stage] of this.#stages.entries()) yield [`stages.${i}`, stage];
    yield [this.#preLogits ? "head.norm" : "norm", this.#norm];
    if (this.#preLogits) yield ["head.pre_logits.fc", this.#preLogits];
  }
  forward(image: Tensor): Tensor[] {
    return throughStages(this.#stages, this.#stem.forward(image)); // [N, C, H / 2, W / 2]
  }
  /** The mean of the map is normalised, and goes through one more layer; without that layer the mean is taken of normalised places. */
  embed(image: Tensor): Tensor {
    const maps = this.forward(image);
    const last = maps[maps.length - 1];
    if (!this.#preLogits) return normChannels(this.#norm, last).mean([2, 3], false);
    return tanh(this.#preLogits.forward(this.#norm.forward(last.mean([2, 3], false))));
  }
}

export const paper = "Tu et al., MaxViT (2022), https://arxiv.org/abs/2204.01697";

/** Channels of an attention head. */
const headDim = 32;

const pyramid = (dim: number): number[] => [dim, 2 * dim, 4 * dim, 8 * dim];
const shallow = [2, 2, 5, 2];
const deep = [2, 6, 14, 2];

/** Table 1. */
const sizes = {
  tiny: { style: "tf", stem: [64, 64], dims: pyramid(64), depths: shallow, preLogits: true },
  small: { style: "tf", stem: [64, 64], dims: pyramid(96), depths: shallow, preLogits: true },
  base: { style: "tf", stem: [64, 64], dims: pyramid(96), depths: deep, preLogits: true },
  large: { style: "tf", stem: [128, 128], dims: pyramid(128), depths: deep, preLogits: true },
  xlarge: { style: "tf", stem: [192, 192], dims: pyramid(192), depths: deep, preLogits: true },
} satisfies Record<string, MaxViTConfig>;

/** timm's own. */
const rwSizes = {
  pico: { style: "rw", stem: [24, 32], dims: pyramid(32), depths: shallow },
  nano: { style: "rw", stem: [32, 64], dims: pyramid(64), depths: [1, 2, 3, 1] },
  tiny: { style: "rw", stem: [32, 64], dims: pyramid(64), depths: shallow },
  small: { style: "rw", stem: [32, 64], dims: pyramid(96), depths: shallow, layerScale: 1e-6 },
  base: { style: "rw", stem: [32, 64], dims: pyramid(96), depths: deep, preLogits: true },
} satisfies Record<string, MaxViTConfig>;

const nextStyle = { style: "next", layerScale: 1e-6 } as const;
const nextSizes = {
  nano: { ...nextStyle, stem: [32, 64], dims: pyramid(64), depths: [1, 2, 3, 1], offsets: "mlp" },
  tiny: { ...nextStyle, stem: [32, 64], dims: pyramid(64), depths: shallow, offsets: "mlp" },
  small: { ...nextStyle, stem: [48, 96], dims: pyramid(96), depths: shallow, offsets: "mlp" },
  nano2: { ...nextStyle, stem: [48, 96], dims: pyramid(96), depths: [1, 2, 3, 1], attend: "grid" },
  base2: { ...nextStyle, stem: [64, 128], dims: pyramid(128), depths: [2, 6, 12, 2], offsets: "mlp", attend: "grid" },
  large2: {
    ...{ ...nextStyle, stem: [80, 160], dims: pyramid(160), depths: [2, 6, 16, 2], offsets: "mlp", attend: "grid" },
    preLogits: true,
  },
} satisfies Record<string, MaxViTConfig>;

const mlp = <C extends MaxViTConfig>(config: C): C => ({ ...config, offsets: "mlp" });

const half = [0.5, 0.5, 0.5] as const;
const centred = { mean: half, std: half };
const at224 = { cropPct: 0.95 };
const squashed = { cropPct: 1, cropMode: "squash", ...centred } as const;
const at384 = { imageSize: 384, ...squashed };
const at512 = { imageSize: 512, ...squashed };
const rw224 = { ...at224, ...centred };
const rw256 = { ...rw224, imageSize: 256 };

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
  maxvit_pico_rw_256: { config: rwSizes.pico, preprocessing: rw256 },
  maxvit_nano_rw_256: { config: rwSizes.nano, preprocessing: rw256 },
  maxvit_tiny_rw_224: { config: rwSizes.tiny, preprocessing: rw224 },
  maxvit_tiny_rw_256: { config: rwSizes.tiny, preprocessing: rw256 },
  maxvit_tiny_pm_256: { config: { ...rwSizes.tiny, attend: "side by side" }, preprocessing: rw256 },
  maxvit_rmlp_pico_rw_256: { config: mlp(rwSizes.pico), preprocessing: rw256 },
  maxvit_rmlp_nano_rw_256: { config: mlp(rwSizes.nano), preprocessing: rw256 },
  maxvit_rmlp_tiny_rw_256: { config: mlp(rwSizes.tiny), preprocessing: rw256 },
  maxvit_rmlp_small_rw_224: { config: mlp(rwSizes.small), preprocessing: { ...rw224, cropPct: 0.9 } },
  maxvit_rmlp_small_rw_256: { config: mlp(rwSizes.small), preprocessing: rw256 },
  maxvit_rmlp_base_rw_224: { config: mlp(rwSizes.base), preprocessing: rw224 },
  maxvit_rmlp_base_rw_384: { config: mlp(rwSizes.base), preprocessing: at384 },
  maxxvit_rmlp_nano_rw_256: { config: { ...nextSizes.nano, init: normal() }, preprocessing: rw256 },
  maxxvit_rmlp_tiny_rw_256: { config: nextSizes.tiny, preprocessing: rw256 },
  maxxvit_rmlp_small_rw_256: { config: nextSizes.small, preprocessing: rw256 },
  maxxvitv2_nano_rw_256: { config: { ...nextSizes.nano2, init: normal() }, preprocessing: rw256 },
  maxxvitv2_rmlp_base_rw_224: { config: nextSizes.base2, preprocessing: rw224 },
  maxxvitv2_rmlp_base_rw_384: { config: nextSizes.base2, preprocessing: at384 },
  maxxvitv2_rmlp_large_rw_224: { config: nextSizes.large2, preprocessing: rw224 },
  maxvit_micro_32: {
    config: {
      style: "tf",
      stem: [32, 32],
      dims: [32, 64, 128],
      depths: [1, 2, 1],
      ratio: 16,
      preLogits: true,
      headInit: normal(),
    },
    init: normalFanIn,
    preprocessing: { imageSize: 32, cropPct: 1 },
  },
};

export const create = (config: MaxViTConfig, options: BackboneOptions): MaxViT => new MaxViT(config, options);
