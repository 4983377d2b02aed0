/**
 * VOLO: first a finer stage where each place works out from itself alone how to mix what is around it, then attention.
 * Yuan et al., "VOLO: Vision Outlooker for Visual Recognition" (TPAMI 2022), https://arxiv.org/abs/2106.13112, with a second classifier for
 * token labels: Jiang et al. (2021), https://arxiv.org/abs/2104.10858.  Parameter paths are timm's.
 */
import { UsageError } from "../base/errors.ts";
import { known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { positionMap } from "../nn/adapt.ts";
import { Attention, attend, cutLinear } from "../nn/attention.ts";
import { normal, normalFanIn } from "../nn/init.ts";
import { BatchNorm2d, Conv2d, DropPath, LayerNorm, Linear, Mlp } from "../nn/layers.ts";
import { channelsFirst, complete } from "../nn/layout.ts";
import { Module } from "../nn/module.ts";
import { relu } from "../ops/elementwise.ts";
import { linear } from "../ops/linalg.ts";
import { concat, expandBatch, split } from "../ops/move.ts";
import { softmax } from "../ops/norm.ts";
import { averagePool } from "../ops/pool.ts";
import { type BackboneOptions, dropPathRates, sides, type Variant } from "./backbone.ts";
import { type MixPatches, type TokenLabelled, type Tokens, tokenLogits } from "./token-labels.ts";

export interface VOLOConfig {
  /** Of the outlookers, then of the transformer. */
  dims: readonly [number, number];
  heads: readonly [number, number];
  outlookers: number;
  /** Blocks of the transformer, in the groups that checkpoints keep them in. */
  depths: readonly number[];
  /** Hidden width of MLPs over their width, 3 by default. */
  ratio?: number;
  /** Width of the first convolutions, 64 by default. */
  stem?: number;
  /** Side of the first patches, and the stride of the convolution that starts them: 8 and 2 by default. */
  patch?: number;
  stemStride?: number;
}

/** Windows are 3 × 3 and two pixels apart. */
const places = 9;

/**
 * Mixes each window by weights that a linear layer makes of its centre, without comparing anything, and adds up where windows overlap
 * (section 3.1, algorithm 1).  [N, H, W, C] -> [N, H, W, C]
 */
export class OutlookAttention extends Module {
  v;
  attn;
  proj;
  readonly #heads;
  constructor(dim: number, heads: number) {
    super();
    this.#heads = heads;
    this.v = new Linear(dim, dim, { bias: false });
    this.attn = new Linear(dim, places ** 2 * heads);
    this.proj = new Linear(dim, dim);
  }
  forward(x: Tensor): Tensor {
    const [height, width, dim] = x.shape.slice(1).map((d) => known(d));
    const [heads, each] = [this.#heads, dim / this.#heads];
    const windows = unfold(this.v.forward(x)); // nine of [N, h, w, C]
    const lead = windows[0].shape.slice(0, 3);
    const values = concat(
      windows.map((tap) => tap.reshape([...lead, heads, 1, each])),
      4,
    ); // [N, h, w, heads, 9, C / heads]

    const centres = averagePool(x.permute(0, 3, 1, 2), { kernel: 2, ceilMode: true }).permute(0, 2, 3, 1); // [N, h, w, C]
    const scaled = (w: Tensor): Tensor => w.mul(each ** -0.5);
    const scores = linear(centres, scaled(this.attn.weight), scaled(this.attn.bias as Tensor));
    const mixed = softmax(scores.reshape([...lead, heads, places, places])).matmul(values); // [N, h, w, heads, 9, C / heads]
    const taps = split(mixed, 4, places).map((tap) => tap.reshape([...lead, dim]));
    return this.proj.forward(fold(taps, height, width));
  }
}

/** The nine places of 3 × 3 windows two pixels apart, with zeros around the map.  [N, H, W, C] -> nine of [N, h, w, C] */
function unfold(x: Tensor): Tensor[] {
  const [batch, height, width, dim] = [x.shape[0], ...x.shape.slice(1).map((d) => known(d))];
  const [h, w] = [Math.ceil(height / 2), Math.ceil(width / 2)];
  // Window i begins at row 2i - 1: with a row in front, rows 2i and 2i + 1 are its first two and row 2i + 2 its last.
  const pairs = x
    .pad(1, 1, 2 * h + 1 - height)
    .pad(2, 1, 2 * w + 1 - width)
    .reshape([batch, h + 1, 2, w + 1, 2, dim]);
  const rows = (t: Tensor, axis: number, count: number): Tensor[] => {
    const [first, second] = split(t, axis + 1, 2);
    return [first.slice(axis, 0, count), second.slice(axis, 0, count), first.slice(axis, 1, count + 1)];
  };
  return rows(pairs, 1, h).flatMap((row) => rows(row, 3, w).map((tap) => tap.reshape([batch, h, w, dim])));
}

/** The adjoint of `unfold`: adds every window's places back to the map.  Nine of [N, h, w, C] -> [N, H, W, C] */
function fold(taps: readonly Tensor[], height: number, width: number): Tensor {
  const [batch, h, w, dim] = [taps[0].shape[0], ...taps[0].shape.slice(1).map((d) => known(d))];
  const join = ([first, second, last]: readonly Tensor[], axis: number): Tensor =>
    concat([first.pad(axis, 0, 1).add(last.pad(axis, 1, 0)), second.pad(axis, 0, 1)], axis + 1);
  const row = (i: number): Tensor => {
    const three = taps.slice(3 * i, 3 * i + 3).map((tap) => tap.reshape([batch, h, 1, w, 1, dim]));
    return join(three, 3); // [N, h, 1, w + 1, 2, C]
  };
  return join([row(0), row(1), row(2)], 1)
    .reshape([batch, 2 * h + 2, 2 * w + 2, dim])
    .slice(1, 1, height + 1)
    .slice(2, 1, width + 1);
}

/** Outlook attention (equations 1 and 2) or attention, then an MLP.  [N, ..., C] -> [N, ..., C] */
class Block extends Module {
  norm1;
  attn;
  norm2;
  mlp;
  dropPath;
  constructor(dim: number, attn: OutlookAttention | Attention, ratio: number, rate = 0) {
    super();
    this.norm1 = new LayerNorm(dim);
    this.attn = attn;
    this.norm2 = new LayerNorm(dim);
    this.mlp = new Mlp(dim, ratio * dim);
    this.dropPath = new DropPath(rate);
  }
  forward(x: Tensor): Tensor {
    const y = x.add(this.dropPath.forward(this.attn.forward(this.norm1.forward(x))));
    return y.add(this.dropPath.forward(this.mlp.forward(this.norm2.forward(y))));
  }
}

/** The class token attends to itself and to the patches.  x [N, 1 + L, C] -> [N, 1, C] */
class ClassAttention extends Module {
  kv;
  q;
  proj;
  readonly #heads;
  constructor(dim: number, heads: number) {
    super();
    this.#heads = heads;
    this.kv = new Linear(dim, 2 * dim, { bias: false });
    this.q = new Linear(dim, dim, { bias: false });
    this.proj = new Linear(dim, dim);
  }
  forward(x: Tensor): Tensor {
    const scale = (known(x.shape[2]) / this.#heads) ** -0.5;
    const [k, v] = cutLinear(this.kv, x, 2); // [N, 1 + L, C]
    const q = linear(x.slice(1, 0, 1), this.q.weight.mul(scale), undefined); // [N, 1, C]
    return this.proj.forward(attend(q, k, v, this.#heads));
  }
}

/** Class attention, then an MLP; patches stay as they are.  Touvron et al. (2021), section 3.  token [N, 1, C], patches [N, L, C] -> [N, 1, C] */
class ClassBlock extends Module {
  norm1;
  attn;
  norm2;
  mlp;
  constructor(dim: number, heads: number, ratio: number) {
    super();
    this.norm1 = new LayerNorm(dim);
    this.attn = new ClassAttention(dim, heads);
    this.norm2 = new LayerNorm(dim);
    this.mlp = new Mlp(dim, ratio * dim);
  }
  forward(token: Tensor, patches: Tensor): Tensor {
    const y = token.add(this.attn.forward(this.norm1.forward(concat([token, patches], 1))));
    return y.add(this.mlp.forward(this.norm2.forward(y)));
  }
}

/** Three convolutions, then patches; zeros complete the last ones.  [N, 3, H, W] -> [N, C, H / P, W / P] */
class PatchEmbed extends Module {
  readonly #convs: readonly Conv2d[];
  readonly #norms: readonly BatchNorm2d[];
  readonly #proj;
  readonly #patch;
  constructor(inChannels: number, dim: number, stem: number, patch: number, stride: number) {
    super();
    this.#patch = patch;
    this.#convs = [
      new Conv2d(inChannels, stem, { kernel: 7, stride, padding: 3, bias: false }),
      new Conv2d(stem, stem, { kernel: 3, padding: 1, bias: false }),
      new Conv2d(stem, stem, { kernel: 3, padding: 1, bias: false }),
    ];
    this.#norms = this.#convs.map(() => new BatchNorm2d(stem));
    this.#proj = new Conv2d(stem, dim, { kernel: patch / stride, stride: patch / stride });
  }
  override *parts(): Iterable<[string, Module]> {
    for (const [i, conv] of this.#convs.entries()) {
      yield [`conv.${3 * i}`, conv];
      yield [`conv.${3 * i + 1}`, this.#norms[i]];
    }
    yield ["proj", this.#proj];
  }
  forward(image: Tensor): Tensor {
    const fits = complete(image, this.#patch);
    return this.#proj.forward(this.#convs.reduce((x, conv, i) => relu(this.#norms[i].forward(conv.forward(x))), fits));
  }
}

/** Halves the map.  [N, H, W, C] -> [N, H/2, W/2, C'] */
class Downsample extends Module {
  proj;
  constructor(inputs: number, dim: number) {
    super();
    this.proj = new Conv2d(inputs, dim, { kernel: 2, stride: 2 });
  }
  forward(x: Tensor): Tensor {
    return this.proj.forward(complete(x.permute(0, 3, 1, 2), 2)).permute(0, 2, 3, 1);
  }
}

export class VOLO extends Module implements TokenLabelled {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim: number;
  readonly headName = "head";
  readonly otherHeads = ["aux_head"] as const;
  readonly #grid: readonly number[];
  readonly #patchEmbed;
  readonly #posEmbed;
  readonly #outlookers: readonly Block[];
  readonly #downsample;
  readonly #blocks: readonly (readonly Block[])[];
  readonly #classBlocks: readonly ClassBlock[];
  readonly #clsToken;
  readonly #norm;
  constructor(config: VOLOConfig, options: BackboneOptions = {}) {
    super();
    const { dims, heads, outlookers, depths, ratio = 3, stem = 64, patch = 8, stemStride = 2 } = config;
    const { imageSize = 224, inChannels = 3, dropPath = 0 } = options;
    const [, dim] = dims;
    this.channels = dims;
    this.strides = [patch, 2 * patch];
    this.dim = dim;
    this.#grid = sides(imageSize).map((s) => Math.ceil(s / (2 * patch)));
    this.#patchEmbed = new PatchEmbed(inChannels, dims[0], stem, patch, stemStride);
    this.#posEmbed = this.param([1, ...this.#grid, dim], normal(), positionMap);
    const outlook = () => new OutlookAttention(dims[0], heads[0]);
    this.#outlookers = Array.from({ length: outlookers }, () => new Block(dims[0], outlook(), ratio));
    this.#downsample = new Downsample(dims[0], dim);
    // Rates grow from the first outlooker on, but only the transformer drops paths.
    const rates = dropPathRates(
      depths.reduce((a, b) => a + b, outlookers),
      dropPath,
    ).slice(outlookers);
    const attention = () => new Attention(dim, heads[1], { bias: false });
    this.#blocks = depths.map((depth) =>
      rates.splice(0, depth).map((rate) => new Block(dim, attention(), ratio, rate)),
    );
    this.#classBlocks = [0, 1].map(() => new ClassBlock(dim, heads[1], ratio));
    this.#clsToken = this.param([1, 1, dim], normal());
    this.#norm = new LayerNorm(dim);
  }
  override *parts(): Iterable<[string, Module | Tensor]> {
    yield ["pos_embed", this.#posEmbed];
    yield ["cls_token", this.#clsToken];
    yield ["patch_embed", this.#patchEmbed];
    for (const [i, block] of this.#outlookers.entries()) yield [`network.0.${i}`, block];
    yield ["network.1", this.#downsample];
    for (const [i, blocks] of this.#blocks.entries())
      for (const [j, block] of blocks.entries()) yield [`network.${i + 2}.${j}`, block];
    for (const [i, block] of this.#classBlocks.entries()) yield [`post_network.${i}`, block];
    yield ["norm", this.#norm];
  }
  /** The maps of both stages.  [N, 3, H, W] -> two of [N, H', W', C'] */
  #maps(image: Tensor, mix: MixPatches = (patches) => patches): [Tensor, Tensor] {
    const patches = mix(this.#patchEmbed.forward(image)).permute(0, 2, 3, 1);
    const fine = this.#outlookers.reduce((x, block) => block.forward(x), patches);
    const start = this.#downsample.forward(fine);
    const grid = start.shape.slice(1, 3);
    if (grid.some((s, i) => s !== this.#grid[i]))
      throw new UsageError({
        message: `this model places ${this.#grid.join(" × ")} patches, the image has ${grid.join(" × ")}`,
        help: `make it with imageSize: [${image.shape.slice(2).join(", ")}]`,
      });
    const tokens = start.add(this.#posEmbed).reshape([start.shape[0], this.#grid[0] * this.#grid[1], this.dim]);
    const coarse = this.#blocks.flat().reduce((x, block) => block.forward(x), tokens);
    return [fine, coarse.reshape(start.shape)];
  }
  forward(image: Tensor): Tensor[] {
    return this.#maps(image).map(channelsFirst);
  }
  embed(image: Tensor): Tensor {
    return this.tokens(image).whole;
  }
  tokens(image: Tensor, mix?: MixPatches): Tokens {
    const map = this.#maps(image, mix)[1]; // [N, H/16, W/16, C]
    const patches = map.reshape([map.shape[0], this.#grid[0] * this.#grid[1], this.dim]);
    const token = this.#classBlocks.reduce((t, block) => block.forward(t, patches), expandBatch(this.#clsToken, image));
    return { whole: this.#norm.forward(token).squeeze(1), patches: this.#norm.forward(map) };
  }
  logits(image: Tensor, heads: readonly Linear[]): Tensor {
    return tokenLogits(this.tokens(image), heads);
  }
}

export const paper =
  "Yuan et al., VOLO: Vision Outlooker for Visual Recognition (2021), https://arxiv.org/abs/2106.13112";

const d1: VOLOConfig = { dims: [192, 384], heads: [6, 12], outlookers: 4, depths: [4, 8, 2] };
const d2: VOLOConfig = { dims: [256, 512], heads: [8, 16], outlookers: 6, depths: [4, 10, 4] };
const d3: VOLOConfig = { ...d2, outlookers: 8, depths: [8, 16, 4] };
const d4: VOLOConfig = { ...d3, dims: [384, 768], heads: [12, 16] };
const d5: VOLOConfig = { ...d4, outlookers: 12, depths: [12, 20, 4], ratio: 4, stem: 128 };
const at224 = { cropPct: 0.96 };
const at384 = { imageSize: 384, cropPct: 1 };

/** Table 2. */
export const variants: Record<string, Variant<VOLOConfig>> = {
  volo_d1_224: { config: d1, preprocessing: at224 },
  volo_d1_384: { config: d1, preprocessing: at384 },
  volo_d2_224: { config: d2, preprocessing: at224 },
  volo_d2_384: { config: d2, preprocessing: at384 },
  volo_d3_224: { config: d3, preprocessing: at224 },
  volo_d3_448: { config: d3, preprocessing: { imageSize: 448, cropPct: 1 } },
  volo_d4_224: { config: d4, preprocessing: at224 },
  volo_d4_448: { config: d4, preprocessing: { imageSize: 448, cropPct: 1.15 } },
  volo_d5_224: { config: d5, preprocessing: at224 },
  volo_d5_448: { config: d5, preprocessing: { imageSize: 448, cropPct: 1.15 } },
  volo_d5_512: { config: d5, preprocessing: { imageSize: 512, cropPct: 1.15 } },
  volo_micro_32: {
    config: { dims: [32, 64], heads: [2, 4], outlookers: 1, depths: [2], stem: 16, patch: 2, stemStride: 1 },
    init: normalFanIn,
    preprocessing: { imageSize: 32, cropPct: 1 },
  },
};

export const create = (config: VOLOConfig, options: BackboneOptions): VOLO => new VOLO(config, options);
