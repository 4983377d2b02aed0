/**
 * PoolFormer: a transformer's pyramid whose tokens are mixed by average pooling.
 * Yu et al., "MetaFormer Is Actually What You Need for Vision" (CVPR 2022), https://arxiv.org/abs/2111.11418; the second version is from
 * Yu et al., "MetaFormer Baselines for Vision" (TPAMI 2024), https://arxiv.org/abs/2210.13452.  Parameter paths are timm's.
 */
import { known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { attend, projections } from "../nn/attention.ts";
import { fixed, normal, ones, zeros } from "../nn/init.ts";
import { Conv2d, DropPath, GroupNorm, Identity, LayerNorm, Linear } from "../nn/layers.ts";
import { LayerNorm2d } from "../nn/layout.ts";
import { Module } from "../nn/module.ts";
import { gelu, relu } from "../ops/elementwise.ts";
import { averagePool } from "../ops/pool.ts";
import { type Backbone, type BackboneOptions, stageRates, throughStages, type Variant } from "./backbone.ts";

export interface PoolFormerConfig {
  depths: readonly number[];
  dims: readonly number[];
  /** First version: what the scales of the branches start from. */
  layerScale?: number;
  /** Second version: StarReLU, norms without bias before each convolution, scaled shortcuts in stages 3 and 4. */
  second?: boolean;
  /** Stride of the stem, 4 by default. */
  patch?: number;
}

export interface PoolFormerOptions extends BackboneOptions {
  /** What mixes the tokens: pooling, nothing, or attention, in the same skeleton (MetaFormer, table 5). */
  mixer?: "pooling" | "identity" | "attention";
}

const eps = 1e-6;
const init = normal();

/** The mean of 3 × 3 neighbours, less the token itself, which the shortcut adds (equation 4).  [N, C, H, W] -> [N, C, H, W] */
class Pooling extends Module {
  forward(x: Tensor): Tensor {
    return averagePool(x, { kernel: 3, stride: 1, padding: 1, countPadding: false }).sub(x);
  }
}

/** Each token attends to all, heads of up to 32.  [N, C, H, W] -> [N, C, H, W] */
class Attention extends Module {
  qkv;
  proj;
  readonly #heads;
  constructor(dim: number) {
    super();
    this.#heads = Math.ceil(dim / 32);
    this.qkv = new Linear(dim, 3 * dim, { bias: false });
    this.proj = new Linear(dim, dim, { bias: false });
  }
  forward(x: Tensor): Tensor {
    const [batch, dim] = [x.shape[0], known(x.shape[1])];
    const tokens = x.reshape([batch, dim, -1]).mT; // [N, L, C]
    const [q, k, v] = projections(this.qkv, tokens, this.#heads);
    const mixed = attend(q, k, v, this.#heads);
    return this.proj.forward(mixed).mT.reshape(x.shape);
  }
}

const mixers = { pooling: Pooling, identity: Identity, attention: Attention };

/** s relu(x)² + b with two learned numbers (Baselines, equation 6). */
class StarRelu extends Module {
  scale = this.param([1], ones);
  bias = this.param([1], zeros);
  forward(x: Tensor): Tensor {
    return relu(x).square().mul(this.scale).add(this.bias);
  }
}

class Gelu extends Module {
  forward(x: Tensor): Tensor {
    return gelu(x);
  }
}

/** Convolutions over one pixel with an activation between.  [N, C, H, W] -> [N, C, H, W] */
class Mlp extends Module {
  fc1;
  act;
  fc2;
  constructor(dim: number, second: boolean) {
    super();
    this.fc1 = new Conv2d(dim, 4 * dim, { kernel: 1, bias: !second, init });
    this.act = second ? new StarRelu() : new Gelu();
    this.fc2 = new Conv2d(4 * dim, dim, { kernel: 1, bias: !second, init });
  }
  forward(x: Tensor, scale?: Tensor): Tensor {
    return this.fc2.forward(this.act.forward(this.fc1.forward(x)), scale);
  }
}

/** A factor for each channel.  [N, C, H, W] */
class Scale extends Module {
  scale;
  constructor(dim: number, start: number) {
    super();
    this.scale = this.param([dim], fixed(start));
  }
  forward(x: Tensor): Tensor {
    return x.mul(this.scale.reshape([-1, 1, 1]));
  }
}

/** Mixes tokens, then channels (equations 2 and 3).  [N, C, H, W] -> [N, C, H, W] */
class Block extends Module {
  norm1;
  tokenMixer;
  layerScale1;
  resScale1;
  norm2;
  mlp;
  layerScale2;
  resScale2;
  dropPath;
  constructor(
    dim: number,
    { layerScale, second = false }: PoolFormerConfig,
    mixer: keyof typeof mixers,
    scaled: boolean,
    rate: number,
  ) {
    super();
    const norm = () => (second ? new GroupNorm(dim, { eps, bias: false }) : new GroupNorm(dim));
    const branch = () => (layerScale === undefined ? undefined : new Scale(dim, layerScale));
    const shortcut = () => (scaled ? new Scale(dim, 1) : undefined);
    this.norm1 = norm();
    this.tokenMixer = new mixers[mixer](dim);
    this.layerScale1 = branch();
    this.resScale1 = shortcut();
    this.norm2 = norm();
    this.mlp = new Mlp(dim, second);
    this.layerScale2 = branch();
    this.resScale2 = shortcut();
    this.dropPath = new DropPath(rate);
  }
  forward(x: Tensor): Tensor {
    const mixed = this.tokenMixer.forward(this.norm1.forward(x));
    const y = (this.resScale1?.forward(x) ?? x).add(this.dropPath.forward(this.layerScale1?.forward(mixed) ?? mixed));
    const z = this.mlp.forward(this.norm2.forward(y), this.layerScale2?.scale);
    return (this.resScale2?.forward(y) ?? y).add(this.dropPath.forward(z));
  }
}

/** An overlapping convolution to fewer places.  In the second version a norm follows the first and precedes the others. */
class Embedding extends Module {
  norm;
  conv;
  readonly #first;
  constructor(from: number, to: number, stride: number, first: boolean, second: boolean) {
    super();
    this.#first = first;
    this.norm = second ? new LayerNorm2d(first ? to : from, { eps, bias: false }) : undefined;
    const [kernel, padding] = stride === 4 ? [7, 2] : [3, 1];
    this.conv = new Conv2d(from, to, { kernel, stride, padding, init });
  }
  forward(x: Tensor): Tensor {
    const norm = (y: Tensor): Tensor => this.norm?.forward(y) ?? y;
    return this.#first ? norm(this.conv.forward(x)) : this.conv.forward(norm(x));
  }
}

/** Blocks at one resolution.  [N, C, H, W] -> [N, C', H', W'] */
class Stage extends Module {
  downsample;
  blocks;
  constructor(index: number, config: PoolFormerConfig, mixer: keyof typeof mixers, rates: readonly number[]) {
    super();
    const { dims, second = false } = config;
    this.downsample = index > 0 ? new Embedding(dims[index - 1], dims[index], 2, false, second) : undefined;
    this.blocks = rates.map((rate) => new Block(dims[index], config, mixer, second && index > 1, rate));
  }
  forward(x: Tensor): Tensor {
    return this.blocks.reduce((y, block) => block.forward(y), this.downsample?.forward(x) ?? x);
  }
}

/** The norm of what is classified.  [N, C] -> [N, C] */
class Head extends Module {
  norm;
  constructor(dim: number) {
    super();
    this.norm = new LayerNorm(dim, { eps });
  }
  forward(x: Tensor): Tensor {
    return this.norm.forward(x);
  }
}

export class PoolFormer extends Module implements Backbone {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim: number;
  readonly headName = "head.fc";
  stem;
  stages;
  head;
  constructor(config: PoolFormerConfig, options: PoolFormerOptions = {}) {
    super();
    const { depths, dims, second = false, patch = 4 } = config;
    const { inChannels = 3, dropPath = 0, mixer = "pooling" } = options;
    const rates = stageRates(depths, dropPath);
    this.channels = dims;
    this.strides = dims.map((_, i) => patch * 2 ** i);
    this.dim = dims[dims.length - 1];
    this.stem = new Embedding(inChannels, dims[0], patch, true, second);
    this.stages = depths.map((_, i) => new Stage(i, config, mixer, rates[i]));
    this.head = new Head(this.dim);
  }
  forward(image: Tensor): Tensor[] {
    return throughStages(this.stages, this.stem.forward(image));
  }
  embed(image: Tensor): Tensor {
    const maps = this.forward(image);
    return this.head.forward(maps[maps.length - 1].mean([2, 3]));
  }
}

export const paper =
  "Yu et al., MetaFormer Is Actually What You Need for Vision (2022), https://arxiv.org/abs/2111.11418; V2: Yu et al. (2022), https://arxiv.org/abs/2210.13452";

const small = [64, 128, 320, 512];
const medium = [96, 192, 384, 768];
const s12 = { depths: [2, 2, 6, 2], dims: small };
const s24 = { depths: [4, 4, 12, 4], dims: small };
const s36 = { depths: [6, 6, 18, 6], dims: small };
const m36 = { depths: [6, 6, 18, 6], dims: medium };
const m48 = { depths: [8, 8, 24, 8], dims: medium };
const at90 = { cropPct: 0.9 };
const at95 = { cropPct: 0.95 };
const whole = { cropPct: 1 };

/** Table 1; Baselines, section 3. */
export const variants: Record<string, Variant<PoolFormerConfig>> = {
  poolformer_s12: { config: { ...s12, layerScale: 1e-5 }, preprocessing: at90 },
  poolformer_s24: { config: { ...s24, layerScale: 1e-5 }, preprocessing: at90 },
  poolformer_s36: { config: { ...s36, layerScale: 1e-6 }, preprocessing: at90 },
  poolformer_m36: { config: { ...m36, layerScale: 1e-6 }, preprocessing: at95 },
  poolformer_m48: { config: { ...m48, layerScale: 1e-6 }, preprocessing: at95 },
  poolformerv2_s12: { config: { ...s12, second: true }, preprocessing: whole },
  poolformerv2_s24: { config: { ...s24, second: true }, preprocessing: whole },
  poolformerv2_s36: { config: { ...s36, second: true }, preprocessing: whole },
  poolformerv2_m36: { config: { ...m36, second: true }, preprocessing: whole },
  poolformerv2_m48: { config: { ...m48, second: true }, preprocessing: whole },
  poolformer_micro_32: {
    config: { depths: [2, 2, 2], dims: [32, 64, 128], layerScale: 0.1, patch: 2 },
    preprocessing: { imageSize: 32, cropPct: 1 },
  },
};

export const options = { mixer: ["pooling", "identity", "attention"] } as const;

export const create = (config: PoolFormerConfig, options: PoolFormerOptions): PoolFormer =>
  new PoolFormer(config, options);
