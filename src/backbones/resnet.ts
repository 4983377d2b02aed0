/**
 * ResNet: blocks that add to what they are given, so that depth does no harm.
 * He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), https://arxiv.org/abs/1512.03385; with groups it is ResNeXt,
 * Xie et al. (2017), https://arxiv.org/abs/1611.05431, with more channels inside a Wide ResNet, Zagoruyko and Komodakis (2016),
 * https://arxiv.org/abs/1605.07146, and with a new stem, gates and other shortcuts ResNet-RS, Bello et al., "Revisiting ResNets: Improved
 * Training and Scaling Strategies" (NeurIPS 2021), https://arxiv.org/abs/2103.07579.  Parameter paths are timm's; those for CIFAR have the paths of the checkpoints in circulation.
 */
import type { Tensor } from "../graph/tensor.ts";
import { heNormal, type Initializer, uniformFanIn, zeros } from "../nn/init.ts";
import { BatchNorm2d, Conv2d, DropPath } from "../nn/layers.ts";
import { Module } from "../nn/module.ts";
import { SqueezeExcite } from "../nn/squeeze-excite.ts";
import type { ConvOptions } from "../ops/conv.ts";
import { relu } from "../ops/elementwise.ts";
import { averagePool, maxPool } from "../ops/pool.ts";
import { type Backbone, type BackboneOptions, stageRates, type Variant } from "./backbone.ts";
import type { FamilyNames } from "./names.ts";

export interface ResNetConfig {
  block: "basic" | "bottleneck";
  depths: readonly number[];
  dims: readonly number[];
  /** Groups of a bottleneck's 3 × 3 convolution, and the channels of each where dims are 64. */
  groups?: number;
  groupWidth?: number;
  /** For pictures of 32²: a 3 × 3 stem without pooling, and shortcuts without parameters (section 4.2). */
  small?: boolean;
  /** ResNet-RS: three 3 × 3 convolutions and one more instead of pooling, gated branches, shortcuts that average. */
  revisited?: boolean;
}

const convolution = (inputs: number, outputs: number, kernel: number, options: ConvOptions = {}): Conv2d =>
  new Conv2d(inputs, outputs, { kernel, padding: (kernel - 1) / 2, bias: false, init: heNormal, ...options });

/** The last norm of a branch starts at 0, so that every block starts as its shortcut.  Goyal et al. (2017), section 5.1. */
const lastNorm = (channels: number): BatchNorm2d => new BatchNorm2d(channels, { init: zeros });

/** Two 3 × 3 convolutions (figure 5, left).  [N, C, H, W] -> [N, C', H / stride, W / stride] */
class BasicBranch extends Module {
  conv1;
  bn1;
  conv2;
  bn2;
  constructor(inputs: number, dim: number, stride: number) {
    super();
    this.conv1 = convolution(inputs, dim, 3, { stride });
    this.bn1 = new BatchNorm2d(dim);
    this.conv2 = convolution(dim, dim, 3);
    this.bn2 = lastNorm(dim);
  }
  forward(x: Tensor): Tensor {
    const y = relu(this.bn1.forward(this.conv1.forward(x)));
    return this.bn2.forward(this.conv2.forward(y));
  }
}

/** 1 × 1 to fewer channels, 3 × 3, 1 × 1 to four times as many (figure 5, right).  [N, C, H, W] -> [N, C', H / stride, W / stride] */
class BottleneckBranch extends Module {
  conv1;
  bn1;
  conv2;
  bn2;
  conv3;
  bn3;
  se;
  constructor(inputs: number, inner: number, outputs: number, stride: number, groups: number, gated: boolean) {
    super();
    this.conv1 = convolution(inputs, inner, 1);
    this.bn1 = new BatchNorm2d(inner);
    this.conv2 = convolution(inner, inner, 3, { stride, groups });
    this.bn2 = new BatchNorm2d(inner);
    this.conv3 = convolution(inner, outputs, 1);
    this.bn3 = lastNorm(outputs);
    this.se = gated ? new SqueezeExcite(outputs, outputs / 4) : undefined;
  }
  forward(x: Tensor): Tensor {
    const y = relu(this.bn1.forward(this.conv1.forward(x))); // [N, inner, H, W]
    const z = relu(this.bn2.forward(this.conv2.forward(y))); // [N, inner, H / stride, W / stride]
    const out = this.bn3.forward(this.conv3.forward(z)); // [N, outputs, H / stride, W / stride]
    return this.se ? this.se.forward(out) : out;
  }
}

/** A 1 × 1 convolution where the shape changes (option B). */
class Projection extends Module {
  readonly #conv;
  readonly #norm;
  constructor(inputs: number, outputs: number, stride: number) {
    super();
    this.#conv = convolution(inputs, outputs, 1, { stride });
    this.#norm = new BatchNorm2d(outputs);
  }
  override *parts(): Iterable<[string, Module]> {
    yield ["0", this.#conv];
    yield ["1", this.#norm];
  }
  forward(x: Tensor): Tensor {
    return this.#norm.forward(this.#conv.forward(x));
  }
}

/** The mean of each 2 × 2 pixels where the stride is 2, then a 1 × 1 convolution: no pixel is skipped.  He et al. (2019), figure 2 (c). */
class AveragingProjection extends Module {
  readonly #stride;
  readonly #conv;
  readonly #norm;
  constructor(inputs: number, outputs: number, stride: number) {
    super();
    this.#stride = stride;
    this.#conv = convolution(inputs, outputs, 1);
    this.#norm = new BatchNorm2d(outputs);
  }
  override *parts(): Iterable<[string, Module]> {
    yield ["1", this.#conv];
    yield ["2", this.#norm];
  }
  forward(x: Tensor): Tensor {
    const kernel = this.#stride;
    const means = kernel > 1 ? averagePool(x, { kernel, ceilMode: true, countPadding: false }) : x;
    return this.#norm.forward(this.#conv.forward(means));
  }
}

/** Every second element, and zeros for the channels that are new (option A).  [N, C, H, W] -> [N, C', H / stride, W / stride] */
class Subsampling extends Module {
  readonly #stride;
  readonly #added;
  constructor(inputs: number, outputs: number, stride: number) {
    super();
    this.#stride = stride;
    this.#added = outputs - inputs;
  }
  forward(x: Tensor): Tensor {
    const half = Math.floor(this.#added / 2);
    return x
      .slice(2, 0, undefined, this.#stride)
      .slice(3, 0, undefined, this.#stride)
      .pad(1, half, this.#added - half);
  }
}

/** relu(F(x) + shortcut(x)) (equations 1 and 2).  [N, C, H, W] -> [N, C', H / stride, W / stride] */
class Block extends Module {
  downsample;
  readonly #branch;
  readonly #dropPath;
  constructor(config: ResNetConfig, inputs: number, dim: number, stride: number, rate: number) {
    super();
    const { block, groups = 1, groupWidth = 64, small, revisited = false } = config;
    const outputs = outputsOf(config, dim);
    this.#branch =
      block === "basic"
        ? new BasicBranch(inputs, dim, stride)
        : new BottleneckBranch(
            inputs,
            Math.floor((dim * groupWidth) / 64) * groups,
            outputs,
            stride,
            groups,
            revisited,
          );
    const Shortcut = small ? Subsampling : revisited ? AveragingProjection : Projection;
    this.downsample = stride > 1 || inputs !== outputs ? new Shortcut(inputs, outputs, stride) : undefined;
    this.#dropPath = new DropPath(rate);
  }
  override *parts(): Iterable<[string, Module | Tensor]> {
    yield* this.#branch.parts();
    if (this.downsample) yield ["downsample", this.downsample];
  }
  forward(x: Tensor): Tensor {
    const shortcut = this.downsample ? this.downsample.forward(x) : x;
    return relu(this.#dropPath.forward(this.#branch.forward(x)).add(shortcut));
  }
}

const outputsOf = ({ block }: ResNetConfig, dim: number): number => (block === "basic" ? dim : 4 * dim);

/** One 7 × 7 convolution and a maximum.  [N, 3, H, W] -> [N, C, H / 4, W / 4] */
class Stem extends Module {
  conv1;
  bn1;
  constructor(inputs: number, dim: number) {
    super();
    this.conv1 = convolution(inputs, dim, 7, { stride: 2 });
    this.bn1 = new BatchNorm2d(dim);
  }
  forward(image: Tensor): Tensor {
    const x = relu(this.bn1.forward(this.conv1.forward(image))); // [N, C, H / 2, W / 2]
    return maxPool(x, { kernel: 3, stride: 2, padding: 1 });
  }
}

/** One 3 × 3 convolution.  [N, 3, H, W] -> [N, C, H, W] */
class SmallStem extends Module {
  conv1;
  bn1;
  constructor(inputs: number, dim: number) {
    super();
    this.conv1 = convolution(inputs, dim, 3);
    this.bn1 = new BatchNorm2d(dim);
  }
  forward(image: Tensor): Tensor {
    return relu(this.bn1.forward(this.conv1.forward(image)));
  }
}

/** Four 3 × 3 convolutions, of which the first and the last halve.  [N, 3, H, W] -> [N, C, H / 4, W / 4] */
class DeepStem extends Module {
  readonly #convs;
  readonly #norms;
  constructor(inputs: number, dim: number) {
    super();
    const widths = [inputs, dim / 2, dim / 2, dim, dim];
    this.#convs = [2, 1, 1, 2].map((stride, i) => convolution(widths[i], widths[i + 1], 3, { stride }));
    this.#norms = widths.slice(1).map((width) => new BatchNorm2d(width));
  }
  override *parts(): Iterable<[string, Module]> {
    const convs = ["conv1.0", "conv1.3", "conv1.6", "maxpool.0"];
    const norms = ["conv1.1", "conv1.4", "bn1", "maxpool.1"];
    for (const [i, conv] of this.#convs.entries()) {
      yield [convs[i], conv];
      yield [norms[i], this.#norms[i]];
    }
  }
  forward(image: Tensor): Tensor {
    return this.#convs.reduce((x, conv, i) => relu(this.#norms[i].forward(conv.forward(x))), image);
  }
}

export class ResNet extends Module implements Backbone {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim: number;
  readonly headName: string;
  /** PyTorch's default; the models for small pictures have been trained here from another. */
  readonly headInit?: Initializer;
  readonly #stem;
  readonly #layers: readonly (readonly Block[])[];
  constructor(config: ResNetConfig, options: BackboneOptions = {}) {
    super();
    const { depths, dims, small = false, revisited = false } = config;
    const { inChannels = 3, dropPath = 0 } = options;
    const rates = stageRates(depths, dropPath);
    this.channels = dims.map((dim) => outputsOf(config, dim));
    this.strides = dims.map((_, i) => (small ? 1 : 4) * 2 ** i);
    this.dim = this.channels[dims.length - 1];
    this.headName = small ? "linear" : "fc";
    this.headInit = small ? undefined : uniformFanIn;
    this.#stem = new (small ? SmallStem : revisited ? DeepStem : Stem)(inChannels, dims[0]);
    let channels = dims[0];
    this.#layers = depths.map((_, i) =>
      rates[i].map((rate, j) => {
        const block = new Block(config, channels, dims[i], i > 0 && j === 0 ? 2 : 1, rate);
        channels = this.channels[i];
        return block;
      }),
    );
  }
  override *parts(): Iterable<[string, Module]> {
    yield* this.#stem.parts() as Iterable<[string, Module]>;
    for (const [i, blocks] of this.#layers.entries())
      for (const [j, block] of blocks.entries()) yield [`layer${i + 1}.${j}`, block];
  }
  forward(image: Tensor): Tensor[] {
    let x = this.#stem.forward(image); // [N, 64, H / 4, W / 4]
    return this.#layers.map((blocks) => {
      x = blocks.reduce((y, block) => block.forward(y), x);
      return x;
    });
  }
  embed(image: Tensor): Tensor {
    const maps = this.forward(image);
    return maps[maps.length - 1].mean([2, 3]);
  }
}

export const paper = "He et al., Deep Residual Learning for Image Recognition (2016), https://arxiv.org/abs/1512.03385";

const dims = [64, 128, 256, 512];
const basic = { block: "basic", dims } as const;
const bottleneck = { block: "bottleneck", dims } as const;
const cifar = (blocks: number): Variant<ResNetConfig> => ({
  config: { block: "basic", dims: [16, 32, 64], depths: [blocks, blocks, blocks], small: true },
  preprocessing: { imageSize: 32, cropPct: 1 },
});
const recent = { cropPct: 0.95 };
const torchvision = { interpolation: "bilinear" } as const;

/** Depth and image size grow together, the image more slowly than elsewhere. */
const rs = (depths: readonly number[], imageSize: number, cropPct: number): Variant<ResNetConfig> => ({
  config: { ...bottleneck, depths, revisited: true },
  preprocessing: { imageSize, cropPct },
});

/** Table 1 and section 4.2; Xie et al., tables 1 and 4. */
export const variants: Record<string, Variant<ResNetConfig>> = {
  resnet18: { config: { ...basic, depths: [2, 2, 2, 2] }, preprocessing: recent },
  resnet34: { config: { ...basic, depths: [3, 4, 6, 3] }, preprocessing: recent },
  resnet26: { config: { ...bottleneck, depths: [2, 2, 2, 2] } },
  resnet50: { config: { ...bottleneck, depths: [3, 4, 6, 3] }, preprocessing: recent },
  resnet101: { config: { ...bottleneck, depths: [3, 4, 23, 3] }, preprocessing: recent },
  resnet152: { config: { ...bottleneck, depths: [3, 8, 36, 3] }, preprocessing: recent },
  resnet200: { config: { ...bottleneck, depths: [3, 24, 36, 3] } },
  resnext50_32x4d: {
    config: { ...bottleneck, depths: [3, 4, 6, 3], groups: 32, groupWidth: 4 },
    preprocessing: recent,
  },
  resnext101_32x4d: {
    config: { ...bottleneck, depths: [3, 4, 23, 3], groups: 32, groupWidth: 4 },
    preprocessing: torchvision,
  },
  resnext101_32x8d: {
    config: { ...bottleneck, depths: [3, 4, 23, 3], groups: 32, groupWidth: 8 },
    preprocessing: torchvision,
  },
  resnext101_64x4d: {
    config: { ...bottleneck, depths: [3, 4, 23, 3], groups: 64, groupWidth: 4 },
    preprocessing: recent,
  },
  wide_resnet50_2: { config: { ...bottleneck, depths: [3, 4, 6, 3], groupWidth: 128 } },
  wide_resnet101_2: { config: { ...bottleneck, depths: [3, 4, 23, 3], groupWidth: 128 }, preprocessing: torchvision },
  resnetrs50: rs([3, 4, 6, 3], 160, 0.91),
  resnetrs101: rs([3, 4, 23, 3], 192, 0.94),
  resnetrs152: rs([3, 8, 36, 3], 256, 1),
  resnetrs200: rs([3, 24, 36, 3], 256, 1),
  resnetrs270: rs([4, 29, 53, 4], 256, 1),
  resnetrs350: rs([4, 36, 72, 4], 288, 1),
  resnetrs420: rs([4, 44, 87, 4], 320, 1),
  resnet20_cifar: cifar(3),
  resnet32_cifar: cifar(5),
  resnet44_cifar: cifar(7),
  resnet56_cifar: cifar(9),
  resnet110_cifar: cifar(18),
};

/** torchvision's names are timm's. */
export const names: FamilyNames = {
  transformers: {
    root: "resnet.",
    pairs: [
      ["conv1", "resnet.embedder.embedder.convolution"],
      ["bn1", "resnet.embedder.embedder.normalization"],
      ["layer{i+1}.{j}.downsample.0", "resnet.encoder.stages.{i}.layers.{j}.shortcut.convolution"],
      ["layer{i+1}.{j}.downsample.1", "resnet.encoder.stages.{i}.layers.{j}.shortcut.normalization"],
      ["layer{i+1}.{j}.conv{k+1}", "resnet.encoder.stages.{i}.layers.{j}.layer.{k}.convolution"],
      ["layer{i+1}.{j}.bn{k+1}", "resnet.encoder.stages.{i}.layers.{j}.layer.{k}.normalization"],
      ["fc", "classifier.1"],
    ],
  },
};

export const create = (config: ResNetConfig, options: BackboneOptions): ResNet => new ResNet(config, options);
