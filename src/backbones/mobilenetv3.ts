/**
 * MobileNetV3: inverted residuals found by search, gated, with hard swish in the deep half and a head that reads the mean of the map.
 * Howard et al., "Searching for MobileNetV3" (ICCV 2019), https://arxiv.org/abs/1905.02244.  Parameter paths are timm's.
 */
import { hardSigmoid } from "../ops/elementwise.ts";
import type { BackboneOptions, Preprocessing, Variant } from "./backbone.ts";
import { deepen, divisible, MobileNet, type Row, type Squeeze, widen } from "./mobile.ts";

/** Kernel, channels inside, channels, gated or not, ReLU or hard swish, stride. */
type Line = readonly [
  kernel: number,
  inner: number,
  channels: number,
  squeeze: boolean,
  nonlinearity: "RE" | "HS",
  stride: number,
];

export interface MobileNetV3Config {
  /** Stages of lines. */
  table: readonly (readonly Line[])[];
  /** Channels of the convolution after the table, and before the classifier. */
  last: number;
  head: number;
  /** Factors of the channels and of the blocks. */
  width?: number;
  depth?: number;
  /** The variant that timm trained first: gates with the block's activation, no bias in the head, no shortcut in the first block. */
  rw?: boolean;
  /** As TensorFlow trained it: padding and ε. */
  tf?: boolean;
  /** Kernels of 3 × 3 and ReLU only, without gates: the authors' "minimalistic" models, for processors that are slow at the rest. */
  minimal?: boolean;
}

function stagesOf({ table, last, width = 1, depth = 1, rw, minimal }: MobileNetV3Config): Row[][] {
  let inputs = stem;
  const stages = table.map((lines) =>
    lines.map(([kernel, inner, channels, squeeze, nonlinearity, stride]): Row => {
      const expand = inner / inputs;
      const first = inputs === stem && inner === stem;
      inputs = channels;
      const activate = minimal || nonlinearity === "RE" ? "relu" : "hard-swish";
      const own = minimal ? { kernel: 3 } : { kernel, squeeze };
      const row = { ...own, expand, channels, activate, stride } as const;
      return first ? { ...row, block: "separable", shortcut: !rw } : { ...row, block: "inverted" };
    }),
  );
  return widen(deepen([...stages, [{ block: "conv", kernel: 1, channels: last }]], depth), width);
}

const squeeze: Squeeze = { reduced: (_, inner) => divisible(inner / 4), activate: "relu", gate: hardSigmoid };
const squeezeRw: Squeeze = { reduced: (_, inner) => inner / 4, gate: hardSigmoid };

export const paper = "Howard et al., Searching for MobileNetV3 (2019), https://arxiv.org/abs/1905.02244";

const stem = 16;
/** Table 1. */
const large: Pick<MobileNetV3Config, "table" | "last" | "head"> = {
  table: [
    [[3, 16, 16, false, "RE", 1]],
    [
      [3, 64, 24, false, "RE", 2],
      [3, 72, 24, false, "RE", 1],
    ],
    [
      [5, 72, 40, true, "RE", 2],
      [5, 120, 40, true, "RE", 1],
      [5, 120, 40, true, "RE", 1],
    ],
    [
      [3, 240, 80, false, "HS", 2],
      [3, 200, 80, false, "HS", 1],
      [3, 184, 80, false, "HS", 1],
      [3, 184, 80, false, "HS", 1],
    ],
    [
      [3, 480, 112, true, "HS", 1],
      [3, 672, 112, true, "HS", 1],
    ],
    [
      [5, 672, 160, true, "HS", 2],
      [5, 960, 160, true, "HS", 1],
      [5, 960, 160, true, "HS", 1],
    ],
  ],
  last: 960,
  head: 1280,
};
/** Table 2. */
const small: typeof large = {
  table: [
    [[3, 16, 16, true, "RE", 2]],
    [
      [3, 72, 24, false, "RE", 2],
      [3, 88, 24, false, "RE", 1],
    ],
    [
      [5, 96, 40, true, "HS", 2],
      [5, 240, 40, true, "HS", 1],
      [5, 240, 40, true, "HS", 1],
    ],
    [
      [5, 120, 48, true, "HS", 1],
      [5, 144, 48, true, "HS", 1],
    ],
    [
      [5, 288, 96, true, "HS", 2],
      [5, 576, 96, true, "HS", 1],
      [5, 576, 96, true, "HS", 1],
    ],
  ],
  last: 576,
  head: 1024,
};
const half = [0.5, 0.5, 0.5] as const;
const tfPictures: Partial<Preprocessing> = { interpolation: "bilinear", mean: half, std: half };
const pictures256: Partial<Preprocessing> = { ...tfPictures, imageSize: 256, cropPct: 0.95 };

export const variants: Record<string, Variant<MobileNetV3Config>> = {
  mobilenetv3_large_075: { config: { ...large, width: 0.75 }, preprocessing: { interpolation: "bilinear" } },
  mobilenetv3_large_100: { config: large },
  mobilenetv3_large_150d: { config: { ...large, width: 1.5, depth: 1.2 }, preprocessing: pictures256 },
  mobilenetv3_small_050: { config: { ...small, width: 0.5 } },
  mobilenetv3_small_075: { config: { ...small, width: 0.75 } },
  mobilenetv3_small_100: { config: small },
  mobilenetv3_rw: { config: { ...large, rw: true } },
  tf_mobilenetv3_large_075: { config: { ...large, tf: true, width: 0.75 }, preprocessing: tfPictures },
  tf_mobilenetv3_large_100: { config: { ...large, tf: true }, preprocessing: tfPictures },
  tf_mobilenetv3_large_minimal_100: { config: { ...large, tf: true, minimal: true }, preprocessing: tfPictures },
  tf_mobilenetv3_small_075: { config: { ...small, tf: true, width: 0.75 }, preprocessing: tfPictures },
  tf_mobilenetv3_small_100: { config: { ...small, tf: true }, preprocessing: tfPictures },
  tf_mobilenetv3_small_minimal_100: { config: { ...small, tf: true, minimal: true }, preprocessing: tfPictures },
};

export const create = (config: MobileNetV3Config, options: BackboneOptions): MobileNet => {
  const { head, width = 1, rw, tf, minimal } = config;
  return new MobileNet(
    {
      // The narrowest models keep the first convolution as it is.
      stem: width < 0.75 ? stem : divisible(stem * width),
      stages: stagesOf(config),
      head,
      headAfterMean: { bias: !rw },
      activate: minimal ? "relu" : "hard-swish",
      squeeze: rw ? squeezeRw : squeeze,
      eps: rw || tf ? 1e-3 : 1e-5,
      padding: tf ? "same" : undefined,
    },
    options,
  );
};
