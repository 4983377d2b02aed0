/**
 * MnasNet: inverted residuals whose kernels, widths, depths and gates were searched stage by stage, for accuracy and time on a phone.
 * Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for Mobile" (CVPR 2019), https://arxiv.org/abs/1807.11626.
 * Parameter paths are timm's, whose mnasnet_* are B1 and whose semnasnet_* are A1.
 */
import type { BackboneOptions, Variant } from "./backbone.ts";
import { divisible, inverted, MobileNet, type Row, separable, widen } from "./mobile.ts";

export interface MnasNetConfig {
  stem: number;
  stages: readonly (readonly Row[])[];
  width?: number;
}

export const paper = "Tan et al., MnasNet (2019), https://arxiv.org/abs/1807.11626";

/** Figure 7 (a): gates in the stages of 40, 112 and 160 channels. */
const a1: MnasNetConfig = {
  stem: 32,
  stages: [
    [separable(16, 1, false)],
    [inverted(3, 6, 24, 2, 2)],
    [inverted(5, 3, 40, 3, 2, true)],
    [inverted(3, 6, 80, 4, 2)],
    [inverted(3, 6, 112, 2, 1, true)],
    [inverted(5, 6, 160, 3, 2, true)],
    [inverted(3, 6, 320)],
  ],
};
/** Searched without gates: the official repository's b1 (tensorflow/tpu, mnasnet_models.py). */
const b1: MnasNetConfig = {
  stem: 32,
  stages: [
    [separable(16, 1, false)],
    [inverted(3, 3, 24, 3, 2)],
    [inverted(5, 3, 40, 3, 2)],
    [inverted(5, 6, 80, 3, 2)],
    [inverted(3, 6, 96, 2)],
    [inverted(5, 6, 192, 4, 2)],
    [inverted(3, 6, 320)],
  ],
};
/** The official repository's small model. */
const small: MnasNetConfig = {
  stem: 8,
  stages: [
    [separable(8)],
    [inverted(3, 3, 16, 1, 2)],
    [inverted(3, 6, 16, 2, 2)],
    [inverted(5, 6, 32, 4, 2, true)],
    [inverted(3, 6, 32, 3, 1, true)],
    [inverted(5, 6, 88, 3, 2, true)],
    [inverted(3, 6, 144)],
  ],
};

export const variants: Record<string, Variant<MnasNetConfig>> = {
  mnasnet_050: { config: { ...b1, width: 0.5 } },
  mnasnet_075: { config: { ...b1, width: 0.75 } },
  mnasnet_100: { config: b1, aliases: ["mnasnet_b1"] },
  mnasnet_140: { config: { ...b1, width: 1.4 } },
  semnasnet_050: { config: { ...a1, width: 0.5 } },
  semnasnet_075: { config: { ...a1, width: 0.75 } },
  semnasnet_100: { config: a1, aliases: ["mnasnet_a1"] },
  semnasnet_140: { config: { ...a1, width: 1.4 } },
  mnasnet_small: { config: small },
};

export const create = ({ stem, stages, width = 1 }: MnasNetConfig, options: BackboneOptions): MobileNet =>
  new MobileNet({ stem: divisible(stem * width), stages: widen(stages, width), head: 1280, activate: "relu" }, options);
