/**
 * FBNet: every block chosen by gradient from a table of candidates with measured latencies.
 * Wu et al., "FBNet: Hardware-Aware Efficient ConvNet Design via Differentiable Neural Architecture Search" (CVPR 2019),
 * https://arxiv.org/abs/1812.03443; FBNetV3 searches the training recipe with it, Dai et al., "FBNetV3: Joint Architecture-Recipe
 * Search using Predictor Pretraining" (CVPR 2021), https://arxiv.org/abs/2006.02049.  Parameter paths are timm's.
 */
import { hardSigmoid } from "../ops/elementwise.ts";
import type { BackboneOptions, OptionRule, Variant } from "./backbone.ts";
import { divisible, inverted, type MobileConfig, MobileNet, type Row, separable } from "./mobile.ts";

export interface FBNetOptions extends BackboneOptions {
  /** ε of the batch norms, where weights were trained with another than the published ones. */
  eps?: number;
}

export const paper = "Wu et al., FBNet (2019), https://arxiv.org/abs/1812.03443";

/** FBNet-C, as the paper draws it; the channels are those of table 1, and ε that of timm's published weights. */
const c: MobileConfig = {
  stem: 16,
  stages: [
    [inverted(3, 1, 16)],
    [inverted(3, 6, 24, 1, 2), inverted(3, 1, 24, 2)],
    [inverted(5, 6, 32, 1, 2), inverted(5, 3, 32), inverted(5, 6, 32), inverted(3, 6, 32)],
    [inverted(5, 6, 64, 1, 2), inverted(5, 3, 64), inverted(5, 6, 64, 2)],
    [inverted(5, 6, 112, 3), inverted(5, 3, 112)],
    [inverted(5, 6, 184, 4, 2)],
    [inverted(3, 6, 352)],
  ],
  head: 1984,
  activate: "relu",
  eps: 1e-3,
};

/** Hard swish everywhere, gates of a quarter of what comes into the block, and a head after the mean. */
const v3 = (stem: number, stages: readonly (readonly Row[])[], last: number): MobileConfig => ({
  stem,
  stages: [...stages, [{ block: "conv", kernel: 1, channels: last }]],
  head: 1984,
  headAfterMean: { bias: false },
  activate: "hard-swish",
  squeeze: { reduced: (inputs) => divisible(inputs / 4, { limit: 0.95 }), gate: hardSigmoid },
});

const b = v3(
  16,
  [
    [separable(16, 2)],
    [inverted(5, 4, 24, 1, 2), inverted(5, 2, 24, 3)],
    [inverted(5, 5, 40, 1, 2, true), inverted(5, 3, 40, 4, 1, true)],
    [inverted(5, 5, 72, 1, 2), inverted(3, 3, 72, 4)],
    [inverted(3, 5, 120, 1, 1, true), inverted(5, 3, 120, 5, 1, true)],
    [inverted(3, 6, 184, 1, 2, true), inverted(5, 4, 184, 5, 1, true), inverted(5, 6, 224, 1, 1, true)],
  ],
  1344,
);
const d = v3(
  24,
  [
    [separable(16, 2)],
    [inverted(3, 5, 24, 1, 2), inverted(3, 2, 24, 5)],
    [inverted(5, 4, 40, 1, 2, true), inverted(3, 3, 40, 4, 1, true)],
    [inverted(3, 5, 72, 1, 2), inverted(3, 3, 72, 4)],
    [inverted(3, 5, 128, 1, 1, true), inverted(5, 3, 128, 6, 1, true)],
    [inverted(3, 6, 208, 1, 2, true), inverted(5, 5, 208, 5, 1, true), inverted(5, 6, 240, 1, 1, true)],
  ],
  1440,
);
const g = v3(
  32,
  [
    [separable(24, 3)],
    [inverted(5, 4, 40, 1, 2), inverted(5, 2, 40, 4)],
    [inverted(5, 4, 56, 1, 2, true), inverted(5, 3, 56, 4, 1, true)],
    [inverted(5, 5, 104, 1, 2), inverted(3, 3, 104, 4)],
    [inverted(3, 5, 160, 1, 1, true), inverted(5, 3, 160, 8, 1, true)],
    [inverted(3, 6, 264, 1, 2, true), inverted(5, 5, 264, 6, 1, true), inverted(5, 6, 288, 2, 1, true)],
  ],
  1728,
);

const pictures = { cropPct: 0.95, interpolation: "bilinear" } as const;

export const variants: Record<string, Variant<MobileConfig>> = {
  fbnetc_100: { config: c, preprocessing: { interpolation: "bilinear" } },
  fbnetv3_b: { config: b, preprocessing: pictures },
  fbnetv3_d: { config: d, preprocessing: pictures },
  fbnetv3_g: { config: g, preprocessing: { ...pictures, imageSize: 240 } },
};

export const options: Record<string, OptionRule> = {
  eps: { wants: "a number above 0", takes: (eps) => typeof eps === "number" && eps > 0 },
};

export const create = (config: MobileConfig, { eps = config.eps, ...options }: FBNetOptions): MobileNet =>
  new MobileNet({ ...config, eps }, options);
