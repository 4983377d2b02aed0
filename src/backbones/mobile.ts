/**
 * What networks for phones are made of, found by hand or by search: a convolution, then depthwise separable convolutions and inverted
 * residuals in a table of rows, then a wide layer before the classifier.  Sandler et al., "MobileNetV2" (CVPR 2018),
 * https://arxiv.org/abs/1801.04381, section 3; squeeze-and-excitation inside as in Tan et al., "MnasNet" (CVPR 2019),
 * https://arxiv.org/abs/1807.11626.  Parameter paths are timm's.
 */
import type { Tensor } from "../graph/tensor.ts";
import { Activation, type ActivationName } from "../nn/activation.ts";
import { heNormalFor, type Initializer } from "../nn/init.ts";
import { BatchNorm2d, Conv2d, DropPath } from "../nn/layers.ts";
import { Module } from "../nn/module.ts";
import type { Layer } from "../nn/sequential.ts";
import { SqueezeExcite } from "../nn/squeeze-excite.ts";
import { eachAxis } from "../ops/conv.ts";
import { type Backbone, type BackboneOptions, dropPathRates } from "./backbone.ts";

/** A row of a paper's table: `repeats` blocks, of which the first has the stride and changes the channels. */
export interface Row {
  block: "separable" | "inverted" | "conv";
  kernel: number;
  stride?: number;
  /** Channels inside an inverted residual, as a multiple of those that come in. */
  expand?: number;
  channels: number;
  repeats?: number;
  squeeze?: boolean;
  activate?: ActivationName;
  /** Whether a block that keeps the shape adds what it was given; it does unless told otherwise. */
  shortcut?: boolean;
}

/** A row of inverted residuals. */
export const inverted = (
  kernel: number,
  expand: number,
  channels: number,
  repeats = 1,
  stride = 1,
  squeeze = false,
): Row => ({ block: "inverted", kernel, expand, channels, repeats, stride, squeeze });

/** A row of depthwise separable convolutions, 3 × 3. */
export const separable = (channels: number, repeats = 1, shortcut = true): Row => ({
  block: "separable",
  kernel: 3,
  channels,
  repeats,
  shortcut,
});

export interface MobileConfig {
  /** Channels of the first convolution. */
  stem: number;
  stages: readonly (readonly Row[])[];
  /** Channels before the classifier. */
  head: number;
  /** Whether the mean over the map is taken before that layer, which then has no norm: MobileNetV3, section 5.1. */
  headAfterMean?: { bias: boolean };
  activate: ActivationName | ((channels: number) => Layer);
  squeeze?: Squeeze;
  /** ε of every batch norm. */
  eps?: number;
  /** "same" pads as TensorFlow does: as much as the stride asks for, the odd place behind.  Equally on both sides by default. */
  padding?: "same";
}

/** How channels are gated. */
export interface Squeeze {
  /** Channels between its two layers, from those that come into a block and those inside it. */
  reduced(inputs: number, inner: number): number;
  activate?: ActivationName;
  gate?: (x: Tensor) => Tensor;
}

/** The multiple of 8 (or `by`) nearest to a number of channels, the next where that takes away more than a tenth (or 1 - `limit`). */
export function divisible(channels: number, { limit = 0.9, by = 8 } = {}): number {
  const near = Math.max(by, by * Math.floor((channels + by / 2) / by));
  return near < limit * channels ? near + by : near;
}

/** Rows with their channels multiplied. */
export const widen = (stages: MobileConfig["stages"], width: number): Row[][] =>
  stages.map((rows) => rows.map((row) => ({ ...row, channels: divisible(row.channels * width) })));

/** Stages with their blocks multiplied and rounded up; within a stage the last rows get theirs first. */
export const deepen = (stages: MobileConfig["stages"], depth: number): Row[][] =>
  stages.map((rows) => {
    let before = rows.reduce((sum, { repeats = 1 }) => sum + repeats, 0);
    let after = Math.ceil(before * depth);
    return rows
      .toReversed()
      .map((row) => {
        const { repeats: old = 1 } = row;
        const repeats = Math.max(1, Math.round((old / before) * after));
        before -= old;
        after -= repeats;
        return { ...row, repeats };
      })
      .toReversed();
  });

/** What all blocks of a model share. */
interface Style {
  activate: MobileConfig["activate"];
  squeeze: Squeeze;
  eps?: number;
  padding?: "same";
}

const activation = (activate: MobileConfig["activate"], channels: number): Layer =>
  typeof activate === "string" ? new Activation(activate) : activate(channels);

export interface ConvShape {
  kernel?: number | readonly [number, number];
  stride?: number | readonly [number, number];
  groups?: number;
  bias?: boolean;
  padding?: "same";
  init?: Initializer;
}

/** Without bias, unless told otherwise drawn from a normal distribution with variance 2 / fan-out. */
export const convolution = (inputs: number, outputs: number, options: ConvShape = {}): Conv2d => {
  const { kernel = 1, stride = 1, groups = 1, bias = false } = options;
  const sides = eachAxis(kernel, 2);
  const { padding = sides.map((k) => (k - 1) / 2), init = heNormalFor(groups) } = options;
  return new Conv2d(inputs, outputs, { kernel, stride, groups, bias, padding, init });
};

const depthwise = (channels: number, { kernel, stride }: Row, { padding }: Style): Conv2d =>
  convolution(channels, channels, { kernel, stride, groups: channels, padding });

/** Batch norm, then an activation.  [N, C, H, W] */
class NormAct extends BatchNorm2d {
  act;
  constructor(channels: number, { activate, eps }: Pick<Style, "activate" | "eps">) {
    super(channels, { eps });
    this.act = activation(activate, channels);
  }
  override forward(x: Tensor): Tensor {
    return this.act.forward(super.forward(x));
  }
}

/** A row's own activation before that of the model. */
const own = (row: Row, style: Style): Style => ({ ...style, activate: row.activate ?? style.activate });

/** The gate of a block; undefined where it has none. */
function gate(row: Row, inputs: number, inner: number, style: Style): SqueezeExcite | undefined {
  if (!row.squeeze) return undefined;
  const { squeeze } = style;
  const reduced = squeeze.reduced(inputs, inner);
  const act = activation(squeeze.activate ?? own(row, style).activate, reduced);
  return new SqueezeExcite(inner, reduced, {
    activate: (x) => act.forward(x),
    gate: squeeze.gate,
    names: ["conv_reduce", "conv_expand"],
  });
}

/** A convolution of its own for each channel, then a 1 × 1 convolution without activation.  [N, C, H, W] -> [N, C', H / stride, W / stride] */
class DepthwiseSeparable extends Module {
  convDw;
  bn1;
  se;
  convPw;
  bn2;
  constructor(row: Row, inputs: number, style: Style) {
    super();
    this.convDw = depthwise(inputs, row, style);
    this.bn1 = new NormAct(inputs, own(row, style));
    this.se = gate(row, inputs, inputs, style);
    this.convPw = convolution(inputs, row.channels);
    this.bn2 = new BatchNorm2d(row.channels, style);
  }
  forward(x: Tensor): Tensor {
    const y = this.bn1.forward(this.convDw.forward(x));
    return this.bn2.forward(this.convPw.forward(this.se ? this.se.forward(y) : y));
  }
}

/** 1 × 1 to more channels, depthwise, 1 × 1 to fewer without activation (table 1).  [N, C, H, W] -> [N, C', H / stride, W / stride] */
class InvertedResidual extends Module {
  convPw;
  bn1;
  convDw;
  bn2;
  se;
  convPwl;
  bn3;
  constructor(row: Row, inputs: number, style: Style) {
    super();
    const inner = divisible(inputs * (row.expand ?? 1));
    const acting = own(row, style);
    this.convPw = convolution(inputs, inner);
    this.bn1 = new NormAct(inner, acting);
    this.convDw = depthwise(inner, row, style);
    this.bn2 = new NormAct(inner, acting);
    this.se = gate(row, inputs, inner, style);
    this.convPwl = convolution(inner, row.channels);
    this.bn3 = new BatchNorm2d(row.channels, style);
  }
  forward(x: Tensor): Tensor {
    const y = this.bn1.forward(this.convPw.forward(x)); // [N, inner, H, W]
    const z = this.bn2.forward(this.convDw.forward(y)); // [N, inner, H / stride, W / stride]
    return this.bn3.forward(this.convPwl.forward(this.se ? this.se.forward(z) : z));
  }
}

/** A convolution with norm and activation.  [N, C, H, W] -> [N, C', H / stride, W / stride] */
class ConvBnAct extends Module {
  conv;
  bn1;
  constructor(row: Row, inputs: number, style: Style) {
    super();
    this.conv = convolution(inputs, row.channels, { ...row, padding: style.padding });
    this.bn1 = new NormAct(row.channels, own(row, style));
  }
  forward(x: Tensor): Tensor {
    return this.bn1.forward(this.conv.forward(x));
  }
}

const blocks = { separable: DepthwiseSeparable, inverted: InvertedResidual, conv: ConvBnAct };

/** Adds to what it is given, where the shape allows. */
class Block extends Module {
  readonly #branch: Layer;
  readonly #shortcut: boolean;
  readonly #dropPath;
  constructor(row: Row, inputs: number, style: Style, rate: number) {
    super();
    const { block, stride = 1, channels, shortcut = block !== "conv" } = row;
    this.#branch = new blocks[block](row, inputs, style);
    this.#shortcut = shortcut && stride === 1 && inputs === channels;
    this.#dropPath = new DropPath(rate);
  }
  override parts(): Iterable<[string, Module | Tensor]> {
    return this.#branch.parts();
  }
  forward(x: Tensor): Tensor {
    const y = this.#branch.forward(x);
    return this.#shortcut ? x.add(this.#dropPath.forward(y)) : y;
  }
}

export class MobileNet extends Module implements Backbone {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim: number;
  readonly headName = "classifier";
  /** After how many stages each map is ready: where the next one halves it. */
  readonly #ends: readonly number[];
  convStem;
  bn1;
  blocks: readonly (readonly Block[])[];
  convHead;
  bn2;
  act2;
  constructor(config: MobileConfig, options: BackboneOptions = {}) {
    super();
    const { stem, stages, head, headAfterMean, activate } = config;
    const { inChannels = 3, dropPath = 0 } = options;
    const { squeeze = { reduced: (inputs) => inputs / 4 }, eps, padding } = config;
    const style: Style = { activate, squeeze, eps, padding };
    const rows = stages.map((stage) =>
      stage.flatMap(({ repeats = 1, ...row }) =>
        Array.from({ length: repeats }, (_, i) => (i === 0 ? row : { ...row, stride: 1 })),
      ),
    );
    // In timm, as in TensorFlow's code for such networks, the last block stays one step below the rate.
    const rates = dropPathRates(rows.flat().length + 1, dropPath);
    this.convStem = convolution(inChannels, stem, { kernel: 3, stride: 2, padding });
    this.bn1 = new NormAct(stem, style);
    const widths = [stem];
    const halvings = [2];
    this.blocks = rows.map((stage) => {
      let channels = widths[widths.length - 1];
      const stride = stage[0].stride ?? 1;
      const made = stage.map((row) => {
        const block = new Block(row, channels, style, rates.shift()!);
        channels = row.channels;
        return block;
      });
      widths.push(channels);
      halvings.push(halvings[halvings.length - 1] * stride);
      return made;
    });
    this.#ends = halvings.flatMap((stride, i) => (halvings[i + 1] === stride ? [] : [i]));
    this.channels = this.#ends.map((i) => widths[i]);
    this.strides = this.#ends.map((i) => halvings[i]);
    this.dim = head;
    this.convHead = convolution(widths[widths.length - 1], head, { bias: headAfterMean?.bias });
    this.bn2 = headAfterMean ? undefined : new NormAct(head, style);
    this.act2 = headAfterMean && activation(activate, head);
  }
  forward(image: Tensor): Tensor[] {
    const maps = [this.bn1.forward(this.convStem.forward(image))]; // [N, stem, H / 2, W / 2]
    for (const stage of this.blocks) maps.push(stage.reduce((x, block) => block.forward(x), maps[maps.length - 1]));
    return this.#ends.map((i) => maps[i]);
  }
  embed(image: Tensor): Tensor {
    const maps = this.forward(image);
    const last = maps[maps.length - 1];
    if (this.bn2) return this.bn2.forward(this.convHead.forward(last)).mean([2, 3]);
    const whole = this.convHead.forward(last.mean([2, 3], true)); // [N, dim, 1, 1]
    return (this.act2 ? this.act2.forward(whole) : whole).reshape([image.shape[0], this.dim]);
  }
}
