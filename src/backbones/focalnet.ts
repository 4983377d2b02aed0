/**
 * FocalNet: each place is modulated by its context, gathered over growing neighbourhoods by depthwise convolutions and gated.
 * Yang et al., "Focal Modulation Networks" (NeurIPS 2022), https://arxiv.org/abs/2203.11926.  Parameter paths are timm's.
 */
import type { Tensor } from "../graph/tensor.ts";
import { normal } from "../nn/init.ts";
import { Conv2d, DropPath, LayerNorm, LayerScale } from "../nn/layers.ts";
import { channelsFirst } from "../nn/layout.ts";
import { Module } from "../nn/module.ts";
import { gelu } from "../ops/elementwise.ts";
import { linear } from "../ops/linalg.ts";
import { type Backbone, type BackboneOptions, stageRates, throughStages, type Variant } from "./backbone.ts";

export interface FocalNetConfig {
  dim: number;
  depths: readonly number[];
  /** How many neighbourhoods, beside the whole map. */
  levels: number;
  /** Side of the first; each next one is wider by 2. */
  window: number;
  /** The large models: norms after the branches, layer scale, overlapping patches. */
  large?: boolean;
  /** The huge models also normalise what is modulated. */
  normModulated?: boolean;
}

const init = normal();

/** A linear layer that checkpoints keep as a convolution over one pixel.  [...B, I] -> [...B, O] */
class Pointwise extends Conv2d {
  constructor(inputs: number, outputs: number) {
    super(inputs, outputs, { kernel: 1, init });
  }
  override forward(x: Tensor): Tensor {
    return linear(x, this.weight.reshape(this.weight.shape.slice(0, 2)), this.bias);
  }
  /** Some of its outputs. */
  part(x: Tensor, start: number, end: number): Tensor {
    const weight = this.weight.reshape(this.weight.shape.slice(0, 2)).slice(0, start, end);
    return linear(x, weight, this.bias?.slice(0, start, end));
  }
}

/** A depthwise convolution, then GELU: one level of context (equation 5).  [N, C, H, W] -> [N, C, H, W] */
class Level extends Module {
  readonly #conv;
  constructor(dim: number, kernel: number) {
    super();
    this.#conv = new Conv2d(dim, dim, { kernel, padding: Math.floor(kernel / 2), groups: dim, bias: false, init });
  }
  override *parts(): Iterable<[string, Module]> {
    yield ["0", this.#conv];
  }
  forward(x: Tensor): Tensor {
    return gelu(this.#conv.forward(x));
  }
}

/** Focal modulation (section 3.2, equation 7).  [N, H, W, C] -> [N, H, W, C] */
class Modulation extends Module {
  f;
  h;
  proj;
  focalLayers;
  norm;
  readonly #dim;
  constructor(dim: number, { levels, window, normModulated }: FocalNetConfig) {
    super();
    this.#dim = dim;
    this.f = new Pointwise(dim, 2 * dim + levels + 1);
    this.h = new Pointwise(dim, dim);
    this.proj = new Pointwise(dim, dim);
    this.focalLayers = Array.from({ length: levels }, (_, level) => new Level(dim, window + 2 * level));
    this.norm = normModulated ? new LayerNorm(dim) : undefined;
  }
  forward(x: Tensor): Tensor {
    const dim = this.#dim;
    const query = this.f.part(x, 0, dim);
    const gates = this.f.part(x, 2 * dim, 2 * dim + this.focalLayers.length + 1).permute(0, 3, 1, 2); // [N, levels + 1, H, W]
    let context = this.f.part(x, dim, 2 * dim).permute(0, 3, 1, 2);
    const gathered = this.focalLayers.map((level, i) => {
      context = level.forward(context);
      return context.mul(gates.slice(1, i, i + 1));
    });
    const last = this.focalLayers.length;
    const whole = gelu(context.mean([2, 3], true)).mul(gates.slice(1, last, last + 1));
    const all = gathered
      .reduce((sum, y) => sum.add(y))
      .add(whole)
      .permute(0, 2, 3, 1);
    const modulated = query.mul(this.h.forward(all));
    return this.proj.forward(this.norm?.forward(modulated) ?? modulated);
  }
}

class Mlp extends Module {
  fc1;
  fc2;
  constructor(dim: number) {
    super();
    this.fc1 = new Pointwise(dim, 4 * dim);
    this.fc2 = new Pointwise(4 * dim, dim);
  }
  forward(x: Tensor): Tensor {
    return this.fc2.forward(gelu(this.fc1.forward(x)));
  }
}

/** Focal modulation in the place of attention, then an MLP.  [N, H, W, C] -> [N, H, W, C] */
class Block extends Module {
  norm1;
  modulation;
  norm1Post;
  ls1;
  norm2;
  mlp;
  norm2Post;
  ls2;
  dropPath;
  constructor(dim: number, config: FocalNetConfig, rate: number) {
    super();
    const { large = false } = config;
    const norm = (wanted: boolean) => (wanted ? new LayerNorm(dim) : undefined);
    const scale = () => (large ? new LayerScale(dim, 1e-4) : undefined);
    this.norm1 = norm(!large);
    this.modulation = new Modulation(dim, config);
    this.norm1Post = norm(large);
    this.ls1 = scale();
    this.norm2 = norm(!large);
    this.mlp = new Mlp(dim);
    this.norm2Post = norm(large);
    this.ls2 = scale();
    this.dropPath = new DropPath(rate);
  }
  forward(x: Tensor): Tensor {
    const mixed = through(this.modulation.forward(through(x, this.norm1)), this.norm1Post, this.ls1);
    const y = x.add(this.dropPath.forward(mixed));
    return y.add(this.dropPath.forward(through(this.mlp.forward(through(y, this.norm2)), this.norm2Post, this.ls2)));
  }
}

/** x through the layers that are there. */
const through = (x: Tensor, ...layers: readonly (LayerNorm | LayerScale | undefined)[]): Tensor =>
  layers.reduce((y, layer) => layer?.forward(y) ?? y, x);

/** To fewer places by a convolution; then a norm.  [N, C, H, W] -> [N, H', W', C'] */
class Embedding extends Module {
  proj;
  norm;
  constructor(from: number, to: number, stride: number, overlaps: boolean) {
    super();
    const [kernel, padding] = !overlaps ? [stride, 0] : stride === 4 ? [7, 2] : [3, 1];
    this.proj = new Conv2d(from, to, { kernel, stride, padding, init });
    this.norm = new LayerNorm(to);
  }
  forward(x: Tensor): Tensor {
    return this.norm.forward(this.proj.forward(x).permute(0, 2, 3, 1));
  }
}

/** Blocks at one resolution.  [N, H, W, C] -> [N, H', W', C'] */
class Stage extends Module {
  downsample;
  blocks;
  constructor(dim: number, first: boolean, config: FocalNetConfig, rates: readonly number[]) {
    super();
    this.downsample = first ? undefined : new Embedding(dim / 2, dim, 2, config.large ?? false);
    this.blocks = rates.map((rate) => new Block(dim, config, rate));
  }
  forward(x: Tensor): Tensor {
    const start = this.downsample?.forward(x.permute(0, 3, 1, 2)) ?? x;
    return this.blocks.reduce((y, block) => block.forward(y), start);
  }
}

export class FocalNet extends Module implements Backbone {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim: number;
  readonly headName = "head.fc";
  stem;
  layers;
  norm;
  constructor(config: FocalNetConfig, options: BackboneOptions = {}) {
    super();
    const { dim, depths, large = false } = config;
    const { inChannels = 3, dropPath = 0 } = options;
    const rates = stageRates(depths, dropPath);
    this.channels = depths.map((_, i) => dim * 2 ** i);
    this.strides = depths.map((_, i) => 4 * 2 ** i);
    this.dim = this.channels[depths.length - 1];
    this.stem = new Embedding(inChannels, dim, 4, large);
    this.layers = depths.map((_, i) => new Stage(this.channels[i], i === 0, config, rates[i]));
    this.norm = new LayerNorm(this.dim);
  }
  #maps(image: Tensor): Tensor[] {
    return throughStages(this.layers, this.stem.forward(image));
  }
  forward(image: Tensor): Tensor[] {
    return this.#maps(image).map(channelsFirst);
  }
  embed(image: Tensor): Tensor {
    const maps = this.#maps(image);
    return this.norm.forward(maps[maps.length - 1]).mean([1, 2], false);
  }
}

export const paper = "Yang et al., Focal Modulation Networks (2022), https://arxiv.org/abs/2203.11926";

const tiny = { dim: 96, depths: [2, 2, 6, 2] };
const small = { dim: 96, depths: [2, 2, 18, 2] };
const base = { dim: 128, depths: [2, 2, 18, 2] };
const large = { dim: 192, depths: [2, 2, 18, 2], large: true };
const xlarge = { ...large, dim: 256 };
const huge = { ...large, dim: 352, normModulated: true };
const srf = { levels: 2, window: 3 };
const lrf = { levels: 3, window: 3 };
const fl3 = { levels: 3, window: 5 };
const fl4 = { levels: 4, window: 3 };
const at224 = { cropPct: 0.9 };
const at384 = { imageSize: 384, cropPct: 1 };

/** As its authors count the classes: one more than others do. */
const imagenet22k = 21842;

/** Section 4.1 (srf and lrf: small and large receptive fields) and table 5 (fl3 and fl4: focal levels). */
export const variants: Record<string, Variant<FocalNetConfig>> = {
  focalnet_tiny_srf: { config: { ...tiny, ...srf }, preprocessing: at224 },
  focalnet_small_srf: { config: { ...small, ...srf }, preprocessing: at224 },
  focalnet_base_srf: { config: { ...base, ...srf }, preprocessing: at224 },
  focalnet_tiny_lrf: { config: { ...tiny, ...lrf }, preprocessing: at224 },
  focalnet_small_lrf: { config: { ...small, ...lrf }, preprocessing: at224 },
  focalnet_base_lrf: { config: { ...base, ...lrf }, preprocessing: at224 },
  focalnet_large_fl3: { config: { ...large, ...fl3 }, preprocessing: at384, classes: imagenet22k },
  focalnet_large_fl4: { config: { ...large, ...fl4 }, preprocessing: at384, classes: imagenet22k },
  focalnet_xlarge_fl3: { config: { ...xlarge, ...fl3 }, preprocessing: at384, classes: imagenet22k },
  focalnet_xlarge_fl4: { config: { ...xlarge, ...fl4 }, preprocessing: at384, classes: imagenet22k },
  focalnet_huge_fl3: { config: { ...huge, ...lrf }, preprocessing: at224, classes: imagenet22k },
  focalnet_huge_fl4: { config: { ...huge, ...fl4 }, preprocessing: at224, classes: 0 },
};

export const create = (config: FocalNetConfig, options: BackboneOptions): FocalNet => new FocalNet(config, options);
