/**
 * Mobile-Former: a stream of inverted bottlenecks beside one of very few tokens, with a bridge between them in both directions.
 * Chen et al., "Mobile-Former: Bridging MobileNet and Transformer" (CVPR 2022), https://arxiv.org/abs/2108.05895.
 * Parameter paths are those of the official repository.
 */
import { known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { relu6 } from "../nn/activation.ts";
import { heNormal, normal } from "../nn/init.ts";
import { BatchNorm2d, Conv2d, DropPath, LayerNorm, Linear } from "../nn/layers.ts";
import { Module } from "../nn/module.ts";
import type { ConvOptions } from "../ops/conv.ts";
import { gelu, hardSigmoid, hardSwish, maximum, relu } from "../ops/elementwise.ts";
import { linear } from "../ops/linalg.ts";
import { concat, expandBatch, split } from "../ops/move.ts";
import { softmax } from "../ops/norm.ts";
import type { Backbone, BackboneOptions, Variant } from "./backbone.ts";

/**
 * A row of table 1 and of tables 11 to 13: "lite" is depthwise, then pointwise; "bottleneck" expands, convolves and projects; "down" halves the
 * map and is depthwise, pointwise, depthwise, pointwise.  All but the lite ones work with tokens.
 */
type Row = readonly [kind: "lite" | "bottleneck" | "down", expansion: number, dim: number, stride?: number];

export interface MobileFormerConfig {
  /** Channels of the first convolution. */
  stem: number;
  rows: readonly Row[];
  /** Of pointwise convolutions, with channels shuffled between them. */
  groups?: number;
  /** How many tokens there are, and how wide.  Without tokens the mobile stream is alone, and ReLU6 takes the place of dynamic ReLU. */
  tokens?: { count: number; dim: number };
  /** Width of the layer before the classifier. */
  features: number;
}

const heads = 2;
const dense = (inputs: number, outputs: number): Linear => new Linear(inputs, outputs, { init: normal(0.01) });

/** Channels of all groups in turn.  Zhang et al., "ShuffleNet" (2018), section 3.1.  [N, C, H, W] */
function shuffle(x: Tensor, groups: number): Tensor {
  if (groups === 1) return x;
  const [batch, channels, ...size] = x.shape;
  return x
    .reshape([batch, groups, known(channels) / groups, ...size])
    .swapAxes(1, 2)
    .reshape(x.shape);
}

/** A convolution that keeps the size at stride 1, and batch norm.  [N, C, H, W] -> [N, C', H / stride, W / stride] */
class ConvNorm extends Module {
  readonly #conv;
  readonly #norm;
  readonly #names;
  constructor(inputs: number, outputs: number, kernel: number, options: ConvOptions = {}, names = ["0", "1"]) {
    super();
    const padding = (kernel - 1) / 2;
    this.#conv = new Conv2d(inputs, outputs, { kernel, padding, bias: false, init: heNormal, ...options });
    this.#norm = new BatchNorm2d(outputs);
    this.#names = names;
  }
  override *parts(): Iterable<[string, Module]> {
    yield [this.#names[0], this.#conv];
    yield [this.#names[1], this.#norm];
  }
  forward(x: Tensor): Tensor {
    return this.#norm.forward(this.#conv.forward(x));
  }
}

/**
 * The larger of two lines through 0 whose slopes, 0…2 and -1…1, the first token decides for each channel (section 3.2; Chen et al.,
 * "Dynamic ReLU", 2020).  x [N, C, H, W], tokens [N, T, D] -> [N, C, H, W]
 */
class TokenRelu extends Module {
  readonly #squeeze;
  readonly #slopes;
  constructor(tokenDim: number, channels: number) {
    super();
    this.#squeeze = dense(tokenDim, tokenDim / 4);
    this.#slopes = dense(tokenDim / 4, 2 * channels);
  }
  override *parts(): Iterable<[string, Module]> {
    yield ["hyper.0", this.#squeeze];
    yield ["hyper.2", this.#slopes];
  }
  forward(x: Tensor, tokens: Tensor): Tensor {
    const made = this.#slopes.forward(relu(this.#squeeze.forward(tokens.slice(1, 0, 1)))); // [N, 1, 2C]
    const [first, second] = split(hardSigmoid(made).mul(2), 2, 2).map((s) => s.reshape([x.shape[0], x.shape[1], 1, 1]));
    return maximum(x.mul(first), x.mul(second.sub(1)));
  }
}

/** [N, C, H, W] -> [N, heads, C / heads, L] */
const byHead = (map: Tensor): Tensor => {
  const [batch, channels, height, width] = map.shape;
  return map.reshape([batch, heads, known(channels) / heads, known(height) * known(width)]);
};

/** A linear layer of tokens, cut by heads and scaled as attention wants its queries.  [N, T, D] -> [N, count, T, C / count] */
function queries({ weight, bias }: Linear, tokens: Tensor, count: number): Tensor {
  const each = known(weight.shape[0]) / count;
  const [w, b] = [weight, bias as Tensor].map((t) => t.mul(each ** -0.5));
  return linear(tokens, w, b).reshape([tokens.shape[0], tokens.shape[1], count, each]).permute(0, 2, 1, 3);
}

/** Tokens attend to the map, which is keys and values as it is (equation 1).  map [N, C, H, W], tokens [N, T, D] -> [N, T, D] */
class LocalToGlobal extends Module {
  readonly #gate;
  readonly #q;
  readonly #proj;
  readonly #norm;
  readonly #dropPath;
  constructor(channels: number, tokenDim: number, rate: number) {
    super();
    this.#gate = dense(tokenDim, channels);
    this.#q = dense(tokenDim, channels);
    this.#proj = dense(channels, tokenDim);
    this.#norm = new LayerNorm(tokenDim);
    this.#dropPath = new DropPath(rate);
  }
  override *parts(): Iterable<[string, Module]> {
    yield ["alpha.0", this.#gate];
    yield ["q", this.#q];
    yield ["proj", this.#proj];
    yield ["layer_norm", this.#norm];
  }
  forward(map: Tensor, tokens: Tensor): Tensor {
    const local = byHead(map); // [N, heads, C / heads, L]
    const seen = softmax(queries(this.#q, tokens, heads).matmul(local)).matmul(local.mT); // [N, heads, T, C / heads]
    const gate = hardSigmoid(this.#gate.forward(tokens)).mul(2); // [N, T, C]
    const joined = seen.permute(0, 2, 1, 3).reshape(gate.shape).mul(gate);
    return this.#norm.forward(tokens.add(this.#dropPath.forward(this.#proj.forward(joined))));
  }
}

/** Tokens attend to each other, in four heads, then an MLP; norms come last (section 3.2).  [N, T, D] -> [N, T, D] */
class GlobalBlock extends Module {
  readonly #q;
  readonly #proj;
  readonly #norm;
  readonly #fc1;
  readonly #fc2;
  readonly #mlpNorm;
  readonly #dropPath;
  constructor(dim: number, rate: number) {
    super();
    this.#q = dense(dim, dim);
    this.#proj = dense(dim, dim);
    this.#norm = new LayerNorm(dim);
    this.#fc1 = dense(dim, 2 * dim);
    this.#fc2 = dense(2 * dim, dim);
    this.#mlpNorm = new LayerNorm(dim);
    this.#dropPath = new DropPath(rate);
  }
  override *parts(): Iterable<[string, Module]> {
    yield ["ffn.0", this.#fc1];
    yield ["ffn.2", this.#fc2];
    yield ["ffn_norm", this.#mlpNorm];
    yield ["q", this.#q];
    yield ["channel_mlp", this.#proj];
    yield ["layer_norm", this.#norm];
  }
  forward(tokens: Tensor): Tensor {
    const q = queries(this.#q, tokens, 4); // [N, 4, T, D / 4]
    const own = tokens.reshape([q.shape[0], q.shape[2], q.shape[1], q.shape[3]]).permute(0, 2, 1, 3);
    const mixed = softmax(q.matmul(own.mT)).matmul(own).permute(0, 2, 1, 3).reshape(tokens.shape);
    const y = this.#norm.forward(tokens.add(this.#dropPath.forward(this.#proj.forward(mixed))));
    return this.#mlpNorm.forward(y.add(this.#fc2.forward(gelu(this.#fc1.forward(y)))));
  }
}

/** Every place, a query as it is, attends to the tokens (equation 2).  map [N, C, H, W], tokens [N, T, D] -> [N, C, H, W] */
class GlobalToLocal extends Module {
  k;
  proj;
  dropPath;
  constructor(channels: number, tokenDim: number, rate: number) {
    super();
    this.k = dense(tokenDim, channels);
    this.proj = dense(tokenDim, channels);
    this.dropPath = new DropPath(rate);
  }
  forward(map: Tensor, tokens: Tensor): Tensor {
    const k = queries(this.k, tokens, heads); // [N, heads, T, C / heads]
    const v = this.proj.forward(tokens).mT.reshape([k.shape[0], heads, k.shape[3], k.shape[2]]); // [N, heads, C / heads, T]
    const told = v.matmul(softmax(k.matmul(byHead(map)), { axis: 2 })); // [N, heads, C / heads, L]
    return map.add(this.dropPath.forward(told.reshape(map.shape)));
  }
}

/** What a block has of the other stream: the bridge there, the stream itself, the bridge back (figure 3). */
class Former extends Module {
  localGlobal;
  globalBlock;
  globalLocal;
  constructor(inputs: number, dim: number, tokenDim: number, rate: number) {
    super();
    this.localGlobal = new LocalToGlobal(inputs, tokenDim, rate);
    this.globalBlock = new GlobalBlock(tokenDim, rate);
    this.globalLocal = new GlobalToLocal(dim, tokenDim, rate);
  }
  /** map [N, C, H, W], tokens [N, T, D] -> [N, T, D] */
  forward(map: Tensor, tokens: Tensor): Tensor {
    return this.globalBlock.forward(this.localGlobal.forward(map, tokens));
  }
}

/** Both streams after a block; tokens only where there are some. */
interface Streams {
  map: Tensor;
  tokens?: Tensor;
}

/** Depthwise, then pointwise: tokens pass by.  [N, C, H, W] -> [N, C', H / stride, W / stride] */
class LiteBlock extends Module {
  readonly #depthwise;
  readonly #pointwise;
  readonly #shuffled: number;
  readonly #same: boolean;
  constructor(inputs: number, expansion: number, dim: number, stride: number, groups: number) {
    super();
    this.#depthwise = new ConvNorm(inputs, expansion * inputs, 3, { stride, groups: inputs }, ["conv.0", "conv.1"]);
    this.#pointwise = new ConvNorm(expansion * inputs, dim, 1, { groups }, ["conv.4", "conv.5"]);
    this.#shuffled = groups > 1 ? inputs : 1;
    this.#same = stride === 1 && inputs === dim;
  }
  override *parts(): Iterable<[string, Module]> {
    yield* this.#depthwise.parts();
    yield* this.#pointwise.parts();
  }
  forward({ map, tokens }: Streams): Streams {
    const y = this.#pointwise.forward(shuffle(relu6(this.#depthwise.forward(map)), this.#shuffled));
    return { map: this.#same ? y.add(map) : y, tokens };
  }
}

/** One convolution of a block. */
interface Step {
  conv: ConvNorm;
  /** In how many groups its channels are shuffled. */
  shuffled: number;
  /** Channels that are then activated; 0 for none. */
  activated: number;
}

/** The convolutions of a bottleneck, or those that halve the map, and after how many of them the shortcut begins. */
function stepsOf(kind: "bottleneck" | "down", inputs: number, expansion: number, dim: number, groups: number) {
  const shuffledBy = (channels: number): number => (groups > 1 ? channels : 1);
  const inner = expansion * inputs;
  const pointwise = (from: number, to: number): ConvNorm => new ConvNorm(from, to, 1, { groups });
  if (kind === "bottleneck") {
    const depthwise = new ConvNorm(inner, inner, 3, { groups: inner });
    const steps: Step[] = [
      { conv: pointwise(inputs, inner), shuffled: groups, activated: inner },
      { conv: depthwise, shuffled: 1, activated: inner },
      { conv: pointwise(inner, dim), shuffled: groups, activated: 0 },
    ];
    return { steps, shortcut: inputs === dim ? 0 : undefined };
  }
  const first = new ConvNorm(inputs, inner, 3, { stride: 2, groups: inputs });
  const second = new ConvNorm(dim, 4 * dim, 3, { groups: dim });
  const steps: Step[] = [
    { conv: first, shuffled: shuffledBy(inputs), activated: inner },
    { conv: pointwise(inner, dim), shuffled: 1, activated: 0 },
    { conv: second, shuffled: shuffledBy(dim), activated: 4 * dim },
    { conv: pointwise(4 * dim, dim), shuffled: 1, activated: 0 },
  ];
  return { steps, shortcut: 2 };
}

/** Tokens see the map and each other, choose the activations of its convolutions, and tell it what they know (figure 3). */
class Block extends Module {
  readonly #steps: readonly Step[];
  readonly #shortcut: number | undefined;
  readonly #relus: readonly (TokenRelu | undefined)[];
  readonly #former: Former | undefined;
  readonly #dropPath;
  constructor(
    kind: "bottleneck" | "down",
    [inputs, expansion, dim]: readonly [number, number, number],
    { groups = 1, tokens }: MobileFormerConfig,
    rate: number,
  ) {
    super();
    const { steps, shortcut } = stepsOf(kind, inputs, expansion, dim, groups);
    this.#steps = steps;
    this.#shortcut = shortcut;
    this.#relus = steps.map(({ activated }) =>
      tokens && activated > 0 ? new TokenRelu(tokens.dim, activated) : undefined,
    );
    this.#former = tokens && new Former(inputs, dim, tokens.dim, rate);
    this.#dropPath = new DropPath(rate);
  }
  override *parts(): Iterable<[string, Module | Tensor]> {
    for (const [i, { conv }] of this.#steps.entries()) {
      yield [`conv${i + 1}`, conv];
      const relu = this.#relus[i];
      if (relu) yield [`hyper${i + 1}`, relu];
    }
    if (this.#former) yield* this.#former.parts();
  }
  forward({ map, tokens }: Streams): Streams {
    const told = this.#former && tokens ? this.#former.forward(map, tokens) : undefined;
    let [x, kept] = [map, map];
    for (const [i, { conv, shuffled, activated }] of this.#steps.entries()) {
      if (i === this.#shortcut) kept = x;
      const y = shuffle(conv.forward(x), shuffled);
      const relu = this.#relus[i];
      x = relu && told ? relu.forward(y, told) : activated > 0 ? relu6(y) : y;
    }
    const made = this.#shortcut === undefined ? x : kept.add(this.#dropPath.forward(x));
    return this.#former && told ? { map: this.#former.globalLocal.forward(made, told), tokens: told } : { map: made };
  }
}

/** What stands before the classifier: the pooled map and the first token, through one layer (figure 2). */
class Head extends Module {
  readonly #conv;
  readonly #fc;
  readonly #norm;
  readonly #groups;
  constructor(channels: number, { features, groups = 1, tokens }: MobileFormerConfig) {
    super();
    this.#groups = groups;
    this.#conv = new ConvNorm(channels, 6 * channels, 1, { groups }, ["conv.1", "conv.2"]);
    this.#fc = dense(6 * channels + (tokens?.dim ?? 0), features);
    this.#norm = new BatchNorm2d(features);
  }
  override *parts(): Iterable<[string, Module]> {
    yield* this.#conv.parts();
    yield ["fc.0", this.#fc];
    yield ["fc.1", this.#norm];
  }
  /** -> [N, features] */
  forward({ map, tokens }: Streams): Tensor {
    const pooled = hardSwish(relu6(this.#conv.forward(shuffle(map, this.#groups))).mean([2, 3])); // [N, 6C]
    const both = tokens ? concat([pooled, tokens.slice(1, 0, 1).squeeze(1)], 1) : pooled;
    return hardSwish(this.#norm.forward(this.#fc.forward(both)));
  }
}

/** The tokens as they start, a table as checkpoints keep it.  [T, D] */
class Tokens extends Module {
  weight;
  constructor({ count, dim }: { count: number; dim: number }) {
    super();
    this.weight = this.param([count, dim], normal(1));
  }
  /** -> [N, T, D] */
  forward(image: Tensor): Tensor {
    return expandBatch(this.weight.unsqueeze(0), image);
  }
}

export class MobileFormer extends Module implements Backbone {
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  readonly dim: number;
  readonly headName = "classifier.classifier.1";
  /** The last block of each map that is given. */
  readonly #ends: readonly number[];
  tokens;
  stem;
  features: (LiteBlock | Block)[];
  localGlobal;
  classifier;
  constructor(config: MobileFormerConfig, options: BackboneOptions = {}) {
    super();
    const { stem, rows, groups = 1, tokens, features } = config;
    const { inChannels = 3, dropPath = 0 } = options;
    let stride = 2; // that of the stem
    const strides = rows.map(([kind, , , step = kind === "down" ? 2 : 1]) => {
      stride *= step;
      return stride;
    });
    // Maps that only a lite block has seen are not given.
    this.#ends = rows.flatMap(([kind], i) => (strides[i] !== strides[i + 1] && kind !== "lite" ? [i] : []));
    this.strides = this.#ends.map((i) => strides[i]);
    this.channels = this.#ends.map((i) => rows[i][2]);
    this.dim = features;
    this.tokens = tokens && new Tokens(tokens);
    this.stem = new ConvNorm(inChannels, stem, 3, { stride: 2 });
    this.features = rows.map(([kind, expansion, dim, step = 1], i) => {
      const inputs = i === 0 ? stem : rows[i - 1][2];
      const rate = (dropPath * (i + 1)) / rows.length;
      if (kind === "lite") return new LiteBlock(inputs, expansion, dim, step, groups);
      return new Block(kind, [inputs, expansion, dim], config, rate);
    });
    const last = rows[rows.length - 1][2];
    this.localGlobal = tokens && new LocalToGlobal(last, tokens.dim, dropPath);
    this.classifier = new Head(last, config);
  }
  #streams(image: Tensor): Streams[] {
    let streams: Streams = { map: relu6(this.stem.forward(image)), tokens: this.tokens?.forward(image) };
    return this.features.map((block) => {
      streams = block.forward(streams);
      return streams;
    });
  }
  forward(image: Tensor): Tensor[] {
    const streams = this.#streams(image);
    return this.#ends.map((i) => streams[i].map);
  }
  embed(image: Tensor): Tensor {
    const streams = this.#streams(image);
    const { map, tokens } = streams[streams.length - 1];
    return this.classifier.forward({ map, tokens: tokens && this.localGlobal?.forward(map, tokens) });
  }
}

export const paper = "Chen et al., Mobile-Former (2022), https://arxiv.org/abs/2108.05895";

/** The rows of the four largest models, whose narrow stages differ in expansion. */
const rows = (dims: readonly number[], first: number, narrow: readonly [number, number]): Row[] => [
  ["lite", 2, dims[0]],
  ["down", 6, dims[1]],
  ["bottleneck", first, dims[1]],
  ["down", 6, dims[2]],
  ["bottleneck", narrow[0], dims[2]],
  ["down", 6, dims[3]],
  ["bottleneck", narrow[1], dims[3]],
  ["bottleneck", 6, dims[4]],
  ["bottleneck", 6, dims[4]],
  ["down", 6, dims[5]],
  ["bottleneck", 6, dims[5]],
  ["bottleneck", 6, dims[5]],
];
const rows96: Row[] = [
  ["lite", 2, 12],
  ["down", 6, 16],
  ["down", 6, 32],
  ["bottleneck", 3, 32],
  ["down", 6, 64],
  ["bottleneck", 4, 64],
  ["bottleneck", 6, 88],
  ["down", 6, 128],
  ["bottleneck", 6, 128],
];
const rows52: Row[] = [
  ["lite", 3, 12, 2],
  ["bottleneck", 3, 12],
  ["down", 6, 24],
  ["bottleneck", 3, 24],
  ["down", 6, 48],
  ["bottleneck", 4, 48],
  ["bottleneck", 6, 64],
  ["down", 6, 96],
  ["bottleneck", 6, 96],
];
const six = { count: 6, dim: 192 };
const three = { count: 3, dim: 128 };
const preprocessing = { interpolation: "bilinear" } as const;

/** For pictures of 32². */
const micro = (stem: number, dims: readonly [number, number, number]): Omit<MobileFormerConfig, "tokens"> => ({
  stem,
  rows: [
    ["lite", 2, dims[0]],
    ["down", 4, dims[1]],
    ["bottleneck", 3, dims[1]],
    ["down", 4, dims[2]],
    ["bottleneck", 3, dims[2]],
    ["bottleneck", 3, dims[2]],
  ],
  features: 256,
});
const microPictures = { imageSize: 32, cropPct: 1 };

/** Tables 1 and 11 to 13. */
export const variants: Record<string, Variant<MobileFormerConfig>> = {
  mobile_former_26m: { config: { stem: 8, rows: rows52, groups: 4, tokens: three, features: 1024 }, preprocessing },
  mobile_former_52m: { config: { stem: 8, rows: rows52, tokens: three, features: 1024 }, preprocessing },
  mobile_former_96m: {
    config: { stem: 12, rows: rows96, tokens: { count: 4, dim: 128 }, features: 1280 },
    preprocessing,
  },
  mobile_former_151m: {
    config: { stem: 12, rows: rows([12, 16, 32, 64, 88, 128], 3, [3, 4]), tokens: six, features: 1280 },
    preprocessing,
  },
  mobile_former_214m: {
    config: { stem: 12, rows: rows([12, 20, 40, 80, 112, 160], 3, [4, 4]), tokens: six, features: 1600 },
    preprocessing,
  },
  mobile_former_294m: {
    config: { stem: 16, rows: rows([16, 24, 48, 96, 128, 192], 4, [4, 4]), tokens: six, features: 1920 },
    preprocessing,
  },
  mobile_former_508m: {
    config: { stem: 24, rows: rows([24, 40, 72, 128, 176, 240], 3, [3, 4]), tokens: six, features: 1920 },
    preprocessing,
  },
  mobile_former_micro_32: {
    config: { ...micro(24, [24, 48, 96]), tokens: { count: 4, dim: 64 } },
    preprocessing: microPictures,
  },
  // The mobile stream alone, wider by what the other one costs.
  mobile_alone_micro_32: { config: micro(26, [26, 54, 106]), preprocessing: microPictures },
};

export const create = (config: MobileFormerConfig, options: BackboneOptions): MobileFormer =>
  new MobileFormer(config, options);
