/**
 * SpectFormer: early blocks filter maps in the frequency domain, later ones attend.
 * Patro et al., "SpectFormer: Frequency and Attention is what you need in a Vision Transformer" (WACV 2025),
 * https://arxiv.org/abs/2304.06446.  Parameter paths are those of the official repository.
 */
import { UsageError } from "../base/errors.ts";
import { known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { positions, spectralFilters } from "../nn/adapt.ts";
import { attend, cutLinear, projections } from "../nn/attention.ts";
import { ConvMlp } from "../nn/conv-mlp.ts";
import { normal } from "../nn/init.ts";
import { BatchNorm2d, DropPath, LayerNorm, Linear, Mlp } from "../nn/layers.ts";
import { channelsFirst, channelsLast } from "../nn/layout.ts";
import { Module } from "../nn/module.ts";
import { relu } from "../ops/elementwise.ts";
import { irfft2, rfft2 } from "../ops/fourier.ts";
import { linear } from "../ops/linalg.ts";
import { concat, split } from "../ops/move.ts";
import { type Backbone, type BackboneOptions, dropPathRates, sides, stageRates, type Variant } from "./backbone.ts";
import { convolution, Downsample } from "./smt.ts";
import { PatchEmbed } from "./vit.ts";

/** Patches of one size throughout. */
export interface PlainConfig {
  dim: number;
  depth: number;
  heads: number;
}

/** A pyramid of four stages, the first two in the frequency domain. */
export interface PyramidConfig {
  stem: number;
  dims: readonly number[];
  depths: readonly number[];
  heads: readonly number[];
}

type Size = readonly [number, number];
const eps = 1e-6;

/** Multiplies each frequency of each channel by a learned complex number (section 3.1).  [N, H, W, C] -> [N, H, W, C] */
class SpectralGate extends Module {
  complexWeight;
  readonly #size;
  constructor(dim: number, [height, width]: Size) {
    super();
    this.#size = [height, width];
    const shape = [height, Math.floor(width / 2) + 1, dim, 2];
    this.complexWeight = this.param(shape, normal(), spectralFilters);
  }
  forward(x: Tensor): Tensor {
    const size = x.shape.slice(1, 3);
    if (size.some((s, i) => s !== this.#size[i]))
      throw new UsageError({
        message: `this model has filters for maps of ${this.#size.join(" × ")}, this one has ${size.join(" × ")}`,
        help: "make it with the imageSize of the images: each size has filters of its own",
      });
    const [real, imaginary] = split(rfft2(x), 1, 2); // [N, 1, H, W / 2 + 1, C]
    const [a, b] = split(this.complexWeight, 3, 2).map((w) => w.squeeze(3));
    const gated = concat([real.mul(a).sub(imaginary.mul(b)), real.mul(b).add(imaginary.mul(a))], 1);
    return irfft2(gated, this.#size[1]);
  }
}

/** All places attend to all.  [N, H, W, C] -> [N, H, W, C] */
class Attention extends Module {
  qkv;
  proj;
  readonly #heads;
  constructor(dim: number, heads: number) {
    super();
    this.#heads = heads;
    this.qkv = new Linear(dim, 3 * dim);
    this.proj = new Linear(dim, dim);
  }
  forward(x: Tensor): Tensor {
    const tokens = x.reshape([x.shape[0], -1, x.shape[3]]);
    const [q, k, v] = projections(this.qkv, tokens, this.#heads);
    return this.proj.forward(attend(q, k, v, this.#heads)).reshape(x.shape);
  }
}

/** Of the plain model: where it filters, a single shortcut spans both parts.  [N, H, W, C] -> [N, H, W, C] */
class PlainBlock extends Module {
  norm1;
  filter;
  attn;
  norm2;
  mlp;
  dropPath;
  constructor({ dim, heads }: PlainConfig, size: Size | undefined, rate: number) {
    super();
    this.norm1 = new LayerNorm(dim, { eps });
    this.filter = size && new SpectralGate(dim, size);
    this.attn = size ? undefined : new Attention(dim, heads);
    this.norm2 = new LayerNorm(dim, { eps });
    this.mlp = new Mlp(dim, 4 * dim);
    this.dropPath = new DropPath(rate);
  }
  forward(x: Tensor): Tensor {
    const y = this.norm1.forward(x);
    if (this.filter) return x.add(this.dropPath.forward(this.mlp.forward(this.norm2.forward(this.filter.forward(y)))));
    const z = x.add(this.dropPath.forward(this.attn!.forward(y)));
    return z.add(this.dropPath.forward(this.mlp.forward(this.norm2.forward(z))));
  }
}

const patch = 16;

/** How many blocks filter before the others attend: the paper's α. */
const spectral = 4;

export class SpectFormer extends Module implements Backbone {
  readonly channels: readonly number[];
  readonly strides = [patch];
  readonly dim: number;
  readonly headName = "head";
  posEmbed;
  patchEmbed;
  blocks;
  norm;
  constructor(config: PlainConfig, options: BackboneOptions = {}) {
    super();
    const { imageSize = 224, inChannels = 3, dropPath = 0 } = options;
    const { dim, depth } = config;
    const [height, width] = sides(imageSize).map((s) => Math.ceil(s / patch));
    this.channels = [dim];
    this.dim = dim;
    this.posEmbed = this.param([1, height * width, dim], normal(), positions([height, width], 0));
    this.patchEmbed = new PatchEmbed(inChannels, dim, patch);
    this.blocks = dropPathRates(depth, dropPath).map(
      (rate, i) => new PlainBlock(config, i < spectral ? [height, width] : undefined, rate),
    );
    this.norm = new LayerNorm(dim, { eps });
  }
  /** [N, 3, H, W] -> [N, H / 16, W / 16, C] */
  #map(image: Tensor): Tensor {
    const patches = this.patchEmbed.forward(image);
    const [, height, width, dim] = patches.shape;
    if (known(height) * known(width) !== this.posEmbed.shape[1])
      throw new UsageError({
        message: `this model places ${this.posEmbed.shape[1]} patches, the image has ${height} × ${width}`,
        help: `make it with imageSize: [${image.shape.slice(2).join(", ")}]`,
      });
    const placed = patches.add(this.posEmbed.reshape([1, height, width, dim]));
    return this.norm.forward(this.blocks.reduce((x, block) => block.forward(x), placed));
  }
  forward(image: Tensor): Tensor[] {
    return [channelsFirst(this.#map(image))];
  }
  embed(image: Tensor): Tensor {
    return this.#map(image).mean([1, 2]);
  }
}

/** Of the pyramid: queries, and keys with values, are layers of their own.  q: [N, M, C], x: [N, L, C] -> [N, M, C] */
class CrossAttention extends Module {
  q;
  kv;
  proj;
  readonly #heads;
  constructor(dim: number, heads: number) {
    super();
    this.#heads = heads;
    this.q = new Linear(dim, dim);
    this.kv = new Linear(dim, 2 * dim);
    this.proj = new Linear(dim, dim);
  }
  forward(from: Tensor, x: Tensor): Tensor {
    const scale = (known(x.shape[2]) / this.#heads) ** -0.5;
    const q = linear(from, this.q.weight.mul(scale), this.q.bias?.mul(scale));
    const [k, v] = cutLinear(this.kv, x, 2);
    return this.proj.forward(attend(q, k, v, this.#heads));
  }
}

/** [N, H, W, C] -> [N, H, W, C] */
class MapAttention extends CrossAttention {
  override forward(x: Tensor): Tensor {
    const tokens = x.reshape([x.shape[0], -1, x.shape[3]]);
    return super.forward(tokens, tokens).reshape(x.shape);
  }
}

/** Filters or attends, then an MLP.  [N, H, W, C] -> [N, H, W, C] */
class Block extends Module {
  norm1;
  norm2;
  attn;
  mlp;
  dropPath;
  constructor(dim: number, mixer: SpectralGate | MapAttention, ratio: number, rate: number) {
    super();
    this.norm1 = new LayerNorm(dim, { eps });
    this.norm2 = new LayerNorm(dim, { eps });
    this.attn = mixer;
    this.mlp = new ConvMlp(dim, ratio * dim);
    this.dropPath = new DropPath(rate);
  }
  forward(x: Tensor): Tensor {
    const y = x.add(this.dropPath.forward(this.attn.forward(this.norm1.forward(x))));
    return y.add(this.dropPath.forward(this.mlp.forward(this.norm2.forward(y))));
  }
}

/** Four convolutions.  [N, 3, H, W] -> [N, H / 4, W / 4, C] */
class Stem extends Module {
  readonly #convs;
  readonly #norms;
  readonly #proj;
  readonly #norm;
  constructor(inChannels: number, hidden: number, dim: number) {
    super();
    this.#convs = [
      convolution(inChannels, hidden, 7, { stride: 2, bias: false }),
      convolution(hidden, hidden, 3, { bias: false }),
      convolution(hidden, hidden, 3, { bias: false }),
    ];
    this.#norms = this.#convs.map(() => new BatchNorm2d(hidden));
    this.#proj = convolution(hidden, dim, 3, { stride: 2 });
    this.#norm = new LayerNorm(dim);
  }
  override *parts(): Iterable<[string, Module]> {
    for (const [i, conv] of this.#convs.entries()) {
      yield [`conv.${3 * i}`, conv];
      yield [`conv.${3 * i + 1}`, this.#norms[i]];
    }
    yield ["proj", this.#proj];
    yield ["norm", this.#norm];
  }
  forward(image: Tensor): Tensor {
    const x = this.#convs.reduce((y, conv, i) => relu(this.#norms[i].forward(conv.forward(y))), image);
    return this.#norm.forward(channelsLast(this.#proj.forward(x)));
  }
}

/** The mean of all tokens attends to itself and to them, and comes out.  [N, L, C] -> [N, C] */
class ClassBlock extends Module {
  norm1;
  norm2;
  attn;
  mlp;
  constructor(dim: number, heads: number) {
    super();
    this.norm1 = new LayerNorm(dim, { eps });
    this.norm2 = new LayerNorm(dim, { eps });
    this.attn = new CrossAttention(dim, heads);
    this.mlp = new Mlp(dim, 4 * dim);
  }
  forward(x: Tensor): Tensor {
    const mean = x.mean([1], true); // [N, 1, C]
    const all = this.norm1.forward(concat([mean, x], 1));
    const y = mean.add(this.attn.forward(all.slice(1, 0, 1), all));
    return y.add(this.mlp.forward(this.norm2.forward(y))).squeeze(1);
  }
}

export class SpectFormerPyramid extends Module implements Backbone {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim: number;
  readonly headName = "head";
  readonly #embeddings: readonly (Stem | Downsample)[];
  readonly #blocks: readonly (readonly Block[])[];
  readonly #norms: readonly LayerNorm[];
  readonly #class;
  constructor({ stem, dims, depths, heads }: PyramidConfig, options: BackboneOptions = {}) {
    super();
    const { imageSize = 224, inChannels = 3, dropPath = 0 } = options;
    const rates = stageRates(depths, dropPath);
    this.channels = dims;
    this.strides = dims.map((_, i) => 4 * 2 ** i);
    this.dim = dims[dims.length - 1];
    let [height, width] = sides(imageSize).map((s) => Math.ceil(s / 2));
    this.#embeddings = dims.map((dim, i) =>
      i === 0 ? new Stem(inChannels, stem, dim) : new Downsample(dims[i - 1], dim),
    );
    this.#blocks = depths.map((_, i) => {
      [height, width] = [Math.ceil(height / 2), Math.ceil(width / 2)];
      const mixer = () => (i < 2 ? new SpectralGate(dims[i], [height, width]) : new MapAttention(dims[i], heads[i]));
      const ratio = i < 2 ? 8 : 4; // of the MLPs, as in the repository's configurations
      return rates[i].map((rate) => new Block(dims[i], mixer(), ratio, rate));
    });
    this.#norms = dims.map((dim) => new LayerNorm(dim, { eps }));
    this.#class = new ClassBlock(this.dim, heads[dims.length - 1]);
  }
  override *parts(): Iterable<[string, Module]> {
    for (const [i, blocks] of this.#blocks.entries()) {
      yield [`patch_embed${i + 1}`, this.#embeddings[i]];
      for (const [j, block] of blocks.entries()) yield [`block${i + 1}.${j}`, block];
      yield [`norm${i + 1}`, this.#norms[i]];
    }
    yield ["post_network.0", this.#class];
  }
  /** The maps of the stages, all but the last normalised.  [N, H, W, C] each */
  #maps(image: Tensor): Tensor[] {
    let x = image;
    return this.#blocks.map((blocks, i) => {
      const y = blocks.reduce((z, block) => block.forward(z), this.#embeddings[i].forward(x));
      x = i < this.#blocks.length - 1 ? this.#norms[i].forward(y) : y;
      return x;
    });
  }
  forward(image: Tensor): Tensor[] {
    const maps = this.#maps(image);
    const last = maps.length - 1;
    return maps.map((map, i) => channelsFirst(i === last ? this.#norms[last].forward(map) : map));
  }
  embed(image: Tensor): Tensor {
    const maps = this.#maps(image);
    const last = maps.length - 1;
    const tokens = maps[last].reshape([image.shape[0], -1, this.dim]);
    return this.#norms[last].forward(this.#class.forward(tokens));
  }
}

export const paper = "Patro et al., SpectFormer (2023), https://arxiv.org/abs/2304.06446";

const preprocessing = { cropPct: 0.9 };
const wide = { depths: [3, 4, 12, 3], dims: [64, 128, 320, 512], heads: [2, 4, 10, 16], stem: 64 };

/**
 * Plain and pyramid sizes of the official repository.  Its plain file has 6 heads for every width, which only divides 384: here each
 * head has 64 channels, as there.
 */
export const variants: Record<string, Variant<PlainConfig | PyramidConfig>> = {
  spectformer_ti_224: { config: { dim: 256, depth: 12, heads: 4 }, preprocessing },
  spectformer_xs_224: { config: { dim: 384, depth: 12, heads: 6 }, preprocessing },
  spectformer_s_224: { config: { dim: 384, depth: 19, heads: 6 }, preprocessing },
  spectformer_b_224: { config: { dim: 512, depth: 19, heads: 8 }, preprocessing },
  spectformer_h_s_224: {
    config: { depths: [3, 4, 6, 3], dims: [64, 128, 320, 448], heads: [2, 4, 10, 14], stem: 32 },
    preprocessing,
  },
  spectformer_h_b_224: { config: wide, preprocessing },
  spectformer_h_l_224: {
    config: { ...wide, depths: [3, 6, 18, 3], dims: [96, 192, 384, 512], heads: [3, 6, 12, 16] },
    preprocessing,
  },
};

export const create = (config: PlainConfig | PyramidConfig, options: BackboneOptions): Backbone =>
  "dims" in config ? new SpectFormerPyramid(config, options) : new SpectFormer(config, options);
