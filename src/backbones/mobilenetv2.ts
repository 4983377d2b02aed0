/**
 * MobileNetV2: depthwise convolutions between a thin map and a wide one, and shortcuts between the thin ones.
 * Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (CVPR 2018), https://arxiv.org/abs/1801.04381.
 * Parameter paths are timm's.
 */
import { DynamicRelu } from "../nn/dynamic-relu.ts";
import type { BackboneOptions, Preprocessing, Variant } from "./backbone.ts";
import { deepen, divisible, type MobileConfig, MobileNet, type Row, widen } from "./mobile.ts";

/** Expansion, channels, blocks and stride of the first of them. */
type Line = readonly [expand: number, channels: number, repeats: number, stride: number];

export interface MobileNetV2Config {
  lines: readonly Line[];
  /** Factors of the channels and of the blocks. */
  width?: number;
  depth?: number;
  stem?: number;
  head?: number;
}

export interface MobileNetV2Options extends BackboneOptions {
  /** Dynamic ReLU with one function for all channels (a) or one for each (b) instead of ReLU6: `nn/dynamic-relu.ts`. */
  activation?: "relu6" | "relu" | "dynamic-relu-a" | "dynamic-relu-b";
}

function stagesOf({ lines, width = 1, depth = 1 }: MobileNetV2Config): Row[][] {
  const stages = lines.map(([expand, channels, repeats, stride]): Row[] => [
    { block: expand === 1 ? "separable" : "inverted", kernel: 3, expand, channels, repeats, stride },
  ]);
  // The first and last stage keep their depth.
  const inner = deepen(stages.slice(1, -1), depth);
  return widen([stages[0], ...inner, stages[stages.length - 1]], width);
}

function activationOf(name: MobileNetV2Options["activation"] = "relu6"): MobileConfig["activate"] {
  switch (name) {
    case "dynamic-relu-a":
      return (channels) => new DynamicRelu(channels, { shared: true });
    case "dynamic-relu-b":
      return (channels) => new DynamicRelu(channels);
    default:
      return name;
  }
}

export const paper = "Sandler et al., MobileNetV2 (2018), https://arxiv.org/abs/1801.04381";

/** Table 2. */
const lines: readonly Line[] = [
  [1, 16, 1, 1],
  [6, 24, 2, 2],
  [6, 32, 3, 2],
  [6, 64, 4, 2],
  [6, 96, 3, 1],
  [6, 160, 3, 2],
  [6, 320, 1, 1],
];
const scaled = (width: number): Variant<MobileNetV2Config> => ({
  config: { lines, width, stem: divisible(32 * width), head: Math.max(1280, divisible(1280 * width)) },
});
/** Deeper and wider between a stem and a head that stay. */
const deeper = (width: number, depth: number): Variant<MobileNetV2Config> => ({ config: { lines, width, depth } });
const small: Partial<Preprocessing> = { imageSize: 32, cropPct: 1 };

export const variants: Record<string, Variant<MobileNetV2Config>> = {
  mobilenetv2_035: scaled(0.35),
  mobilenetv2_050: scaled(0.5),
  mobilenetv2_075: scaled(0.75),
  mobilenetv2_100: scaled(1),
  mobilenetv2_140: scaled(1.4),
  mobilenetv2_110d: deeper(1.1, 1.2),
  mobilenetv2_120d: deeper(1.2, 1.4),
  mobilenetv2_micro_32: {
    config: {
      lines: [
        [1, 16, 1, 1],
        [3, 24, 2, 2],
        [3, 32, 2, 2],
      ],
      stem: 16,
      head: 128,
    },
    preprocessing: small,
  },
};

export const options = { activation: ["relu6", "relu", "dynamic-relu-a", "dynamic-relu-b"] } as const;

export const create = (config: MobileNetV2Config, options: MobileNetV2Options): MobileNet => {
  const { stem = 32, head = 1280 } = config;
  return new MobileNet({ stem, stages: stagesOf(config), head, activate: activationOf(options.activation) }, options);
};
