/**
 * CSWin Transformer: half of the heads attend along vertical stripes of the map, the other half along horizontal ones.
 * Dong et al., "CSWin Transformer: A General Vision Transformer Backbone with Cross-Shaped Windows" (CVPR 2022),
 * https://arxiv.org/abs/2107.00652.  Parameter paths are those of the official repository.
 */
import { known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { projections } from "../nn/attention.ts";
import { normalFanIn } from "../nn/init.ts";
import { Conv2d, DropPath, LayerNorm, Linear, Mlp } from "../nn/layers.ts";
import { channelsFirst, channelsLast } from "../nn/layout.ts";
import { Module } from "../nn/module.ts";
import { planWindows } from "../nn/window.ts";
import { conv } from "../ops/conv.ts";
import { concat, inverseOrder, permuteAlong, split } from "../ops/move.ts";
import { softmax } from "../ops/norm.ts";
import { type Backbone, type BackboneOptions, stageRates, type Variant } from "./backbone.ts";

export interface CSWinConfig {
  /** Stride of the overlapping patches of the stem. */
  patch: number;
  dim: number;
  depths: readonly number[];
  heads: readonly number[];
  /** Width of the stripes for each stage but the last, which attends to the whole map. */
  split: readonly number[];
}

export interface CSWinOptions extends BackboneOptions {
  /** Which stripes there are: with one direction, both halves of the heads take it. */
  directions?: "both" | "horizontal" | "vertical";
}

type Direction = "horizontal" | "vertical" | "whole";

/** The stripes of one direction in a map, each `length` rows of `across` tokens: horizontal ones are read with the map on its side. */
interface Stripes {
  length: number;
  across: number;
  /** Zeros that grow the map along an axis until it divides, at both ends: what the official dense models do. */
  axis: 1 | 2;
  before: number;
  after: number;
  /** The place in the grown map of each token, stripe by stripe. */
  order: Int32Array;
}

/** Cuts a map into stripes (section 3.2). */
function cutStripes([height, width]: readonly number[], direction: Direction, split: number): Stripes {
  const lies = direction === "horizontal";
  const [length, side] = lies ? [width, height] : [height, width];
  const across = direction === "whole" ? side : split;
  const grown = Math.ceil(side / across) * across;
  const before = Math.floor((grown - side) / 2);
  const { order } = planWindows([length, grown], [length, across]);
  // Place c · H + r of the map on its side is place r · W + c of the map.
  const upright = (place: number): number => (place % grown) * length + Math.floor(place / grown);
  return {
    length,
    across,
    axis: lies ? 1 : 2,
    before,
    after: grown - side - before,
    order: lies ? order.map(upright) : order,
  };
}

/** One of the groups of heads: the direction of its stripes, and the convolution of its values, LePE (section 3.3). */
class HeadGroup extends Module {
  getV;
  readonly #direction;
  readonly #split;
  constructor(dim: number, direction: Direction, split: number) {
    super();
    this.#direction = direction;
    this.#split = split;
    this.getV = new Conv2d(dim, dim, { kernel: 3, padding: 1, groups: dim });
  }
  stripes(size: readonly number[]): Stripes {
    return cutStripes(size, this.#direction, this.#split);
  }
  /** The convolution's kernel, on its side where the stripes are read so.  [C, 1, 3, 3] */
  forward(): Tensor {
    return this.#direction === "horizontal" ? this.getV.weight.swapAxes(2, 3) : this.getV.weight;
  }
}

/** softmax(q kᵀ) v inside stripes of one size, plus the convolution of v there.  q, k, v: [N, H, W, C] -> [N, H, W, C] */
function attend(qkv: readonly Tensor[], groups: readonly HeadGroup[], cut: readonly Stripes[], heads: number): Tensor {
  const [batch, ...size] = qkv[0].shape;
  const [height, width, dim] = size.map((d) => known(d));
  const [{ length, across, axis, before, after }] = cut;
  const [tokens, each] = [length * across, dim / heads];

  // One gather sorts by stripe and by head, each group of heads along its own direction.
  const order = sortByHead(cut, tokens, heads);
  const rows = [batch, order.length, each];
  const [q, k, v] = qkv.map((x) =>
    permuteAlong(x.pad(axis, before, after).reshape(rows), order, 1).reshape([-1, heads, tokens, each]),
  ); // [N · stripes, heads, T, D]
  const values = channelsFirst(v.reshape([-1, length, across, each])); // [N · stripes · heads, D, length, across]
  const places = encode(values.reshape([-1, dim, length, across]), groups); // [N · stripes, C, length, across]
  const mixed = softmax(q.matmul(k.mT))
    .matmul(v)
    .add(channelsLast(places.reshape(values.shape)).reshape(v.shape));

  const grown = [height, width].map((s, i) => (axis === i + 1 ? s + before + after : s));
  return permuteAlong(mixed.reshape(rows), inverseOrder(order), 1)
    .reshape([batch, ...grown, dim])
    .slice(axis, before, before + [height, width][axis - 1]);
}

/** LePE: a depthwise convolution inside each stripe, beyond whose border there are zeros (section 3.3).  [N · stripes, C, h, w] */
function encode(v: Tensor, groups: readonly HeadGroup[]): Tensor {
  const kernels = groups.map((group) => group.forward());
  const biases = groups.map((group) => group.getV.bias as Tensor);
  // Where a stripe is one token wide, the outer places of the kernel see zeros only.
  const thin = v.shape.slice(2).map((s) => s === 1);
  const kernel = thin.reduce((w, isThin, i) => (isThin ? w.slice(i + 2, 1, 2) : w), concat(kernels, 0));
  const padding = thin.map((isThin) => (isThin ? 0 : 1));
  return conv(v, kernel, concat(biases, 0), { padding, groups: known(v.shape[1]) });
}

/** The order of a map's rows [place, head], sorted by stripe, then head, then token; heads are shared out equally to what is cut. */
function sortByHead(cut: readonly Stripes[], tokens: number, heads: number): Int32Array {
  const out = new Int32Array(cut[0].order.length * heads);
  let next = 0;
  for (let first = 0; first < cut[0].order.length; first += tokens)
    for (let head = 0; head < heads; head++) {
      const { order } = cut[Math.floor((head * cut.length) / heads)];
      for (let t = 0; t < tokens; t++) out[next++] = order[first + t] * heads + head;
    }
  return out;
}

/** Attention along stripes of both directions at once, then an MLP (section 3.4).  [N, H, W, C] -> [N, H, W, C] */
class Block extends Module {
  norm1;
  qkv;
  attns;
  proj;
  norm2;
  mlp;
  dropPath;
  readonly #heads;
  constructor(dim: number, heads: number, directions: readonly Direction[], split: number, rate: number) {
    super();
    this.#heads = heads;
    this.norm1 = new LayerNorm(dim);
    this.qkv = new Linear(dim, 3 * dim);
    this.attns = directions.map((direction) => new HeadGroup(dim / directions.length, direction, split));
    this.proj = new Linear(dim, dim);
    this.norm2 = new LayerNorm(dim);
    this.mlp = new Mlp(dim, 4 * dim);
    this.dropPath = new DropPath(rate);
  }
  forward(x: Tensor): Tensor {
    const y = x.add(this.dropPath.forward(this.proj.forward(this.#attend(this.norm1.forward(x)))));
    return y.add(this.dropPath.forward(this.mlp.forward(this.norm2.forward(y))));
  }
  #attend(x: Tensor): Tensor {
    const [heads, groups] = [this.#heads, this.attns];
    const qkv = projections(this.qkv, x, heads); // three of [N, H, W, C]
    const cut = groups.map((group) => group.stripes(x.shape.slice(1, 3).map((d) => known(d))));
    if (cut.every((stripes) => fit(stripes, cut[0]))) return attend(qkv, groups, cut, heads);
    const apart = qkv.map((y) => split(y, -1, groups.length));
    const mixed = groups.map((group, i) => {
      const own = apart.map((y) => y[i]); // three of [N, H, W, C / groups]
      return attend(own, [group], [cut[i]], heads / groups.length);
    });
    return concat(mixed, -1);
  }
}

/** Whether stripes have one size and one padding, so that all heads are drawn at once: on square maps that divide, both directions do. */
const fit = (a: Stripes, b: Stripes): boolean =>
  a.length === b.length && a.across === b.across && (a.axis === b.axis || a.after === 0);

/** Halves the map by an overlapping convolution.  [N, H, W, C] -> [N, H/2, W/2, 2C] */
class Merge extends Module {
  conv;
  norm;
  constructor(dim: number) {
    super();
    this.conv = new Conv2d(dim, 2 * dim, { kernel: 3, stride: 2, padding: 1 });
    this.norm = new LayerNorm(2 * dim);
  }
  forward(x: Tensor): Tensor {
    return this.norm.forward(this.conv.forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1));
  }
}

export class CSWin extends Module implements Backbone {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim: number;
  readonly headName = "head";
  readonly #embedding;
  readonly #embeddingNorm;
  readonly #merges: readonly Merge[];
  readonly #stages: readonly (readonly Block[])[];
  readonly #norm;
  constructor({ patch, dim, depths, heads, split }: CSWinConfig, options: CSWinOptions = {}) {
    super();
    const { inChannels = 3, dropPath = 0, directions = "both" } = options;
    const rates = stageRates(depths, dropPath);
    const last = depths.length - 1;
    const pair: Direction[] = directions === "both" ? ["vertical", "horizontal"] : [directions, directions];
    this.channels = depths.map((_, i) => dim * 2 ** i);
    this.strides = depths.map((_, i) => patch * 2 ** i);
    this.dim = this.channels[last];
    this.#embedding = new Conv2d(inChannels, dim, { kernel: 2 * patch - 1, stride: patch, padding: patch / 2 });
    this.#embeddingNorm = new LayerNorm(dim);
    this.#merges = this.channels.slice(0, last).map((channels) => new Merge(channels));
    this.#stages = depths.map((_, i) =>
      rates[i].map((rate) => new Block(this.channels[i], heads[i], i === last ? ["whole"] : pair, split[i], rate)),
    );
    this.#norm = new LayerNorm(this.dim);
  }
  override *parts(): Iterable<[string, Module]> {
    yield ["stage1_conv_embed.0", this.#embedding];
    yield ["stage1_conv_embed.2", this.#embeddingNorm];
    for (const [i, blocks] of this.#stages.entries()) {
      if (i > 0) yield [`merge${i}`, this.#merges[i - 1]];
      for (const [j, block] of blocks.entries()) yield [`stage${i + 1}.${j}`, block];
    }
    yield ["norm", this.#norm];
  }
  #maps(image: Tensor): Tensor[] {
    let x = this.#embeddingNorm.forward(this.#embedding.forward(image).permute(0, 2, 3, 1)); // [N, H/4, W/4, C]
    return this.#stages.map((blocks, i) => {
      const start = i === 0 ? x : this.#merges[i - 1].forward(x);
      x = blocks.reduce((y, block) => block.forward(y), start);
      return x;
    });
  }
  forward(image: Tensor): Tensor[] {
    return this.#maps(image).map(channelsFirst);
  }
  embed(image: Tensor): Tensor {
    const maps = this.#maps(image);
    return this.#norm.forward(maps[maps.length - 1]).mean([1, 2], false);
  }
}

export const paper = "Dong et al., CSWin Transformer (2022), https://arxiv.org/abs/2107.00652";

const tiny = { patch: 4, dim: 64, depths: [1, 2, 21, 1], heads: [2, 4, 8, 16] };
const small = { ...tiny, depths: [2, 4, 32, 2] };
const base = { patch: 4, dim: 96, depths: [2, 4, 32, 2], heads: [4, 8, 16, 32] };
const large = { patch: 4, dim: 144, depths: [2, 4, 32, 2], heads: [6, 12, 24, 24] };
const at224 = { split: [1, 2, 7] };
const at384 = { split: [1, 2, 12] };
const pictures224 = { cropPct: 0.9 };
const pictures384 = { imageSize: 384, cropPct: 1 };

/** Table 1 and the official repository, whose names for them are the aliases. */
export const variants: Record<string, Variant<CSWinConfig>> = {
  cswin_tiny_224: {
    config: { ...tiny, ...at224 },
    preprocessing: pictures224,
    aliases: ["CSWin_64_12211_tiny_224"],
  },
  cswin_small_224: {
    config: { ...small, ...at224 },
    preprocessing: pictures224,
    aliases: ["CSWin_64_24322_small_224"],
  },
  cswin_base_224: { config: { ...base, ...at224 }, preprocessing: pictures224, aliases: ["CSWin_96_24322_base_224"] },
  cswin_large_224: {
    config: { ...large, ...at224 },
    preprocessing: pictures224,
    aliases: ["CSWin_144_24322_large_224"],
  },
  cswin_base_384: { config: { ...base, ...at384 }, preprocessing: pictures384, aliases: ["CSWin_96_24322_base_384"] },
  cswin_large_384: {
    config: { ...large, ...at384 },
    preprocessing: pictures384,
    aliases: ["CSWin_144_24322_large_384"],
  },
  cswin_micro_32: {
    config: { patch: 2, dim: 32, depths: [1, 2, 1], heads: [2, 2, 4], split: [1, 2] },
    init: normalFanIn,
    preprocessing: { imageSize: 32, cropPct: 1 },
  },
};

export const options = { directions: ["both", "horizontal", "vertical"] } as const;

export const create = (config: CSWinConfig, options: CSWinOptions): CSWin => new CSWin(config, options);
