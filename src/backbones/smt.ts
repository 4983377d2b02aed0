/**
 * SMT: early stages modulate values by convolutions of several sizes, the last one attends, the third takes turns.
 * Lin et al., "Scale-Aware Modulation Meet Transformer" (ICCV 2023), https://arxiv.org/abs/2307.08579.
 * Parameter paths are those of the official repository.
 */
import { known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { attend, cutLinear } from "../nn/attention.ts";
import { ConvMlp } from "../nn/conv-mlp.ts";
import { fixed, heNormalFor } from "../nn/init.ts";
import { BatchNorm2d, Conv2d, DropPath, LayerNorm, Linear } from "../nn/layers.ts";
import { channelsFirst, channelsLast } from "../nn/layout.ts";
import { Module } from "../nn/module.ts";
import { gelu, relu } from "../ops/elementwise.ts";
import { linear } from "../ops/linalg.ts";
import { concat, split } from "../ops/move.ts";
import { type Backbone, type BackboneOptions, stageRates, type Variant } from "./backbone.ts";

export interface SmtConfig {
  dims: readonly number[];
  depths: readonly number[];
  /** Width of the MLPs over that of the stage. */
  ratios: readonly number[];
  /** Side of the first kernel. */
  stem: 3 | 7;
  layerScale?: boolean;
}

const eps = 1e-6;

/** A convolution that keeps the size at stride 1, drawn as the official repositories draw theirs. */
export const convolution = (
  inputs: number,
  outputs: number,
  kernel: number,
  { stride = 1, groups = 1, padding = Math.floor(kernel / 2), bias = true } = {},
): Conv2d => new Conv2d(inputs, outputs, { kernel, stride, padding, groups, bias, init: heNormalFor(groups) });

/** Scale-aware modulation (section 3.1): heads see kernels of 3, 5, 7 and 9 pixels, then mix.  [N, H, W, C] -> [N, H, W, C] */
class Modulation extends Module {
  proj;
  v;
  s;
  localConv_1;
  localConv_2;
  localConv_3;
  localConv_4;
  proj0;
  bn;
  proj1;
  constructor(dim: number) {
    super();
    const each = dim / 4;
    const local = (kernel: number) => convolution(each, each, kernel, { groups: each });
    this.proj = new Linear(dim, dim);
    this.v = new Linear(dim, dim);
    this.s = new Linear(dim, dim);
    this.localConv_1 = local(3);
    this.localConv_2 = local(5);
    this.localConv_3 = local(7);
    this.localConv_4 = local(9);
    this.proj0 = convolution(dim, 2 * dim, 1, { groups: each });
    this.bn = new BatchNorm2d(2 * dim);
    this.proj1 = convolution(2 * dim, dim, 1);
  }
  forward(x: Tensor): Tensor {
    const convs = [this.localConv_1, this.localConv_2, this.localConv_3, this.localConv_4];
    const heads = split(channelsFirst(this.s.forward(x)), 1, 4).map((head, i) => convs[i].forward(head)); // four of [N, C / 4, H, W]
    const [batch, each, height, width] = heads[0].shape;
    // Scale-aware aggregation: the same channel of all heads makes a group (equation 3).
    const groups = concat(
      heads.map((head) => head.unsqueeze(2)),
      2,
    ).reshape([batch, 4 * known(each), height, width]);
    const modulator = this.proj1.forward(gelu(this.bn.forward(this.proj0.forward(groups))));
    return this.proj.forward(channelsLast(modulator).mul(this.v.forward(x)));
  }
}

/** Each place attends to all; a depthwise convolution of the values is added.  [N, H, W, C] -> [N, H, W, C] */
class Attention extends Module {
  proj;
  q;
  kv;
  localConv;
  readonly #heads;
  constructor(dim: number, heads: number) {
    super();
    this.#heads = heads;
    this.proj = new Linear(dim, dim);
    this.q = new Linear(dim, dim);
    this.kv = new Linear(dim, 2 * dim);
    this.localConv = convolution(dim, dim, 3, { groups: dim });
  }
  forward(x: Tensor): Tensor {
    const [batch, dim] = [x.shape[0], known(x.shape[3])];
    const scale = (dim / this.#heads) ** -0.5;
    const q = linear(x, this.q.weight.mul(scale), this.q.bias?.mul(scale));
    const [k, v] = cutLinear(this.kv, x, 2);
    const [qs, ks, vs] = [q, k, v].map((t) => t.reshape([batch, -1, dim])); // [N, L, C]
    const mixed = attend(qs, ks, vs, this.#heads).reshape(x.shape);
    return this.proj.forward(mixed.add(channelsLast(this.localConv.forward(channelsFirst(v)))));
  }
}

/** Modulation or attention, then an MLP.  [N, H, W, C] -> [N, H, W, C] */
class Block extends Module {
  gamma_1;
  gamma_2;
  norm1;
  attn;
  norm2;
  mlp;
  dropPath;
  constructor(dim: number, heads: number, attends: boolean, ratio: number, layerScale: boolean, rate: number) {
    super();
    this.gamma_1 = layerScale ? this.param([dim], fixed(1e-4)) : undefined;
    this.gamma_2 = layerScale ? this.param([dim], fixed(1e-4)) : undefined;
    this.norm1 = new LayerNorm(dim, { eps });
    this.attn = attends ? new Attention(dim, heads) : new Modulation(dim);
    this.norm2 = new LayerNorm(dim, { eps });
    this.mlp = new ConvMlp(dim, ratio * dim, { residual: true });
    this.dropPath = new DropPath(rate);
  }
  forward(x: Tensor): Tensor {
    const mixed = this.attn.forward(this.norm1.forward(x));
    const y = x.add(this.dropPath.forward(this.gamma_1 ? mixed.mul(this.gamma_1) : mixed));
    return y.add(this.dropPath.forward(this.mlp.forward(this.norm2.forward(y), this.gamma_2)));
  }
}

/** Two convolutions that leave a quarter of each side.  [N, 3, H, W] -> [N, H / 4, W / 4, C] */
class Stem extends Module {
  readonly #conv;
  readonly #bn;
  readonly #down;
  readonly #norm;
  constructor(inChannels: number, dim: number, kernel: number) {
    super();
    this.#conv = convolution(inChannels, dim, kernel, { stride: 2, bias: false });
    this.#bn = new BatchNorm2d(dim);
    this.#down = convolution(dim, dim, 2, { stride: 2, padding: 0 });
    this.#norm = new LayerNorm(dim);
  }
  override *parts(): Iterable<[string, Module]> {
    yield ["conv.0", this.#conv];
    yield ["conv.1", this.#bn];
    yield ["conv.3", this.#down];
    yield ["norm", this.#norm];
  }
  forward(image: Tensor): Tensor {
    const x = relu(this.#bn.forward(this.#conv.forward(image)));
    return this.#norm.forward(channelsLast(this.#down.forward(x)));
  }
}

/** An overlapping convolution halves the map.  [N, H, W, C] -> [N, H / 2, W / 2, C'] */
export class Downsample extends Module {
  proj;
  norm;
  constructor(from: number, to: number) {
    super();
    this.proj = convolution(from, to, 3, { stride: 2 });
    this.norm = new LayerNorm(to);
  }
  forward(x: Tensor): Tensor {
    return this.norm.forward(channelsLast(this.proj.forward(channelsFirst(x))));
  }
}

export class Smt extends Module implements Backbone {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim: number;
  readonly headName = "head";
  readonly #embeddings: readonly (Stem | Downsample)[];
  readonly #blocks: readonly (readonly Block[])[];
  readonly #norms: readonly LayerNorm[];
  constructor({ dims, depths, ratios, stem, layerScale = false }: SmtConfig, options: BackboneOptions = {}) {
    super();
    const { inChannels = 3, dropPath = 0 } = options;
    const rates = stageRates(depths, dropPath);
    const last = dims.length - 1;
    this.channels = dims;
    this.strides = dims.map((_, i) => 4 * 2 ** i);
    this.dim = dims[last];
    this.#embeddings = dims.map((dim, i) =>
      i === 0 ? new Stem(inChannels, dim, stem) : new Downsample(dims[i - 1], dim),
    );
    // Evolutionary hybrid network (section 3.2): in the stage before the last every second block attends.  Its heads, and those of the
    // last stage, are 8 and 16 in all of the repository's configurations.
    this.#blocks = depths.map((_, i) =>
      rates[i].map((rate, j) => {
        const attends = i === last || (i === last - 1 && j % 2 === 1);
        return new Block(dims[i], i === last ? 16 : 8, attends, ratios[i], layerScale, rate);
      }),
    );
    this.#norms = dims.map((dim) => new LayerNorm(dim, { eps }));
  }
  override *parts(): Iterable<[string, Module]> {
    for (const [i, blocks] of this.#blocks.entries()) {
      yield [`patch_embed${i + 1}`, this.#embeddings[i]];
      for (const [j, block] of blocks.entries()) yield [`block${i + 1}.${j}`, block];
      yield [`norm${i + 1}`, this.#norms[i]];
    }
  }
  #maps(image: Tensor): Tensor[] {
    let x = image;
    return this.#blocks.map((blocks, i) => {
      const start = this.#embeddings[i].forward(x);
      x = this.#norms[i].forward(blocks.reduce((y, block) => block.forward(y), start));
      return x;
    });
  }
  forward(image: Tensor): Tensor[] {
    return this.#maps(image).map(channelsFirst);
  }
  embed(image: Tensor): Tensor {
    const maps = this.#maps(image);
    return maps[maps.length - 1].mean([1, 2]);
  }
}

export const paper = "Lin et al., Scale-Aware Modulation Meet Transformer (2023), https://arxiv.org/abs/2307.08579";

const dims = [64, 128, 256, 512];
const narrow = { dims, ratios: [4, 4, 4, 2], stem: 3 } as const;
const wide = { ratios: [8, 6, 4, 2], stem: 7 } as const;
const large = { ...wide, dims: [96, 192, 384, 768], depths: [4, 6, 28, 4], layerScale: true };

/** Table 1; the large model has layer scale as in the repository's configurations.  The repository's names are the aliases. */
export const variants: Record<string, Variant<SmtConfig>> = {
  smt_tiny_224: { config: { ...narrow, depths: [2, 2, 8, 1] }, aliases: ["smt_t"] },
  smt_small_224: { config: { ...narrow, depths: [3, 4, 18, 2] }, aliases: ["smt_s"] },
  smt_base_224: { config: { ...wide, dims, depths: [4, 6, 28, 2] }, aliases: ["smt_b"] },
  smt_large_224: { config: large, aliases: ["smt_l"] },
  smt_large_384: { config: large, preprocessing: { imageSize: 384, cropPct: 1 } },
};

export const create = (config: SmtConfig, options: BackboneOptions): Smt => new Smt(config, options);
