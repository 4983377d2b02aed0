/**
 * Vision Transformer: an image as a sequence of patches.
 * Dosovitskiy et al., "An Image is Worth 16x16 Words" (ICLR 2021), https://arxiv.org/abs/2010.11929; with the sizes and the training of
 * Touvron et al., "Training data-efficient image transformers" (ICML 2021), https://arxiv.org/abs/2012.12877, it is DeiT; where DeiT
 * learned from a teacher it has a second token and a second classifier.
 * Parameter paths are timm's.
 */
import { UsageError } from "../base/errors.ts";
import { known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { positions } from "../nn/adapt.ts";
import { Attention } from "../nn/attention.ts";
import { normal } from "../nn/init.ts";
import { Conv2d, DropPath, LayerNorm, type Linear, Mlp } from "../nn/layers.ts";
import { channelsLast, complete } from "../nn/layout.ts";
import { Module } from "../nn/module.ts";
import { concat, expandBatch } from "../ops/move.ts";
import { type Backbone, type BackboneOptions, dropPathRates, imagenet, sides, type Variant } from "./backbone.ts";
import { below, type FamilyNames, inTransformers5, type NameMap, type NamePair, transformersBlock } from "./names.ts";

export interface ViTConfig {
  patch: number;
  dim: number;
  depth: number;
  heads: number;
  /** A second token learns what a teacher says, and a classifier of its own reads it (DeiT, section 4). */
  distilled?: boolean;
}

const eps = 1e-6;

/** Attention, then an MLP (equations 2 and 3).  [N, L, D] -> [N, L, D] */
class Block extends Module {
  norm1;
  attn;
  norm2;
  mlp;
  dropPath;
  constructor(dim: number, heads: number, rate: number) {
    super();
    this.norm1 = new LayerNorm(dim, { eps });
    this.attn = new Attention(dim, heads); // appendix A
    this.norm2 = new LayerNorm(dim, { eps });
    this.mlp = new Mlp(dim, 4 * dim);
    this.dropPath = new DropPath(rate);
  }
  forward(x: Tensor): Tensor {
    const y = x.add(this.dropPath.forward(this.attn.forward(this.norm1.forward(x))));
    return y.add(this.dropPath.forward(this.mlp.forward(this.norm2.forward(y))));
  }
}

/** Patches to vectors; zeros complete the last ones.  [N, 3, H, W] -> [N, H / P, W / P, D] */
export class PatchEmbed extends Module {
  proj;
  readonly #patch;
  constructor(inChannels: number, dim: number, patch: number) {
    super();
    this.#patch = patch;
    this.proj = new Conv2d(inChannels, dim, { kernel: patch, stride: patch });
  }
  forward(image: Tensor): Tensor {
    return channelsLast(this.proj.forward(complete(image, this.#patch)));
  }
}

export class ViT extends Module implements Backbone {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim: number;
  readonly headName = "head";
  readonly otherHeads?: readonly [string];
  readonly #grid: readonly number[];
  clsToken;
  distToken;
  posEmbed;
  patchEmbed;
  blocks;
  norm;
  constructor({ patch, dim, depth, heads, distilled }: ViTConfig, options: BackboneOptions = {}) {
    super();
    const { imageSize = 224, inChannels = 3, dropPath = 0 } = options;
    this.channels = [dim];
    this.strides = [patch];
    this.dim = dim;
    this.#grid = sides(imageSize).map((s) => Math.ceil(s / patch));
    this.clsToken = this.param([1, 1, dim], normal(1e-6));
    this.distToken = distilled ? this.param([1, 1, dim], normal()) : undefined;
    if (distilled) this.otherHeads = ["head_dist"];
    const extra = this.#classTokens.length;
    const rows = extra + this.#grid[0] * this.#grid[1];
    this.posEmbed = this.param([1, rows, dim], normal(), positions(this.#grid, extra));
    this.patchEmbed = new PatchEmbed(inChannels, dim, patch);
    this.blocks = dropPathRates(depth, dropPath).map((rate) => new Block(dim, heads, rate));
    this.norm = new LayerNorm(dim, { eps });
  }
  /** One token that stands for the whole image, or two. */
  get #classTokens(): Tensor[] {
    return this.distToken ? [this.clsToken, this.distToken] : [this.clsToken];
  }
  /** [N, 3, H, W] -> [N, 1 + patches, D], or 2 + patches; the class tokens come first. */
  #tokens(image: Tensor): Tensor {
    const patches = this.patchEmbed.forward(image); // [N, H / P, W / P, D]
    const grid = patches.shape.slice(1, 3);
    if (grid.some((s, i) => s !== this.#grid[i]))
      throw new UsageError({
        message: `this model places ${this.#grid.join(" × ")} patches, the image has ${grid.join(" × ")}`,
        help: `make it with imageSize: [${image.shape.slice(2).join(", ")}]`,
      });
    const sequence = patches.reshape([patches.shape[0], this.#grid[0] * this.#grid[1], this.dim]);
    const x = concat([...this.#classTokens.map((token) => expandBatch(token, image)), sequence], 1).add(this.posEmbed); // equation 1
    return this.norm.forward(this.blocks.reduce((y, block) => block.forward(y), x));
  }
  forward(image: Tensor): Tensor[] {
    const tokens = this.#tokens(image);
    const patches = tokens.slice(1, this.#classTokens.length, known(tokens.shape[1]));
    return [patches.reshape([tokens.shape[0], ...this.#grid, this.dim]).permute(0, 3, 1, 2)];
  }
  /** What each class token has become: [N, D]. */
  #summaries(image: Tensor): Tensor[] {
    const tokens = this.#tokens(image);
    return this.#classTokens.map((_, i) => tokens.slice(1, i, i + 1).squeeze(1));
  }
  embed(image: Tensor): Tensor {
    return mean(this.#summaries(image));
  }
  /** Each classifier reads a token of its own; they answer together as in DeiT, section 4. */
  logits(image: Tensor, heads: readonly Linear[]): Tensor {
    return mean(this.#summaries(image).map((token, i) => heads[i].forward(token)));
  }
}

const mean = (all: readonly Tensor[]): Tensor =>
  all.length === 1 ? all[0] : all.reduce((a, b) => a.add(b)).div(all.length);

export const paper =
  "Dosovitskiy et al., An Image is Worth 16x16 Words (2021), https://arxiv.org/abs/2010.11929; DeiT: Touvron et al. (2021), https://arxiv.org/abs/2012.12877";

const tiny = { dim: 192, depth: 12, heads: 3 };
const small = { dim: 384, depth: 12, heads: 6 };
const base = { dim: 768, depth: 12, heads: 12 };
const large = { dim: 1024, depth: 24, heads: 16 };
const huge = { dim: 1280, depth: 32, heads: 16 };

const half = [0.5, 0.5, 0.5] as const;
const at224 = { cropPct: 0.9, mean: half, std: half };
const at384 = { imageSize: 384, cropPct: 1, mean: half, std: half };
const likeImagenet = { mean: imagenet.mean, std: imagenet.std };

/** Table 1 (base, large, huge); Touvron et al., table 1 (tiny, small, base); the other patches are timm's. */
export const variants: Record<string, Variant<ViTConfig>> = {
  vit_tiny_patch16_224: { config: { patch: 16, ...tiny }, preprocessing: at224 },
  vit_tiny_patch16_384: { config: { patch: 16, ...tiny }, preprocessing: at384 },
  vit_small_patch32_224: { config: { patch: 32, ...small }, preprocessing: at224 },
  vit_small_patch32_384: { config: { patch: 32, ...small }, preprocessing: at384 },
  vit_small_patch16_224: { config: { patch: 16, ...small }, preprocessing: at224 },
  vit_small_patch16_384: { config: { patch: 16, ...small }, preprocessing: at384 },
  vit_small_patch8_224: { config: { patch: 8, ...small }, preprocessing: { ...at224, ...likeImagenet } },
  vit_base_patch32_224: { config: { patch: 32, ...base }, preprocessing: at224 },
  vit_base_patch32_384: { config: { patch: 32, ...base }, preprocessing: at384 },
  vit_base_patch16_224: { config: { patch: 16, ...base }, preprocessing: at224 },
  vit_base_patch16_384: { config: { patch: 16, ...base }, preprocessing: at384 },
  vit_base_patch8_224: { config: { patch: 8, ...base }, preprocessing: at224 },
  vit_large_patch32_224: { config: { patch: 32, ...large }, preprocessing: at224 },
  vit_large_patch32_384: { config: { patch: 32, ...large }, preprocessing: at384 },
  vit_large_patch16_224: { config: { patch: 16, ...large }, preprocessing: at224 },
  vit_large_patch16_384: { config: { patch: 16, ...large }, preprocessing: at384 },
  vit_large_patch14_224: { config: { patch: 14, ...large }, preprocessing: at224 },
  vit_huge_patch14_224: { config: { patch: 14, ...huge }, preprocessing: at224 },
  deit_tiny_patch16_224: { config: { patch: 16, ...tiny }, preprocessing: { ...at224, ...likeImagenet } },
  deit_small_patch16_224: { config: { patch: 16, ...small }, preprocessing: { ...at224, ...likeImagenet } },
  deit_base_patch16_224: { config: { patch: 16, ...base }, preprocessing: { ...at224, ...likeImagenet } },
  deit_base_patch16_384: { config: { patch: 16, ...base }, preprocessing: { ...at384, ...likeImagenet } },
  deit_tiny_distilled_patch16_224: {
    config: { patch: 16, ...tiny, distilled: true },
    preprocessing: { ...at224, ...likeImagenet },
  },
  deit_small_distilled_patch16_224: {
    config: { patch: 16, ...small, distilled: true },
    preprocessing: { ...at224, ...likeImagenet },
  },
  deit_base_distilled_patch16_224: {
    config: { patch: 16, ...base, distilled: true },
    preprocessing: { ...at224, ...likeImagenet },
  },
  deit_base_distilled_patch16_384: {
    config: { patch: 16, ...base, distilled: true },
    preprocessing: { ...at384, ...likeImagenet },
  },
};

/** DeiT's repository has timm's names; those of the paper's own, in JAX, lie in files of another kind. */
export const names = ({ distilled }: ViTConfig): FamilyNames => {
  const root = distilled ? "deit" : "vit"; // Without a second token DeiT is published as a ViT.
  const heads: NamePair[] = distilled
    ? [
        ["head", "cls_classifier"],
        ["head_dist", "distillation_classifier"],
      ]
    : [["head", "classifier"]];
  const transformers: NameMap = {
    root: `${root}.`,
    pairs: [
      ["cls_token", `${root}.embeddings.cls_token`],
      ["dist_token", `${root}.embeddings.distillation_token`],
      ["pos_embed", `${root}.embeddings.position_embeddings`],
      ["patch_embed.proj", `${root}.embeddings.patch_embeddings.projection`],
      ...below("blocks.{i}", `${root}.encoder.layer.{i}`, transformersBlock("attention.attention")),
      ["norm", `${root}.layernorm`],
      ...heads,
    ],
  };
  return { transformers, "transformers 5": inTransformers5(transformers) };
};

export const create = (config: ViTConfig, options: BackboneOptions): ViT => new ViT(config, options);
