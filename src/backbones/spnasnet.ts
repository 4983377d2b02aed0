/**
 * Single-Path NAS: kernels and expansions are searched as parts of one large kernel instead of paths beside each other; this is the
 * network it found for a Pixel 1.
 * Stamoulis et al., "Single-Path NAS: Designing Hardware-Efficient ConvNets in less than 4 Hours" (ECML-PKDD 2019),
 * https://arxiv.org/abs/1904.02877.  Parameter paths are timm's.
 */
import type { BackboneOptions, Variant } from "./backbone.ts";
import { inverted, type MobileConfig, MobileNet, separable } from "./mobile.ts";

export const paper = "Stamoulis et al., Single-Path NAS (2019), https://arxiv.org/abs/1904.02877";

export const variants: Record<string, Variant<MobileConfig>> = {
  spnasnet_100: {
    config: {
      stem: 32,
      stages: [
        [separable(16, 1, false)],
        [inverted(3, 3, 24, 3, 2)],
        [inverted(5, 6, 40, 1, 2), inverted(3, 3, 40, 3)],
        [inverted(5, 6, 80, 1, 2), inverted(3, 3, 80, 3)],
        [inverted(5, 6, 96), inverted(5, 3, 96, 3)],
        [inverted(5, 6, 192, 4, 2)],
        [inverted(3, 6, 320)],
      ],
      head: 1280,
      activate: "relu",
    },
    preprocessing: { interpolation: "bilinear" },
  },
};

export const create = (config: MobileConfig, options: BackboneOptions): MobileNet => new MobileNet(config, options);
