/**
 * CvT: a transformer in three stages whose tokens come from convolutions, and whose queries, keys and values do too.
 * Wu et al., "CvT: Introducing Convolutions to Vision Transformers" (ICCV 2021), https://arxiv.org/abs/2103.15808.
 * Parameter paths are those of the official repository.
 */
import { known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { attend } from "../nn/attention.ts";
import { normal, normalFanIn } from "../nn/init.ts";
import { BatchNorm2d, Conv2d, DropPath, LayerNorm, Linear, Mlp } from "../nn/layers.ts";
import { Module } from "../nn/module.ts";
import { sigmoid } from "../ops/elementwise.ts";
import { linear } from "../ops/linalg.ts";
import { concat, expandBatch } from "../ops/move.ts";
import { type Backbone, type BackboneOptions, dropPathRates, type Variant } from "./backbone.ts";

export interface CvTConfig {
  dims: readonly number[];
  depths: readonly number[];
  heads: readonly number[];
  /** The first embedding; 7 × 7 with stride 4 by default. */
  stem?: Embedding;
}

interface Embedding {
  kernel: number;
  stride: number;
  padding: number;
}

/** What the official code calls QuickGELU. */
const quickGelu = (x: Tensor): Tensor => x.mul(sigmoid(x.mul(1.702)));

/** A depthwise convolution and batch norm: what makes queries, keys or values of their neighbours.  [N, C, H, W] -> [N, L, C] */
class ConvProjection extends Module {
  conv;
  bn;
  constructor(dim: number, stride: number) {
    super();
    this.conv = new Conv2d(dim, dim, { kernel: 3, stride, padding: 1, groups: dim, bias: false });
    this.bn = new BatchNorm2d(dim);
  }
  forward(map: Tensor): Tensor {
    const y = this.bn.forward(this.conv.forward(map));
    return y.reshape([y.shape[0], y.shape[1], known(y.shape[2]) * known(y.shape[3])]).mT;
  }
}

/**
 * Attention over convolved tokens, a quarter as many keys and values as queries (section 3.2).  A class token stands in front and is not
 * convolved.  [N, (1 +) L, C] -> [N, (1 +) L, C]
 */
class Attention extends Module {
  convProjQ;
  convProjK;
  convProjV;
  projQ;
  projK;
  projV;
  proj;
  readonly #heads;
  constructor(dim: number, heads: number) {
    super();
    this.#heads = heads;
    this.convProjQ = new ConvProjection(dim, 1);
    this.convProjK = new ConvProjection(dim, 2);
    this.convProjV = new ConvProjection(dim, 2);
    this.projQ = new Linear(dim, dim);
    this.projK = new Linear(dim, dim);
    this.projV = new Linear(dim, dim);
    this.proj = new Linear(dim, dim);
  }
  forward(x: Tensor, [height, width]: readonly number[]): Tensor {
    const [batch, tokens, dim] = [x.shape[0], known(x.shape[1]), known(x.shape[2])];
    const classes = tokens - height * width; // 1 or 0
    const map = x.slice(1, classes, tokens).mT.reshape([batch, dim, height, width]);
    const convolved = (layer: ConvProjection): Tensor => {
      const y = layer.forward(map); // [N, L or L/4, C]
      return classes > 0 ? concat([x.slice(1, 0, classes), y], 1) : y;
    };
    // The scale is that of the whole width, not of a head's, as in the official code; given to weights, it costs nothing.
    const scaled = (w: Tensor): Tensor => w.mul(dim ** -0.5);
    const q = linear(convolved(this.convProjQ), scaled(this.projQ.weight), scaled(this.projQ.bias as Tensor));
    const k = this.projK.forward(convolved(this.convProjK));
    const v = this.projV.forward(convolved(this.convProjV)); // [N, (1 +) L/4, C]
    return this.proj.forward(attend(q, k, v, this.#heads));
  }
}

/** Attention, then an MLP (figure 2 b).  [N, (1 +) L, C] -> [N, (1 +) L, C] */
class Block extends Module {
  norm1;
  attn;
  norm2;
  mlp;
  dropPath;
  constructor(dim: number, heads: number, rate: number) {
    super();
    this.norm1 = new LayerNorm(dim);
    this.attn = new Attention(dim, heads);
    this.norm2 = new LayerNorm(dim);
    this.mlp = new Mlp(dim, 4 * dim, { activate: quickGelu });
    this.dropPath = new DropPath(rate);
  }
  forward(x: Tensor, size: readonly number[]): Tensor {
    const y = x.add(this.dropPath.forward(this.attn.forward(this.norm1.forward(x), size)));
    return y.add(this.dropPath.forward(this.mlp.forward(this.norm2.forward(y))));
  }
}

/** Overlapping patches to vectors (section 3.1).  [N, C, H, W] -> [N, H', W', C'] */
class ConvEmbed extends Module {
  proj;
  norm;
  constructor(inputs: number, dim: number, embedding: Embedding) {
    super();
    this.proj = new Conv2d(inputs, dim, embedding);
    this.norm = new LayerNorm(dim);
  }
  forward(x: Tensor): Tensor {
    return this.norm.forward(this.proj.forward(x).permute(0, 2, 3, 1));
  }
}

/** Tokens of one resolution, in the last stage with one for the whole image. */
class Stage extends Module {
  patchEmbed;
  clsToken;
  blocks;
  constructor(
    inputs: number,
    dim: number,
    heads: number,
    embedding: Embedding,
    last: boolean,
    rates: readonly number[],
  ) {
    super();
    this.patchEmbed = new ConvEmbed(inputs, dim, embedding);
    this.clsToken = last ? this.param([1, 1, dim], normal()) : undefined;
    this.blocks = rates.map((rate) => new Block(dim, heads, rate));
  }
  /** The map [N, C', H', W'], and the class token [N, 1, C'] of the last stage. */
  forward(x: Tensor): { map: Tensor; token: Tensor } {
    const patches = this.patchEmbed.forward(x);
    const [batch, height, width, dim] = [patches.shape[0], ...patches.shape.slice(1).map((d) => known(d))];
    const sequence = patches.reshape([batch, height * width, dim]);
    const start = this.clsToken ? concat([expandBatch(this.clsToken, x), sequence], 1) : sequence;
    const tokens = this.blocks.reduce((y, block) => block.forward(y, [height, width]), start);
    const first = known(tokens.shape[1]) - height * width;
    const map = tokens.slice(1, first, known(tokens.shape[1])).mT.reshape([batch, dim, height, width]);
    return { map, token: tokens.slice(1, 0, 1) };
  }
}

export class CvT extends Module implements Backbone {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim: number;
  readonly headName = "head";
  readonly #stages: readonly Stage[];
  readonly #norm;
  constructor(
    { dims, depths, heads, stem = { kernel: 7, stride: 4, padding: 2 } }: CvTConfig,
    options: BackboneOptions = {},
  ) {
    super();
    const { inChannels = 3, dropPath = 0 } = options;
    const last = dims.length - 1;
    this.channels = dims;
    this.strides = dims.map((_, i) => stem.stride * 2 ** i);
    this.dim = dims[last];
    this.#stages = depths.map((depth, i) => {
      const embedding = i === 0 ? stem : { kernel: 3, stride: 2, padding: 1 };
      const rates = dropPathRates(depth, i === last ? dropPath : 0); // only the last stage drops paths
      return new Stage(i === 0 ? inChannels : dims[i - 1], dims[i], heads[i], embedding, i === last, rates);
    });
    this.#norm = new LayerNorm(this.dim);
  }
  override *parts(): Iterable<[string, Module]> {
    for (const [i, stage] of this.#stages.entries()) yield [`stage${i}`, stage];
    yield ["norm", this.#norm];
  }
  #run(image: Tensor): ReturnType<Stage["forward"]>[] {
    let x = image;
    return this.#stages.map((stage) => {
      const made = stage.forward(x);
      x = made.map;
      return made;
    });
  }
  forward(image: Tensor): Tensor[] {
    return this.#run(image).map(({ map }) => map);
  }
  embed(image: Tensor): Tensor {
    const stages = this.#run(image);
    return this.#norm.forward(stages[stages.length - 1].token).squeeze(1);
  }
}

export const paper =
  "Wu et al., CvT: Introducing Convolutions to Vision Transformers (2021), https://arxiv.org/abs/2103.15808";

const of13 = { dims: [64, 192, 384], depths: [1, 2, 10], heads: [1, 3, 6] };
const of21 = { ...of13, depths: [1, 4, 16] };
const wide = { dims: [192, 768, 1024], depths: [2, 2, 20], heads: [3, 12, 16] };
const at384 = { imageSize: 384, cropPct: 1 };

/** Table 2. */
export const variants: Record<string, Variant<CvTConfig>> = {
  cvt_13_224: { config: of13 },
  cvt_13_384: { config: of13, preprocessing: at384 },
  cvt_21_224: { config: of21 },
  cvt_21_384: { config: of21, preprocessing: at384 },
  cvt_w24_384: { config: wide, preprocessing: at384 },
  cvt_micro_32: {
    config: { dims: [32, 64, 128], depths: [1, 1, 2], heads: [1, 2, 4], stem: { kernel: 3, stride: 2, padding: 1 } },
    init: normalFanIn,
    preprocessing: { imageSize: 32, cropPct: 1 },
  },
};

export const create = (config: CvTConfig, options: BackboneOptions): CvT => new CvT(config, options);
