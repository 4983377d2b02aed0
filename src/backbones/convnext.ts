/**
 * ConvNeXt: a pyramid of depthwise convolutions, each followed by an MLP at every place.
 * Liu et al., "A ConvNet for the 2020s" (CVPR 2022), https://arxiv.org/abs/2201.03545; with response normalisation instead of layer scale
 * it is Woo et al., "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders" (CVPR 2023),
 * https://arxiv.org/abs/2301.00808.  Parameter paths are timm's.
 */
import { known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { fixed, normal, ones, zeros } from "../nn/init.ts";
import { Conv2d, DropPath, GlobalResponseNorm, Identity, LayerNorm, Linear } from "../nn/layers.ts";
import { channelsFirst } from "../nn/layout.ts";
import { Module } from "../nn/module.ts";
import { gelu } from "../ops/elementwise.ts";
import { linear } from "../ops/linalg.ts";
import { rmsNorm } from "../ops/norm.ts";
import { type Backbone, type BackboneOptions, stageRates, throughStages, type Variant } from "./backbone.ts";
import { divisible } from "./mobile.ts";
import { below, type FamilyNames, type NameMap, type NamePair } from "./names.ts";

export interface ConvNeXtConfig {
  depths: readonly number[];
  dims: readonly number[];
  /** V2: global response normalisation inside the MLPs, and no layer scale. */
  grn?: boolean;
  /** Whether checkpoints keep the MLPs as convolutions over one pixel. */
  convMlp?: boolean;
  /** Of 4 × 4 pixels, or two convolutions over 3 × 3: as wide as the first stage, half as wide first, or with GELU between. */
  stem?: "patch" | "overlap" | "overlap_tiered" | "overlap_act";
  norm?: "layer" | "rms" | "simple";
  eps?: number;
  /** The last map is normalised before its mean is taken, not after. */
  normFirst?: boolean;
  /** Width of a layer before the classifier. */
  headHidden?: number;
}

/** Normalises the last axis by its root mean square ("rms") or its deviation ("simple"), and keeps its mean.  [...B, D] */
class ScaleNorm extends Module {
  weight;
  readonly #kind;
  readonly #eps;
  constructor(dim: number, kind: "rms" | "simple", eps: number) {
    super();
    this.#kind = kind;
    this.#eps = eps;
    this.weight = this.param([dim], ones);
  }
  forward(x: Tensor): Tensor {
    if (this.#kind === "rms") return rmsNorm(x, this.weight, this.#eps);
    const dim = known(x.shape[x.rank - 1]);
    const variance = x
      .sub(x.mean([-1], true))
      .square()
      .sum([-1], true)
      .mul(1 / (dim - 1));
    return x.mul(variance.add(this.#eps).sqrt().reciprocal()).mul(this.weight);
  }
}

const createNorm = (dim: number, { norm = "layer", eps = 1e-6 }: ConvNeXtConfig): LayerNorm | ScaleNorm =>
  norm === "layer" ? new LayerNorm(dim, { eps }) : new ScaleNorm(dim, norm, eps);

/** A linear layer over the last axis that checkpoints may keep as a convolution over one pixel.  [...B, I] -> [...B, O] */
class Pointwise extends Module {
  weight;
  bias;
  constructor(inputs: number, outputs: number, asConv: boolean) {
    super();
    this.weight = this.param(asConv ? [outputs, inputs, 1, 1] : [outputs, inputs], normal());
    this.bias = this.param([outputs], zeros);
  }
  /** `scale` multiplies what comes out, a number for each channel: given to the weights it costs next to nothing. */
  forward(x: Tensor, scale?: Tensor): Tensor {
    const weight = this.weight.reshape(this.weight.shape.slice(0, 2));
    if (!scale) return linear(x, weight, this.bias);
    return linear(x, weight.mul(scale.reshape([-1, 1])), this.bias.mul(scale));
  }
}

/** Two layers, GELU between, and in V2 response normalisation (V2, section 3).  [N, H, W, C] -> [N, H, W, C] */
class Mlp extends Module {
  fc1;
  grn;
  fc2;
  constructor(dim: number, { grn = false, convMlp = false }: ConvNeXtConfig) {
    super();
    this.fc1 = new Pointwise(dim, 4 * dim, convMlp);
    this.grn = grn ? new GlobalResponseNorm(4 * dim) : new Identity();
    this.fc2 = new Pointwise(4 * dim, dim, convMlp);
  }
  forward(x: Tensor, scale?: Tensor): Tensor {
    return this.fc2.forward(this.grn.forward(gelu(this.fc1.forward(x))), scale);
  }
}

/** A convolution over a map whose channels lie last.  [N, H, W, C] -> [N, H', W', C'] */
const convolve = (conv: Conv2d, x: Tensor): Tensor => conv.forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1);

/** Mixes space, then channels; scales and adds back (figure 4).  [N, H, W, C] -> [N, H, W, C] */
class Block extends Module {
  gamma;
  convDw;
  norm;
  mlp;
  dropPath;
  constructor(dim: number, config: ConvNeXtConfig, rate: number) {
    super();
    this.gamma = config.grn ? undefined : this.param([dim], fixed(1e-6)); // layer scale
    this.convDw = new Conv2d(dim, dim, { kernel: 7, padding: 3, groups: dim, init: normal() });
    this.norm = createNorm(dim, config);
    this.mlp = new Mlp(dim, config);
    this.dropPath = new DropPath(rate);
  }
  forward(x: Tensor): Tensor {
    const y = this.norm.forward(convolve(this.convDw, x));
    return x.add(this.dropPath.forward(this.mlp.forward(y, this.gamma)));
  }
}

/** Pixels to vectors (section 2.2); the overlapping stems are timm's.  [N, 3, H, W] -> [N, H / 4, W / 4, C] */
class Stem extends Module {
  readonly #steps: readonly Module[];
  readonly #convs: readonly Conv2d[];
  readonly #norm;
  readonly #act;
  constructor(inChannels: number, config: ConvNeXtConfig) {
    super();
    const { stem = "patch", dims } = config;
    const middle = stem === "overlap_tiered" ? divisible(dims[0] / 2) : dims[0];
    const init = normal();
    const halve = (from: number, to: number) => new Conv2d(from, to, { kernel: 3, stride: 2, padding: 1, init });
    this.#convs =
      stem === "patch"
        ? [new Conv2d(inChannels, dims[0], { kernel: 4, stride: 4, init })]
        : [halve(inChannels, middle), halve(middle, dims[0])];
    this.#norm = createNorm(dims[0], config);
    this.#act = stem === "overlap_act";
    // The activation has a number of its own in checkpoints.
    this.#steps = [...(this.#act ? [this.#convs[0], new Identity(), this.#convs[1]] : this.#convs), this.#norm];
  }
  override *parts(): Iterable<[string, Module]> {
    for (const [i, step] of this.#steps.entries()) yield [`${i}`, step];
  }
  forward(image: Tensor): Tensor {
    const [first, ...others] = this.#convs;
    const x = others.reduce((y, conv) => conv.forward(this.#act ? gelu(y) : y), first.forward(image));
    return this.#norm.forward(x.permute(0, 2, 3, 1));
  }
}

/** Blocks at one resolution; all but the first stage halve it before.  [N, H, W, C] -> [N, H', W', C'] */
class Stage extends Module {
  downsample;
  blocks;
  constructor(from: number, dim: number, first: boolean, config: ConvNeXtConfig, rates: readonly number[]) {
    super();
    this.downsample = first
      ? undefined
      : ([createNorm(from, config), new Conv2d(from, dim, { kernel: 2, stride: 2, init: normal() })] as const);
    this.blocks = rates.map((rate) => new Block(dim, config, rate));
  }
  forward(x: Tensor): Tensor {
    const [norm, conv] = this.downsample ?? [];
    const start = norm && conv ? convolve(conv, norm.forward(x)) : x;
    return this.blocks.reduce((y, block) => block.forward(y), start);
  }
}

/** What stands between the mean of the last map and the classifier.  [N, C] -> [N, D] */
class Head extends Module {
  norm;
  preLogits;
  constructor(dim: number, config: ConvNeXtConfig) {
    super();
    this.norm = config.normFirst ? undefined : createNorm(dim, config);
    this.preLogits = config.headHidden ? new PreLogits(dim, config.headHidden) : undefined;
  }
  forward(x: Tensor): Tensor {
    const y = this.norm?.forward(x) ?? x;
    return this.preLogits?.forward(y) ?? y;
  }
}

class PreLogits extends Module {
  fc;
  constructor(dim: number, hidden: number) {
    super();
    this.fc = new Linear(dim, hidden);
  }
  forward(x: Tensor): Tensor {
    return gelu(this.fc.forward(x));
  }
}

export class ConvNeXt extends Module implements Backbone {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim: number;
  readonly headName = "head.fc";
  stem;
  stages;
  normPre;
  head;
  constructor(config: ConvNeXtConfig, options: BackboneOptions = {}) {
    super();
    const { depths, dims, normFirst, headHidden } = config;
    const { inChannels = 3, dropPath = 0 } = options;
    const rates = stageRates(depths, dropPath);
    const last = dims[dims.length - 1];
    this.channels = dims;
    this.strides = dims.map((_, i) => 4 * 2 ** i);
    this.dim = headHidden ?? last;
    this.stem = new Stem(inChannels, config);
    this.stages = depths.map((_, i) => new Stage(dims[Math.max(0, i - 1)], dims[i], i === 0, config, rates[i]));
    this.normPre = normFirst ? createNorm(last, config) : undefined;
    this.head = new Head(last, config);
  }
  #maps(image: Tensor): Tensor[] {
    return throughStages(this.stages, this.stem.forward(image));
  }
  forward(image: Tensor): Tensor[] {
    return this.#maps(image).map(channelsFirst);
  }
  embed(image: Tensor): Tensor {
    const maps = this.#maps(image);
    const x = maps[maps.length - 1];
    return this.head.forward((this.normPre?.forward(x) ?? x).mean([1, 2], false));
  }
}

export const paper =
  "Liu et al., A ConvNet for the 2020s (2022), https://arxiv.org/abs/2201.03545; V2: Woo et al. (2023), https://arxiv.org/abs/2301.00808";

const zepto = { depths: [2, 2, 4, 2], dims: [32, 64, 128, 256], convMlp: true, norm: "simple" } as const;
const atto = { depths: [2, 2, 6, 2], dims: [40, 80, 160, 320], convMlp: true };
const femto = { depths: [2, 2, 6, 2], dims: [48, 96, 192, 384], convMlp: true };
const pico = { depths: [2, 2, 6, 2], dims: [64, 128, 256, 512], convMlp: true };
const nano = { depths: [2, 2, 8, 2], dims: [80, 160, 320, 640], convMlp: true };
const tiny = { depths: [3, 3, 9, 3], dims: [96, 192, 384, 768] };
const small = { depths: [3, 3, 27, 3], dims: [96, 192, 384, 768] };
const base = { depths: [3, 3, 27, 3], dims: [128, 256, 512, 1024] };
const large = { depths: [3, 3, 27, 3], dims: [192, 384, 768, 1536] };
const xlarge = { depths: [3, 3, 27, 3], dims: [256, 512, 1024, 2048] };
const xxlarge = { depths: [3, 4, 30, 3], dims: [384, 768, 1536, 3072], eps: 1e-5 };
const huge = { depths: [3, 3, 27, 3], dims: [352, 704, 1408, 2816] };

const wide = { cropPct: 0.95 };
const half = { mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5] } as const;
const clip = {
  cropPct: 1,
  mean: [0.48145466, 0.4578275, 0.40821073],
  std: [0.26862954, 0.26130258, 0.27577711],
} as const;

/** Section 3 (tiny to xlarge) and V2, table 16 (atto to huge); the other sizes, stems and norms are timm's. */
export const variants: Record<string, Variant<ConvNeXtConfig>> = {
  convnext_zepto_rms: { config: zepto, preprocessing: half },
  convnext_zepto_rms_ols: { config: { ...zepto, stem: "overlap_act" }, preprocessing: { ...half, cropPct: 0.9 } },
  convnext_atto: { config: atto },
  convnext_atto_ols: { config: { ...atto, stem: "overlap_tiered" } },
  convnext_atto_rms: { config: { ...atto, norm: "rms" } },
  convnext_femto: { config: femto },
  convnext_femto_ols: { config: { ...femto, stem: "overlap_tiered" } },
  convnext_pico: { config: pico },
  convnext_pico_ols: { config: { ...pico, stem: "overlap_tiered" }, preprocessing: wide },
  convnext_nano: { config: nano, preprocessing: wide },
  convnext_nano_ols: { config: { ...nano, stem: "overlap" }, preprocessing: wide },
  convnext_tiny_hnf: { config: { ...tiny, convMlp: true, normFirst: true }, preprocessing: wide },
  convnext_tiny: { config: tiny, preprocessing: wide },
  convnext_small: { config: small, preprocessing: wide },
  convnext_base: { config: base },
  convnext_large: { config: large },
  convnext_large_mlp: { config: { ...large, headHidden: 1536 }, preprocessing: { ...clip, imageSize: 320 } },
  convnext_xlarge: { config: xlarge },
  convnext_xxlarge: { config: xxlarge, preprocessing: { ...clip, imageSize: 256 } },
  convnextv2_atto: { config: { ...atto, grn: true } },
  convnextv2_femto: { config: { ...femto, grn: true } },
  convnextv2_pico: { config: { ...pico, grn: true } },
  convnextv2_nano: { config: { ...nano, grn: true } },
  convnextv2_tiny: { config: { ...tiny, grn: true } },
  convnextv2_small: { config: { ...small, grn: true } },
  convnextv2_base: { config: { ...base, grn: true } },
  convnextv2_large: { config: { ...large, grn: true } },
  convnextv2_huge: {
    config: { ...huge, grn: true },
    preprocessing: { imageSize: 384, cropPct: 1, cropMode: "squash" },
  },
};

/** Others have linear layers where timm convolves with kernels of 1, and global response norms that broadcast over [N, H, W, C]. */
const shape: NameMap["shape"] = (path, own) => {
  if (path.includes(".mlp.grn.")) return [1, 1, 1, ...own];
  return path.includes(".mlp.fc") ? own.slice(0, 2) : own;
};

const official: NameMap = {
  shape,
  pairs: [
    ["stem", "downsample_layers.0"],
    ["stages.{i}.downsample", "downsample_layers.{i}"],
    ...below("stages.{i}.blocks.{j}", "stages.{i}.{j}", [
      ["conv_dw", "dwconv"],
      ["mlp.fc{k}", "pwconv{k}"],
      ["mlp.grn.weight", "grn.gamma"],
      ["mlp.grn.bias", "grn.beta"],
      ["norm", "norm"],
      ["gamma", "gamma"],
    ]),
    ["head.norm", "norm"],
    ...below("head.fc", "head", [
      ["weight", "weight"],
      ["bias", "bias"],
    ]),
  ],
};

export const names = ({ grn }: ConvNeXtConfig): FamilyNames => {
  const root = grn ? "convnextv2" : "convnext";
  const pairs: NamePair[] = [
    ["stem.0", `${root}.embeddings.patch_embeddings`],
    ["stem.1", `${root}.embeddings.layernorm`],
    ["stages.{i}.downsample", `${root}.encoder.stages.{i}.downsampling_layer`],
    ...below("stages.{i}.blocks.{j}", `${root}.encoder.stages.{i}.layers.{j}`, [
      ["conv_dw", "dwconv"],
      ["norm", "layernorm"],
      ["mlp.fc{k}", "pwconv{k}"],
      ["mlp.grn", "grn"],
      ["gamma", "layer_scale_parameter"],
    ]),
    ["head.norm", `${root}.layernorm`],
    ["head.fc", "classifier"],
  ];
  return { official, transformers: { root: `${root}.`, pairs, shape } };
};

export const create = (config: ConvNeXtConfig, options: BackboneOptions): ConvNeXt => new ConvNeXt(config, options);
