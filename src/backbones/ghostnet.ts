/**
 * GhostNet: half of a map's channels are made by a convolution, the other half by cheap depthwise ones from the first.
 * Han et al., "GhostNet: More Features from Cheap Operations" (CVPR 2020), https://arxiv.org/abs/1911.11907; GhostNet V2 weighs them by
 * attention along rows and columns, Tang et al., "GhostNetV2: Enhance Cheap Operation with Long-Range Attention" (NeurIPS 2022),
 * https://arxiv.org/abs/2211.12905.  Parameter paths are timm's.
 */
import { known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { uniformFanIn } from "../nn/init.ts";
import { BatchNorm2d, Conv2d, DropPath } from "../nn/layers.ts";
import { Module } from "../nn/module.ts";
import { Sequential } from "../nn/sequential.ts";
import { SqueezeExcite } from "../nn/squeeze-excite.ts";
import { hardSigmoid, relu, sigmoid } from "../ops/elementwise.ts";
import { averagePool } from "../ops/pool.ts";
import { resize } from "../ops/resize.ts";
import { type Backbone, type BackboneOptions, dropPathRates, type Variant } from "./backbone.ts";
import { type ConvShape, divisible, convolution as fanOutConvolution } from "./mobile.ts";

/** Kernel, channels inside, channels, gated or not, stride. */
type Line = readonly [kernel: number, inner: number, channels: number, squeeze: boolean, stride: number];

export interface GhostNetConfig {
  width: number;
  /** Whether ghost modules that expand have attention, from the third block on. */
  attention: boolean;
}

/** Drawn as PyTorch draws by default, also in the gates: the published code sets nothing else. */
const convolution = (inputs: number, outputs: number, options: ConvShape = {}): Conv2d =>
  fanOutConvolution(inputs, outputs, { ...options, init: uniformFanIn });

/**
 * Attention with long range from convolutions of 1 × 5 and 5 × 1 over a map of half the size (V2, equations 4 and 5, figure 5).
 * [N, C, H, W] -> weights [N, C', H, W]
 */
class Attention extends Module {
  readonly #steps;
  constructor(inputs: number, outputs: number) {
    super();
    this.#steps = new Sequential(
      convolution(inputs, outputs),
      new BatchNorm2d(outputs),
      convolution(outputs, outputs, { kernel: [1, 5], groups: outputs }),
      new BatchNorm2d(outputs),
      convolution(outputs, outputs, { kernel: [5, 1], groups: outputs }),
      new BatchNorm2d(outputs),
    );
  }
  override parts(): Iterable<[string, Module]> {
    return this.#steps.parts();
  }
  forward(x: Tensor): Tensor {
    const size = x.shape.slice(2).map((d) => known(d));
    // The last map of a small image is a single pixel, which cannot be halved.
    const kernel = size.map((s) => Math.min(2, s));
    const scores = this.#steps.forward(averagePool(x, { kernel }));
    return resize(sigmoid(scores), { size, mode: "nearest" });
  }
}

/** A convolution for the first half of the channels, a depthwise one of it for the other (equations 2 and 3).  [N, C, H, W] -> [N, C', H, W] */
class GhostModule extends Module {
  primaryConv;
  cheapOperation;
  shortConv;
  constructor(inputs: number, outputs: number, { act, attention }: { act: boolean; attention: boolean }) {
    super();
    const half = outputs / 2;
    const end = act ? [relu] : [];
    this.primaryConv = new Sequential(convolution(inputs, half), new BatchNorm2d(half), ...end);
    const cheap = convolution(half, half, { kernel: 3, groups: half });
    this.cheapOperation = new Sequential(cheap, new BatchNorm2d(half), ...end);
    this.shortConv = attention ? new Attention(inputs, outputs) : undefined;
  }
  forward(x: Tensor): Tensor {
    const first = this.primaryConv.forward(x); // [N, C' / 2, H, W]
    const all = first.concat([this.cheapOperation.forward(first)], 1);
    return this.shortConv ? all.mul(this.shortConv.forward(x)) : all;
  }
}

/** Two ghost modules, wide and thin, with a depthwise convolution between where the map is halved (figure 3). */
class Block extends Module {
  ghost1;
  convDw;
  bnDw;
  se;
  ghost2;
  shortcut;
  readonly #dropPath;
  constructor(inputs: number, [kernel, inner, outputs, squeeze, stride]: Line, attention: boolean, rate: number) {
    super();
    this.ghost1 = new GhostModule(inputs, inner, { act: true, attention });
    this.convDw = stride > 1 ? convolution(inner, inner, { kernel, stride, groups: inner }) : undefined;
    this.bnDw = stride > 1 ? new BatchNorm2d(inner) : undefined;
    this.se = squeeze
      ? new SqueezeExcite(inner, divisible(inner / 4, { by: 4 }), {
          gate: hardSigmoid,
          names: ["conv_reduce", "conv_expand"],
          init: uniformFanIn,
        })
      : undefined;
    this.ghost2 = new GhostModule(inner, outputs, { act: false, attention: false });
    this.shortcut =
      stride > 1 || inputs !== outputs
        ? new Sequential(
            convolution(inputs, inputs, { kernel, stride, groups: inputs }),
            new BatchNorm2d(inputs),
            convolution(inputs, outputs),
            new BatchNorm2d(outputs),
          )
        : undefined;
    this.#dropPath = new DropPath(rate);
  }
  forward(x: Tensor): Tensor {
    const wide = this.ghost1.forward(x); // [N, inner, H, W]
    const y = this.convDw && this.bnDw ? this.bnDw.forward(this.convDw.forward(wide)) : wide; // [N, inner, H / stride, W / stride]
    const z = this.ghost2.forward(this.se ? this.se.forward(y) : y);
    return (this.shortcut ? this.shortcut.forward(x) : x).add(this.#dropPath.forward(z));
  }
}

/** A 1 × 1 convolution with norm and ReLU. */
class ConvBnAct extends Module {
  conv;
  bn1;
  constructor(inputs: number, outputs: number) {
    super();
    this.conv = convolution(inputs, outputs);
    this.bn1 = new BatchNorm2d(outputs);
  }
  forward(x: Tensor): Tensor {
    return relu(this.bn1.forward(this.conv.forward(x)));
  }
}

export class GhostNet extends Module implements Backbone {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim = 1280;
  readonly headName = "classifier";
  readonly headInit = uniformFanIn;
  convStem;
  bn1;
  readonly #stages: readonly (readonly Block[])[];
  readonly #last;
  readonly #convHead;
  constructor({ width, attention }: GhostNetConfig, options: BackboneOptions = {}) {
    super();
    const { inChannels = 3, dropPath = 0 } = options;
    const scaled = (channels: number): number => divisible(channels * width, { by: 4 });
    const rates = dropPathRates(table.flat().length, dropPath);
    let inputs = scaled(16);
    let count = 0;
    this.convStem = convolution(inChannels, inputs, { kernel: 3, stride: 2 });
    this.bn1 = new BatchNorm2d(inputs);
    this.#stages = table.map((lines) =>
      lines.map(([kernel, inner, channels, squeeze, stride]) => {
        const line: Line = [kernel, scaled(inner), scaled(channels), squeeze, stride];
        const block = new Block(inputs, line, attention && count > 1, rates[count]);
        inputs = scaled(channels);
        count++;
        return block;
      }),
    );
    this.channels = ends.map((stage) => scaled(table[stage][table[stage].length - 1][2]));
    this.strides = ends.map((_, i) => 2 ** (i + 1));
    const last = scaled(960);
    this.#last = new ConvBnAct(inputs, last);
    this.#convHead = new Conv2d(last, this.dim, { kernel: 1 });
  }
  override *parts(): Iterable<[string, Module]> {
    yield ["conv_stem", this.convStem];
    yield ["bn1", this.bn1];
    for (const [i, blocks] of this.#stages.entries())
      for (const [j, block] of blocks.entries()) yield [`blocks.${i}.${j}`, block];
    yield [`blocks.${this.#stages.length}.0`, this.#last];
    yield ["conv_head", this.#convHead];
  }
  forward(image: Tensor): Tensor[] {
    let x = relu(this.bn1.forward(this.convStem.forward(image))); // [N, 16, H / 2, W / 2]
    const maps = this.#stages.map((blocks) => {
      x = blocks.reduce((y, block) => block.forward(y), x);
      return x;
    });
    return ends.map((stage) => maps[stage]);
  }
  embed(image: Tensor): Tensor {
    const maps = this.forward(image);
    const whole = this.#last.forward(maps[maps.length - 1]).mean([2, 3], true); // [N, 960, 1, 1]
    return relu(this.#convHead.forward(whole)).reshape([image.shape[0], this.dim]);
  }
}

/** GhostNet, table 1. */
const table: readonly (readonly Line[])[] = [
  [[3, 16, 16, false, 1]],
  [[3, 48, 24, false, 2]],
  [[3, 72, 24, false, 1]],
  [[5, 72, 40, true, 2]],
  [[5, 120, 40, true, 1]],
  [[3, 240, 80, false, 2]],
  [
    [3, 200, 80, false, 1],
    [3, 184, 80, false, 1],
    [3, 184, 80, false, 1],
    [3, 480, 112, true, 1],
    [3, 672, 112, true, 1],
  ],
  [[5, 672, 160, true, 2]],
  [
    [5, 960, 160, false, 1],
    [5, 960, 160, true, 1],
    [5, 960, 160, false, 1],
    [5, 960, 160, true, 1],
  ],
];
/** Stages before which the map is halved no more, or which are the last. */
const ends = table.flatMap((_, i) => (i + 1 === table.length || table[i + 1][0][4] === 2 ? [i] : []));

export const paper = "Tang et al., GhostNetV2 (2022), https://arxiv.org/abs/2211.12905";

const v1 = (width: number): Variant<GhostNetConfig> => ({ config: { width, attention: false } });
const v2 = (width: number): Variant<GhostNetConfig> => ({ config: { width, attention: true } });

export const variants: Record<string, Variant<GhostNetConfig>> = {
  ghostnet_050: v1(0.5),
  ghostnet_100: v1(1),
  ghostnet_130: v1(1.3),
  ghostnetv2_100: v2(1),
  ghostnetv2_130: v2(1.3),
  ghostnetv2_160: v2(1.6),
};

export const create = (config: GhostNetConfig, options: BackboneOptions): GhostNet => new GhostNet(config, options);
