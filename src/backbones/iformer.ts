/**
 * iFormer: in each block some channels see high frequencies, by max pooling and depthwise convolution, the others attend.
 * Si et al., "Inception Transformer" (NeurIPS 2022), https://arxiv.org/abs/2205.12956.  Parameter paths are those of the official
 * repository.
 */
import { UsageError } from "../base/errors.ts";
import { known } from "../graph/shape.ts";
import { constant, type Tensor } from "../graph/tensor.ts";
import { positionMapBilinear } from "../nn/adapt.ts";
import { attend, projections } from "../nn/attention.ts";
import { fixed, normal } from "../nn/init.ts";
import { BatchNorm2d, Conv2d, DropPath, LayerNorm, Linear, Mlp } from "../nn/layers.ts";
import { channelsFirst, channelsLast } from "../nn/layout.ts";
import { Module } from "../nn/module.ts";
import { conv } from "../ops/conv.ts";
import { gelu } from "../ops/elementwise.ts";
import { concat } from "../ops/move.ts";
import { averagePool, maxPool } from "../ops/pool.ts";
import { repeatPlaces } from "../ops/resize.ts";
import { type Backbone, type BackboneOptions, dropPathRates, sides, type Variant } from "./backbone.ts";

export interface IFormerConfig {
  depths: readonly number[];
  dims: readonly number[];
  /** How many heads attend in each block; the rest of the channels is for high frequencies (the frequency ramp, section 3.2). */
  attending: readonly number[];
}

const eps = 1e-6;
/** Width of a head, in all models. */
const head = 32;
const init = normal();

/** Half of the channels through convolutions, half through max pooling; both grow twice as wide.  [N, C, H, W] -> [N, 2C, H, W] */
class HighMixer extends Module {
  conv1;
  proj1;
  proj2;
  readonly #half;
  constructor(dim: number) {
    super();
    this.#half = dim / 2;
    this.conv1 = new Conv2d(dim / 2, dim, { kernel: 1, bias: false, init });
    this.proj1 = new Conv2d(dim, dim, { kernel: 3, padding: 1, groups: dim, bias: false, init });
    this.proj2 = new Conv2d(dim / 2, dim, { kernel: 1, init });
  }
  forward(x: Tensor): Tensor {
    const convolved = this.proj1.forward(this.conv1.forward(x.slice(1, 0, this.#half)));
    const pooled = maxPool(x.slice(1, this.#half), { kernel: 3, stride: 1, padding: 1 });
    return gelu(concat([convolved, this.proj2.forward(pooled)], 1));
  }
}

/** Attention among means of 2 × 2 places in the first two stages, among all in the others.  [N, C, H, W] -> [N, C, H, W] */
class LowMixer extends Module {
  qkv;
  readonly #heads;
  readonly #pool;
  constructor(dim: number, heads: number, pool: number) {
    super();
    this.#heads = heads;
    this.#pool = pool;
    this.qkv = new Linear(dim, 3 * dim);
  }
  forward(x: Tensor): Tensor {
    const [batch, dim, height, width] = x.shape.map((d, axis) => (axis === 0 ? d : known(d)));
    // Where a side is odd, the last means are of one row or column.
    const small = this.#pool > 1 ? averagePool(x, { kernel: this.#pool, ceilMode: true, countPadding: false }) : x;
    const [q, k, v] = projections(this.qkv, small.reshape([batch, dim, -1]).mT, this.#heads);
    const mixed = attend(q, k, v, this.#heads).mT.reshape(small.shape);
    if (this.#pool === 1) return mixed;
    const large = repeatPlaces(mixed, { times: [this.#pool, this.#pool] });
    return large.slice(2, 0, known(height)).slice(3, 0, known(width));
  }
}

/** The inception mixer (section 3.1).  [N, H, W, C] -> [N, H, W, C] */
class Mixer extends Module {
  highMixer;
  lowMixer;
  convFuse;
  proj;
  readonly #high;
  constructor(dim: number, attending: number, pool: number) {
    super();
    const low = attending * head;
    const wide = low + 2 * (dim - low);
    this.#high = dim - low;
    this.highMixer = new HighMixer(dim - low);
    this.lowMixer = new LowMixer(low, attending, pool);
    this.convFuse = new Conv2d(wide, wide, { kernel: 3, padding: 1, groups: wide, bias: false, init });
    this.proj = new Conv2d(wide, dim, { kernel: 1, init });
  }
  forward(x: Tensor, scale?: Tensor): Tensor {
    const map = channelsFirst(x);
    const high = this.highMixer.forward(map.slice(1, 0, this.#high));
    const mixed = concat([high, this.lowMixer.forward(map.slice(1, this.#high))], 1);
    // What the convolution makes is added to what it reads: one more in the middle of each kernel (equation 7).
    const middle = constant(new Float32Array(9).fill(1, 4, 5), [3, 3], "float32");
    const fused = conv(mixed, this.convFuse.weight.add(middle), undefined, {
      padding: 1,
      groups: known(mixed.shape[1]),
    });
    return channelsLast(this.proj.forward(fused, scale));
  }
}

/** Mixes places, then channels.  [N, H, W, C] -> [N, H, W, C] */
class Block extends Module {
  layerScale_1;
  layerScale_2;
  norm1;
  attn;
  norm2;
  mlp;
  dropPath;
  constructor(dim: number, attending: number, early: boolean, rate: number) {
    super();
    const scale = () => (early ? undefined : this.param([dim], fixed(1e-6)));
    this.layerScale_1 = scale();
    this.layerScale_2 = scale();
    this.norm1 = new LayerNorm(dim, { eps });
    this.attn = new Mixer(dim, attending, early ? 2 : 1);
    this.norm2 = new LayerNorm(dim, { eps });
    this.mlp = new Mlp(dim, 4 * dim);
    this.dropPath = new DropPath(rate);
  }
  forward(x: Tensor): Tensor {
    const y = x.add(this.dropPath.forward(this.attn.forward(this.norm1.forward(x), this.layerScale_1)));
    return y.add(this.dropPath.forward(this.mlp.forward(this.norm2.forward(y), this.layerScale_2)));
  }
}

const halving = (from: number, to: number): Conv2d => new Conv2d(from, to, { kernel: 3, stride: 2, padding: 1, init });

/** Two overlapping convolutions.  [N, 3, H, W] -> [N, H / 4, W / 4, C] */
class Stem extends Module {
  proj1;
  norm1;
  proj2;
  norm2;
  constructor(inChannels: number, dim: number) {
    super();
    this.proj1 = halving(inChannels, dim / 2);
    this.norm1 = new BatchNorm2d(dim / 2);
    this.proj2 = halving(dim / 2, dim);
    this.norm2 = new BatchNorm2d(dim);
  }
  forward(image: Tensor): Tensor {
    const x = gelu(this.norm1.forward(this.proj1.forward(image)));
    return channelsLast(this.norm2.forward(this.proj2.forward(x)));
  }
}

/** An overlapping convolution halves the map.  [N, H, W, C] -> [N, H / 2, W / 2, C'] */
class PatchEmbed extends Module {
  proj;
  norm;
  constructor(from: number, to: number) {
    super();
    this.proj = halving(from, to);
    this.norm = new BatchNorm2d(to);
  }
  forward(x: Tensor): Tensor {
    return channelsLast(this.norm.forward(this.proj.forward(channelsFirst(x))));
  }
}

export class IFormer extends Module implements Backbone {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim: number;
  readonly headName = "head";
  readonly #places: readonly Tensor[];
  readonly #embeddings: readonly (Stem | PatchEmbed)[];
  readonly #blocks: readonly (readonly Block[])[];
  readonly #norm;
  constructor({ depths, dims, attending }: IFormerConfig, options: BackboneOptions = {}) {
    super();
    const { imageSize = 224, inChannels = 3, dropPath = 0 } = options;
    const count = depths.reduce((a, b) => a + b, 0);
    const blocks = dropPathRates(count, dropPath).map((rate, i) => ({ rate, heads: attending[i] }));
    let size = sides(imageSize).map((s) => Math.ceil(s / 2));
    this.channels = dims;
    this.strides = dims.map((_, i) => 4 * 2 ** i);
    this.dim = dims[dims.length - 1];
    this.#places = dims.map((dim) => {
      size = size.map((s) => Math.ceil(s / 2));
      return this.param([1, ...size, dim], init, positionMapBilinear);
    });
    this.#embeddings = dims.map((dim, i) => (i === 0 ? new Stem(inChannels, dim) : new PatchEmbed(dims[i - 1], dim)));
    this.#blocks = depths.map((depth, i) =>
      blocks.splice(0, depth).map(({ rate, heads }) => new Block(dims[i], heads, i < 2, rate)),
    );
    this.#norm = new LayerNorm(this.dim, { eps });
  }
  override *parts(): Iterable<[string, Module | Tensor]> {
    for (const [i, places] of this.#places.entries()) yield [`pos_embed${i + 1}`, places];
    for (const [i, blocks] of this.#blocks.entries()) {
      yield [i === 0 ? "patch_embed" : `patch_embed${i + 1}`, this.#embeddings[i]];
      for (const [j, block] of blocks.entries()) yield [`blocks${i + 1}.${j}`, block];
    }
    yield ["norm", this.#norm];
  }
  #maps(image: Tensor): Tensor[] {
    let x = image;
    return this.#blocks.map((blocks, i) => {
      const start = this.#embeddings[i].forward(x);
      const [size, places] = [start, this.#places[i]].map((t) => t.shape.slice(1, 3).join(" × "));
      if (size !== places)
        throw new UsageError({
          message: `this model has places for a map of ${places}, the image makes one of ${size}`,
          help: `make it with imageSize: [${image.shape.slice(2).join(", ")}]`,
        });
      x = blocks.reduce((y, block) => block.forward(y), start.add(this.#places[i]));
      return x;
    });
  }
  forward(image: Tensor): Tensor[] {
    return this.#maps(image).map(channelsFirst);
  }
  embed(image: Tensor): Tensor {
    const maps = this.#maps(image);
    return this.#norm.forward(maps[maps.length - 1]).mean([1, 2]);
  }
}

export const paper = "Si et al., Inception Transformer (2022), https://arxiv.org/abs/2205.12956";

/** The same number for each block of a stage or a part of one. */
const ramp = (...parts: readonly [blocks: number, heads: number][]): number[] =>
  parts.flatMap(([blocks, heads]) => new Array<number>(blocks).fill(heads));

const small = {
  depths: [3, 3, 9, 3],
  dims: [96, 192, 320, 384],
  attending: ramp([3, 1], [3, 3], [4, 7], [5, 9], [3, 11]),
};
const base = {
  depths: [4, 6, 14, 6],
  dims: [96, 192, 384, 512],
  attending: ramp([4, 1], [6, 3], [7, 8], [7, 10], [6, 15]),
};
const large = {
  depths: [4, 6, 18, 8],
  dims: [96, 192, 448, 640],
  attending: ramp([4, 1], [6, 3], [9, 10], [9, 12], [8, 19]),
};
const at224 = { cropPct: 0.9 };
const at384 = { imageSize: 384, cropPct: 1 };

/** Appendix, table 8.  The repository's names are the aliases. */
export const variants: Record<string, Variant<IFormerConfig>> = {
  iformer_small_224: { config: small, preprocessing: at224, aliases: ["iformer_small"] },
  iformer_base_224: { config: base, preprocessing: at224, aliases: ["iformer_base"] },
  iformer_large_224: { config: large, preprocessing: at224, aliases: ["iformer_large"] },
  iformer_small_384: { config: small, preprocessing: at384 },
  iformer_base_384: { config: base, preprocessing: at384 },
  iformer_large_384: { config: large, preprocessing: at384 },
};

export const create = (config: IFormerConfig, options: BackboneOptions): IFormer => new IFormer(config, options);
