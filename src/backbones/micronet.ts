/**
 * MicroNet: for a few million multiply-adds, convolutions factorised in space and into groups, whose channels shifting activations mix.
 * Li et al., "MicroNet: Improving Image Recognition with Extremely Low FLOPs" (ICCV 2021), https://arxiv.org/abs/2108.05894.
 * Parameter paths are those of the official repository (liyunsheng13/micronet).
 */
import { known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { relu6 } from "../nn/activation.ts";
import { heNormal, normal } from "../nn/init.ts";
import { BatchNorm2d, Conv2d, DropPath, Linear } from "../nn/layers.ts";
import { Module } from "../nn/module.ts";
import { type Layer, Sequential, type Step } from "../nn/sequential.ts";
import type { ConvOptions } from "../ops/conv.ts";
import { hardSigmoid, hardSwish, maximum, relu } from "../ops/elementwise.ts";
import { permuteAlong, split } from "../ops/move.ts";
import { type Backbone, type BackboneOptions, dropPathRates, type Variant } from "./backbone.ts";
import { divisible } from "./mobile.ts";

/** What follows a convolution: ReLU6 or nothing, a dynamic sum, or the maximum of two dynamic sums. */
type Act = "plain" | "sum" | "max";

/**
 * Stride, channels, kernel, expansion by each of the two spatial convolutions, groups of the first pointwise convolution (0: there is
 * none, the spatial ones expand) and of its shuffle, the same of the second (0: there is none, nor any spatial one), activations after the
 * first, the spatial and the second, and a factor of the reduction inside them.
 */
type Line = readonly [
  stride: number,
  channels: number,
  kernel: number,
  expand: readonly [number, number],
  first: readonly [number, number],
  second: readonly [number, number],
  acts: readonly [Act, Act, Act],
  reduction: number,
];

export interface MicroNetConfig {
  /** Channels of the two convolutions of the stem: the first's, and for each of them the second's. */
  stem: readonly [number, number];
  lines: readonly Line[];
  head: number;
  /** Where a maximum starts: factors of the two sums for a channel itself, and for the shifted one. */
  start: { own: readonly [number, number]; shifted: readonly [number, number] };
}

const convolution = (
  inputs: number,
  outputs: number,
  kernel: readonly [number, number],
  options: ConvOptions,
): Conv2d =>
  new Conv2d(inputs, outputs, {
    kernel,
    padding: kernel.map((k) => (k - 1) / 2),
    bias: false,
    init: heNormal,
    ...options,
  });

/** k × 1, then 1 × k, each channel for itself unless told otherwise (equation 3).  [N, C, H, W] -> [N, C · e₁ · e₂, H / stride, W / stride] */
const spatial = (inputs: number, widths: readonly [number, number], k: number, stride: number, groups = inputs) => [
  convolution(inputs, widths[0], [k, 1], { stride: [stride, 1], groups }),
  new BatchNorm2d(widths[0]),
  convolution(widths[0], widths[1], [1, k], { stride: [1, stride], groups: widths[0] }),
  new BatchNorm2d(widths[1]),
];

const pointwise = (inputs: number, outputs: number, groups: number) => [
  convolution(inputs, outputs, [1, 1], { groups }),
  new BatchNorm2d(outputs),
];

/** Convolutions and norms. */
class Convs extends Module {
  conv;
  constructor(...steps: readonly Step[]) {
    super();
    this.conv = new Sequential(...steps);
  }
  forward(x: Tensor): Tensor {
    return this.conv.forward(x);
  }
}

/** Channels a, b, c, d, e, f of two groups in the order a, d, b, e, c, f.  [N, C, H, W] */
const shuffle =
  (groups: number) =>
  (x: Tensor): Tensor => {
    const [batch, channels, ...map] = x.shape;
    return x
      .reshape([batch, groups, known(channels) / groups, ...map])
      .swapAxes(1, 2)
      .reshape(x.shape);
  };
const same = (x: Tensor): Tensor => x;

/**
 * Dynamic shift-max: each channel added to the next one of the next group, with factors from the mean of the map; of two such sums the
 * larger (section 4, equations 6 and 7).  [N, C, H, W]
 */
class DynamicShiftMax extends Module {
  fc;
  readonly #start: readonly (readonly [number, number])[];
  readonly #order: Int32Array;
  /** `starts`: for each sum, where the factors of the channel itself and of the shifted one start. */
  constructor(channels: number, groups: number, reduction: number, starts: readonly (readonly [number, number])[]) {
    super();
    const hidden = Math.max(4, divisible(Math.floor(channels / reduction), { by: 4 }));
    const linear = (inputs: number, outputs: number) => new Linear(inputs, outputs, { init: normal(0.01) });
    this.fc = new Sequential(linear(channels, hidden), relu, linear(hidden, 2 * starts.length * channels), hardSigmoid);
    this.#start = starts;
    const each = channels / groups;
    this.#order = Int32Array.from({ length: channels }, (_, i) => {
      const group = (Math.floor(i / each) + 1) % groups;
      return group * each + ((i + 1) % each);
    });
  }
  forward(x: Tensor): Tensor {
    const factors = this.fc
      .forward(x.mean([2, 3]))
      .sub(0.5)
      .mul(4); // from -2 to 2
    const [batch, channels] = x.shape;
    const each = split(factors.reshape([batch, -1, 1, 1]), 1, 2 * this.#start.length);
    const shifted = permuteAlong(x, this.#order, 1);
    const sums = this.#start.map(([own, other], i) => {
      const [a, b] = each.slice(2 * i, 2 * i + 2).map((t) => t.reshape([batch, channels, 1, 1]));
      return x.mul(a.add(own)).add(shifted.mul(b.add(other)));
    });
    return sums.reduce(maximum);
  }
}

/** Pointwise and spatial convolutions, those that the line has, and what mixes their channels (figure 4).  [N, C, H, W] -> [N, C', H / stride, W / stride] */
class Block extends Module {
  layers;
  readonly #shortcut: boolean;
  readonly #dropPath;
  constructor(inputs: number, line: Line, start: MicroNetConfig["start"], rate: number) {
    super();
    const [stride, channels, kernel, [e1, e2], first, second, acts, factor] = line;
    const inner = inputs * e1 * e2;
    const reduction = 8 * factor;
    const sum: readonly [number, number][] = [[1, 0]];
    const max = start.own.map((own, i): [number, number] => [own, start.shifted[i]]);
    const act = (kind: Act, width: number, groups: number, reduced = reduction): Step =>
      kind === "plain" ? relu6 : new DynamicShiftMax(width, groups, reduced, kind === "max" ? max : sum);
    const ending = acts[2] !== "plain";
    const end = (reduced: number) => [
      new Convs(...pointwise(inner, channels, second[0])),
      ending ? act(acts[2], channels, second[1], reduced) : same,
      shuffle(second[1]),
      ending && channels % 2 === 0 ? shuffle(channels / 2) : same,
    ];
    if (first[0] === 0)
      this.layers = new Sequential(
        new Convs(...spatial(inputs, [inputs * e1, inner], kernel, stride)),
        act(acts[1], inner, first[1]),
        shuffle(first[1]),
        acts[1] === "plain" ? same : shuffle(inner / 2),
        ...end(reduction / 2),
      );
    else if (second[0] === 0)
      this.layers = new Sequential(
        new Convs(...pointwise(inputs, inner, first[0])),
        acts[2] === "plain" ? same : act("sum", inner, first[1]),
      );
    else {
      const dynamic = [acts[0], acts[1]].filter((kind) => kind !== "plain").length;
      this.layers = new Sequential(
        new Convs(...pointwise(inputs, inner, first[0])),
        act(acts[0], inner, first[1]),
        shuffle(first[1]),
        new Convs(...spatial(inner, [inner, inner], kernel, stride)),
        same,
        act(acts[1], inner, inner / first[1]),
        dynamic === 0 ? same : shuffle(inner / (2 * dynamic)),
        ...end(channels < inner ? reduction / 2 : reduction),
      );
    }
    this.#shortcut = stride === 1 && inputs === channels;
    this.#dropPath = new DropPath(rate);
  }
  forward(x: Tensor): Tensor {
    const y = this.layers.forward(x);
    return this.#shortcut ? x.add(this.#dropPath.forward(y)) : y;
  }
}

/** Linear, batch norm, hard swish: of MicroNet even the classes are normalised.  [N, in] -> [N, out] */
const swishLinear = (inputs: number, outputs: number): Sequential =>
  new Sequential(new Linear(inputs, outputs, { init: normal(0.01) }), new BatchNorm2d(outputs), hardSwish);

export class MicroNet extends Module implements Backbone {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim: number;
  readonly headName = "classifier.2.linear";
  readonly #stem;
  readonly #blocks: readonly Block[];
  readonly #embedding;
  /** After which blocks each map is ready. */
  readonly #ends: readonly number[];
  constructor({ stem: [first, second], lines, head, start }: MicroNetConfig, options: BackboneOptions = {}) {
    super();
    const { inChannels = 3, dropPath = 0 } = options;
    const rates = dropPathRates(lines.length, dropPath);
    const stem = first * second;
    this.#stem = new Convs(...spatial(inChannels, [first, stem], 3, 2, 1), shuffle(first));
    this.#blocks = lines.map((line, i) => new Block(i > 0 ? lines[i - 1][1] : stem, line, start, rates[i]));
    this.#ends = lines.flatMap((_, i) => (i + 1 === lines.length || lines[i + 1][0] === 2 ? [i] : []));
    this.channels = this.#ends.map((i) => lines[i][1]);
    this.strides = this.#ends.map((_, i) => 2 ** (i + 2));
    this.dim = head;
    this.#embedding = swishLinear(lines[lines.length - 1][1], head);
  }
  override *parts(): Iterable<[string, Module]> {
    yield ["features.0.stem.0", this.#stem];
    for (const [i, block] of this.#blocks.entries()) yield [`features.${i + 1}`, block];
    yield ["classifier.0.linear", this.#embedding];
  }
  createHead(classes: number): Layer {
    return swishLinear(this.dim, classes);
  }
  forward(image: Tensor): Tensor[] {
    let x = relu6(this.#stem.forward(image)); // [N, stem, H / 2, W / 2]
    const maps = this.#blocks.map((block) => {
      x = block.forward(x);
      return x;
    });
    return this.#ends.map((i) => maps[i]);
  }
  embed(image: Tensor): Tensor {
    const maps = this.forward(image);
    return this.#embedding.forward(hardSwish(relu6(maps[maps.length - 1]).mean([2, 3])));
  }
}

export const paper = "Li et al., MicroNet (2021), https://arxiv.org/abs/2108.05894";

const all: Line[6] = ["max", "max", "sum"];
const start: Line[6] = ["max", "plain", "sum"];
const middle: Line[6] = ["plain", "max", "plain"];
const none = [0, 0] as const;
const ones: MicroNetConfig["start"] = { own: [1, 1], shifted: [0, 0] };

/** Table 1 and the official repository. */
export const variants: Record<string, Variant<MicroNetConfig>> = {
  micronet_m0_224: {
    config: {
      stem: [2, 2],
      lines: [
        [2, 8, 3, [2, 2], [0, 4], [2, 2], start, 1],
        [2, 12, 3, [2, 2], [0, 8], [4, 4], all, 1],
        [2, 16, 5, [2, 2], [0, 12], [4, 4], all, 1],
        [1, 32, 5, [1, 4], [4, 4], [4, 4], all, 1],
        [2, 64, 5, [1, 4], [8, 8], [8, 8], all, 1],
        [1, 96, 3, [1, 4], [8, 8], [8, 8], all, 2],
        [1, 384, 3, [1, 4], [12, 12], none, all, 2],
      ],
      head: 640,
      start: ones,
    },
  },
  micronet_m1_224: {
    config: {
      stem: [3, 2],
      lines: [
        [2, 8, 3, [2, 2], [0, 6], [2, 2], start, 1],
        [2, 16, 3, [2, 2], [0, 8], [4, 4], all, 1],
        [2, 16, 5, [2, 2], [0, 16], [4, 4], all, 1],
        [1, 32, 5, [1, 6], [4, 4], [4, 4], all, 1],
        [2, 64, 5, [1, 6], [8, 8], [8, 8], all, 1],
        [1, 96, 3, [1, 6], [8, 8], [8, 8], all, 2],
        [1, 576, 3, [1, 6], [12, 12], none, all, 2],
      ],
      head: 960,
      start: ones,
    },
  },
  micronet_m2_224: {
    config: {
      stem: [4, 2],
      lines: [
        [2, 12, 3, [2, 2], [0, 8], [4, 4], start, 1],
        [2, 16, 3, [2, 2], [0, 12], [4, 4], all, 1],
        [1, 24, 3, [2, 2], [0, 16], [4, 4], all, 1],
        [2, 32, 5, [1, 6], [6, 6], [4, 4], all, 1],
        [1, 32, 5, [1, 6], [8, 8], [4, 4], all, 2],
        [1, 64, 5, [1, 6], [8, 8], [8, 8], all, 2],
        [2, 96, 5, [1, 6], [8, 8], [8, 8], all, 2],
        [1, 128, 3, [1, 6], [12, 12], [8, 8], all, 2],
        [1, 768, 3, [1, 6], [16, 16], none, all, 2],
      ],
      head: 1024,
      start: ones,
    },
  },
  micronet_m3_224: {
    config: {
      stem: [4, 3],
      lines: [
        [2, 16, 3, [2, 2], [0, 12], [4, 4], middle, 1],
        [2, 24, 3, [2, 2], [0, 16], [4, 4], middle, 1],
        [1, 24, 3, [2, 2], [0, 24], [4, 4], middle, 1],
        [2, 32, 5, [1, 6], [6, 6], [4, 4], middle, 1],
        [1, 32, 5, [1, 6], [8, 8], [4, 4], middle, 2],
        [1, 64, 5, [1, 6], [8, 8], [8, 8], middle, 2],
        [1, 80, 5, [1, 6], [8, 8], [8, 8], middle, 2],
        [1, 80, 5, [1, 6], [10, 10], [8, 8], middle, 2],
        [2, 120, 5, [1, 6], [10, 10], [10, 10], middle, 2],
        [1, 120, 5, [1, 6], [12, 12], [10, 10], middle, 2],
        [1, 144, 3, [1, 6], [12, 12], [12, 12], middle, 2],
        [1, 864, 3, [1, 6], [12, 12], none, middle, 2],
      ],
      head: 1024,
      start: { own: [1, 0.5], shifted: [0, 0.5] },
    },
  },
};

export const create = (config: MicroNetConfig, options: BackboneOptions): MicroNet => new MicroNet(config, options);
