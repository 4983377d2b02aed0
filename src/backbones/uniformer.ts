/**
 * UniFormer: convolutions relate what is near in two shallow stages, attention what is far in two deep ones, in blocks of one form.
 * Li et al., "UniFormer: Unifying Convolution and Self-attention for Visual Recognition" (2022), https://arxiv.org/abs/2201.09450; with
 * token labels: Jiang et al. (2021), https://arxiv.org/abs/2104.10858.  Parameter paths are those of the official repository.
 */
import { known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { Attention } from "../nn/attention.ts";
import { fixed, normalFanIn } from "../nn/init.ts";
import { BatchNorm2d, Conv2d, DropPath, LayerNorm, type Linear, Mlp } from "../nn/layers.ts";
import { complete, normChannels } from "../nn/layout.ts";
import { Module } from "../nn/module.ts";
import { gelu } from "../ops/elementwise.ts";
import { type BackboneOptions, stageRates, type Variant } from "./backbone.ts";
import { type MixPatches, type TokenLabelled, type Tokens, tokenLogits } from "./token-labels.ts";

export interface UniFormerConfig {
  dims: readonly number[];
  depths: readonly number[];
  headDim: number;
  /** Side of the first patches, 4 by default. */
  patch?: number;
  /** Whether patches overlap: strided 3 × 3 convolutions make them (section 3.4). */
  overlapping?: boolean;
  /** Whether branches are scaled, channel by channel: in the two deep stages, or in all. */
  layerScale?: "deep" | "all";
  /** Whether a second classifier labels the patches. */
  tokenLabels?: boolean;
}

const eps = 1e-6;

const depthwise = (dim: number, kernel: number): Conv2d =>
  new Conv2d(dim, dim, { kernel, padding: (kernel - 1) / 2, groups: dim });

/** Two 1 × 1 convolutions.  [N, C, ...S] -> [N, C, ...S] */
class ConvMlp extends Module {
  fc1;
  fc2;
  constructor(dim: number) {
    super();
    this.fc1 = new Conv2d(dim, 4 * dim, { kernel: 1 });
    this.fc2 = new Conv2d(4 * dim, dim, { kernel: 1 });
  }
  forward(x: Tensor): Tensor {
    return this.fc2.forward(gelu(this.fc1.forward(x)));
  }
}

/** Places, then neighbours weighed by where they are, then an MLP (section 3.2).  [N, C, ...S] -> [N, C, ...S] */
class LocalBlock extends Module {
  posEmbed;
  norm1;
  conv1;
  attn;
  conv2;
  norm2;
  mlp;
  gamma_1;
  gamma_2;
  dropPath;
  constructor(dim: number, rate: number, layerScale: boolean) {
    super();
    this.posEmbed = depthwise(dim, 3);
    this.norm1 = new BatchNorm2d(dim);
    this.conv1 = new Conv2d(dim, dim, { kernel: 1 });
    this.attn = depthwise(dim, 5);
    this.conv2 = new Conv2d(dim, dim, { kernel: 1 });
    this.norm2 = new BatchNorm2d(dim);
    this.mlp = new ConvMlp(dim);
    this.gamma_1 = layerScale ? this.param([1, dim, 1, 1], fixed(1e-6)) : undefined;
    this.gamma_2 = layerScale ? this.param([1, dim, 1, 1], fixed(1e-6)) : undefined;
    this.dropPath = new DropPath(rate);
  }
  forward(x: Tensor): Tensor {
    const y = x.add(this.posEmbed.forward(x));
    const near = this.conv2.forward(this.attn.forward(this.conv1.forward(this.norm1.forward(y))));
    const z = y.add(this.dropPath.forward(scaled(near, this.gamma_1)));
    return z.add(this.dropPath.forward(scaled(this.mlp.forward(this.norm2.forward(z)), this.gamma_2)));
  }
}

/** Places, then attention to all, then an MLP (section 3.2).  [N, C, ...S] -> [N, C, ...S] */
class GlobalBlock extends Module {
  posEmbed;
  norm1;
  attn;
  norm2;
  mlp;
  gamma_1;
  gamma_2;
  dropPath;
  constructor(dim: number, heads: number, rate: number, layerScale: boolean) {
    super();
    this.posEmbed = depthwise(dim, 3);
    this.norm1 = new LayerNorm(dim, { eps });
    this.attn = new Attention(dim, heads);
    this.norm2 = new LayerNorm(dim, { eps });
    this.mlp = new Mlp(dim, 4 * dim);
    this.gamma_1 = layerScale ? this.param([dim], fixed(1e-6)) : undefined;
    this.gamma_2 = layerScale ? this.param([dim], fixed(1e-6)) : undefined;
    this.dropPath = new DropPath(rate);
  }
  forward(x: Tensor): Tensor {
    const map = x.add(this.posEmbed.forward(x));
    const tokens = flatten(map).mT; // [N, L, C]
    const y = tokens.add(this.dropPath.forward(scaled(this.attn.forward(this.norm1.forward(tokens)), this.gamma_1)));
    const z = y.add(this.dropPath.forward(scaled(this.mlp.forward(this.norm2.forward(y)), this.gamma_2)));
    return z.mT.reshape(map.shape);
  }
}

const scaled = (branch: Tensor, gamma?: Tensor): Tensor => (gamma ? branch.mul(gamma) : branch);

/** [N, C, ...S] -> [N, C, L] */
const flatten = (map: Tensor): Tensor =>
  map.reshape([map.shape[0], map.shape[1], map.shape.slice(2).reduce<number>((n, d) => n * known(d), 1)]);

/** Patches to vectors; zeros complete the last ones.  [N, C, H, W] -> [N, C', H / P, W / P] */
class PatchEmbed extends Module {
  norm;
  proj;
  readonly #patch;
  constructor(inputs: number, dim: number, patch: number) {
    super();
    this.#patch = patch;
    this.norm = new LayerNorm(dim);
    this.proj = new Conv2d(inputs, dim, { kernel: patch, stride: patch });
  }
  forward(x: Tensor): Tensor {
    return normChannels(this.norm, this.proj.forward(complete(x, this.#patch)));
  }
}

/** The same by convolutions that halve a map once for each of `dims`.  [N, C, H, W] -> [N, C', H / 2ⁿ, W / 2ⁿ] */
class OverlappingEmbed extends Module {
  readonly #convs: readonly Conv2d[];
  readonly #norms: readonly BatchNorm2d[];
  constructor(inputs: number, dims: readonly number[]) {
    super();
    this.#convs = dims.map(
      (dim, i) => new Conv2d(i === 0 ? inputs : dims[i - 1], dim, { kernel: 3, stride: 2, padding: 1 }),
    );
    this.#norms = dims.map((dim) => new BatchNorm2d(dim));
  }
  override *parts(): Iterable<[string, Module]> {
    for (const [i, conv] of this.#convs.entries()) {
      yield [`proj.${3 * i}`, conv];
      yield [`proj.${3 * i + 1}`, this.#norms[i]];
    }
  }
  forward(x: Tensor): Tensor {
    return this.#convs.reduce((y, conv, i) => this.#norms[i].forward(conv.forward(i === 0 ? y : gelu(y))), x);
  }
}

export class UniFormer extends Module implements TokenLabelled {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim: number;
  readonly headName = "head";
  readonly otherHeads?: readonly [string];
  readonly #embeddings: readonly (PatchEmbed | OverlappingEmbed)[];
  readonly #stages: readonly (readonly (LocalBlock | GlobalBlock)[])[];
  readonly #norm;
  constructor(config: UniFormerConfig, options: BackboneOptions = {}) {
    super();
    const { dims, depths, headDim, patch = 4, overlapping = false, layerScale, tokenLabels } = config;
    const { inChannels = 3, dropPath = 0 } = options;
    const rates = stageRates(depths, dropPath);
    this.channels = dims;
    this.strides = dims.map((_, i) => patch * 2 ** i);
    this.dim = dims[dims.length - 1];
    if (tokenLabels) this.otherHeads = ["aux_head"];
    this.#embeddings = dims.map((dim, i) => {
      const inputs = i === 0 ? inChannels : dims[i - 1];
      if (overlapping) return new OverlappingEmbed(inputs, i === 0 ? [dim / 2, dim] : [dim]);
      return new PatchEmbed(inputs, dim, i === 0 ? patch : 2);
    });
    this.#stages = depths.map((_, i) =>
      rates[i].map((rate) =>
        i < 2
          ? new LocalBlock(dims[i], rate, layerScale === "all")
          : new GlobalBlock(dims[i], dims[i] / headDim, rate, layerScale !== undefined),
      ),
    );
    this.#norm = new BatchNorm2d(this.dim);
  }
  override *parts(): Iterable<[string, Module]> {
    for (const [i, embedding] of this.#embeddings.entries()) yield [`patch_embed${i + 1}`, embedding];
    for (const [i, blocks] of this.#stages.entries())
      for (const [j, block] of blocks.entries()) yield [`blocks${i + 1}.${j}`, block];
    yield ["norm", this.#norm];
  }
  #maps(image: Tensor, mix: MixPatches = (patches) => patches): Tensor[] {
    let x = image;
    return this.#stages.map((blocks, i) => {
      const embedded = this.#embeddings[i].forward(x);
      const start = i === 0 ? mix(embedded) : embedded;
      x = blocks.reduce((y, block) => block.forward(y), start);
      return x;
    });
  }
  forward(image: Tensor): Tensor[] {
    return this.#maps(image);
  }
  embed(image: Tensor): Tensor {
    return this.tokens(image).whole;
  }
  tokens(image: Tensor, mix?: MixPatches): Tokens {
    const maps = this.#maps(image, mix);
    const map = this.#norm.forward(maps[maps.length - 1]);
    return { whole: flatten(map).mean([2]), patches: map.permute(0, 2, 3, 1) };
  }
  logits(image: Tensor, heads: readonly Linear[]): Tensor {
    return tokenLogits(this.tokens(image), heads);
  }
}

export const paper = "Li et al., UniFormer (2022), https://arxiv.org/abs/2201.09450";

const dims = [64, 128, 320, 512];
const small = { dims, depths: [3, 4, 8, 3] };
const smallPlus = { dims, depths: [3, 5, 9, 3], overlapping: true };
const base = { dims, depths: [5, 8, 20, 7] };
const large: UniFormerConfig = {
  dims: [128, 192, 448, 640],
  depths: [5, 10, 24, 7],
  headDim: 64,
  layerScale: "all",
  tokenLabels: true,
};
const labelled = { headDim: 32, tokenLabels: true };
const labelled64 = { headDim: 64, tokenLabels: true };
/** Token labels were learnt with timm 0.4.12's own preprocessing. */
const half = [0.5, 0.5, 0.5] as const;
const pictures = { cropPct: 0.9, mean: half, std: half };
const at384 = { ...pictures, imageSize: 384 };

/** Table 2 and the model zoo of the official repository; `tl` have learnt from token labels. */
export const variants: Record<string, Variant<UniFormerConfig>> = {
  uniformer_small_224: { config: { ...small, headDim: 64 } },
  uniformer_small_plus_224: { config: { ...smallPlus, headDim: 32 } },
  uniformer_small_plus_dim64_224: { config: { ...smallPlus, headDim: 64 } },
  uniformer_base_224: { config: { ...base, headDim: 64 } },
  uniformer_base_ls_224: { config: { ...base, headDim: 64, layerScale: "deep" } },
  uniformer_small_tl_224: { config: { ...small, ...labelled }, preprocessing: pictures },
  uniformer_small_plus_tl_224: { config: { ...smallPlus, ...labelled }, preprocessing: pictures },
  uniformer_base_tl_224: { config: { ...base, ...labelled }, preprocessing: pictures },
  uniformer_large_ls_tl_224: { config: large, preprocessing: pictures },
  uniformer_small_dim64_tl_224: { config: { ...small, ...labelled64 }, preprocessing: pictures },
  uniformer_small_plus_dim64_tl_224: { config: { ...smallPlus, ...labelled64 }, preprocessing: pictures },
  uniformer_base_dim64_tl_224: { config: { ...base, ...labelled64 }, preprocessing: pictures },
  uniformer_small_tl_384: { config: { ...small, ...labelled }, preprocessing: at384 },
  uniformer_small_plus_tl_384: { config: { ...smallPlus, ...labelled }, preprocessing: at384 },
  uniformer_base_tl_384: { config: { ...base, ...labelled }, preprocessing: at384 },
  uniformer_large_ls_tl_384: { config: large, preprocessing: at384 },
  uniformer_micro_32: {
    config: { dims: [16, 32, 64, 128], depths: [1, 1, 2, 1], headDim: 32, patch: 2 },
    init: normalFanIn,
    preprocessing: { imageSize: 32, cropPct: 1 },
  },
};

export const create = (config: UniFormerConfig, options: BackboneOptions): UniFormer => new UniFormer(config, options);
