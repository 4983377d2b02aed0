/**
 * RandAugment with timm's operations, magnitudes and configuration strings.
 * Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space" (2019).
 */
import { nearest, UsageError } from "../base/errors.ts";
import type { Random } from "../base/philox.ts";
import { type AffineOptions, rotate, shearX, shearY, translate } from "./affine.ts";
import { gaussianBlur } from "./blur.ts";
import {
  autocontrast,
  brightness,
  color,
  contrast,
  equalize,
  invert,
  posterize,
  sharpness,
  solarize,
  solarizeAdd,
} from "./enhance.ts";
import type { Image } from "./image.ts";

/** `level` is the magnitude as a share of 10; `sign` is -1 or 1 at random. */
type Op = (image: Image, level: number, sign: number, options: AffineOptions) => Image;

/** Moves away from 1 in either direction as the level grows. */
const factorAwayFromOne = (level: number, sign: number): number => Math.max(0.1, 1 + sign * level * 0.9);
const factor = (level: number): number => level * 1.8 + 0.1;
const keepBits = (image: Image, bits: number): Image => (bits >= 8 ? image : posterize(image, bits));
const solarizeLevel = (level: number): number => Math.min(256, Math.trunc(level * 256));

/** An operation ending in `Increasing` does more at a higher level; its twin without the word follows the first papers' scales, which do not. */
export const randAugmentOps = {
  AutoContrast: (image) => autocontrast(image),
  Equalize: (image) => equalize(image),
  Invert: (image) => invert(image),
  Rotate: (image, level, sign, options) => rotate(image, sign * level * 30, options),
  Posterize: (image, level) => keepBits(image, Math.trunc(level * 4)),
  PosterizeIncreasing: (image, level) => keepBits(image, 4 - Math.trunc(level * 4)),
  Solarize: (image, level) => solarize(image, solarizeLevel(level)),
  SolarizeIncreasing: (image, level) => solarize(image, 256 - solarizeLevel(level)),
  SolarizeAdd: (image, level) => solarizeAdd(image, Math.min(128, Math.trunc(level * 110))),
  Color: (image, level) => color(image, factor(level)),
  ColorIncreasing: (image, level, sign) => color(image, factorAwayFromOne(level, sign)),
  Contrast: (image, level) => contrast(image, factor(level)),
  ContrastIncreasing: (image, level, sign) => contrast(image, factorAwayFromOne(level, sign)),
  Brightness: (image, level) => brightness(image, factor(level)),
  BrightnessIncreasing: (image, level, sign) => brightness(image, factorAwayFromOne(level, sign)),
  Sharpness: (image, level) => sharpness(image, factor(level)),
  SharpnessIncreasing: (image, level, sign) => sharpness(image, factorAwayFromOne(level, sign)),
  ShearX: (image, level, sign, options) => shearX(image, sign * level * 0.3, options),
  ShearY: (image, level, sign, options) => shearY(image, sign * level * 0.3, options),
  TranslateXRel: (image, level, sign, options) => translate(image, sign * level * 0.45 * image.width, 0, options),
  TranslateYRel: (image, level, sign, options) => translate(image, 0, sign * level * 0.45 * image.height, options),
  Desaturate: (image, level) => color(image, 1 - Math.min(Math.max(0.5 + 0.5 * level, 0.5), 1)),
  GaussianBlur: (image, level) => gaussianBlur(image, Math.min(Math.max(0.1 + 1.9 * level, 0.1), 2)),
} satisfies Record<string, Op>;

export type RandAugmentOp = keyof typeof randAugmentOps;

const plain: readonly RandAugmentOp[] = [
  "AutoContrast",
  "Equalize",
  "Invert",
  "Rotate",
  "Posterize",
  "Solarize",
  "SolarizeAdd",
  "Color",
  "Contrast",
  "Brightness",
  "Sharpness",
  "ShearX",
  "ShearY",
  "TranslateXRel",
  "TranslateYRel",
];
const withTwin = (name: RandAugmentOp): RandAugmentOp =>
  `${name}Increasing` in randAugmentOps ? (`${name}Increasing` as RandAugmentOp) : name;

/** Named sets of operations: a list, each as likely as the others, or weights. */
const sets: Record<string, readonly RandAugmentOp[] | Partial<Record<RandAugmentOp, number>>> = {
  "3a": ["SolarizeIncreasing", "Desaturate", "GaussianBlur"],
  "3aw": {
    SolarizeIncreasing: 6,
    Desaturate: 6,
    GaussianBlur: 6,
    Rotate: 3,
    ShearX: 2,
    ShearY: 2,
    PosterizeIncreasing: 1,
    AutoContrast: 1,
    ColorIncreasing: 1,
    SharpnessIncreasing: 1,
    ContrastIncreasing: 1,
    BrightnessIncreasing: 1,
    Equalize: 1,
    Invert: 1,
  },
  weights: {
    Rotate: 3,
    ShearX: 2,
    ShearY: 2,
    TranslateXRel: 1,
    TranslateYRel: 1,
    ColorIncreasing: 0.25,
    SharpnessIncreasing: 0.25,
    AutoContrast: 0.25,
    SolarizeIncreasing: 0.05,
    SolarizeAdd: 0.05,
    ContrastIncreasing: 0.05,
    BrightnessIncreasing: 0.05,
    Equalize: 0.05,
    PosterizeIncreasing: 0.05,
    Invert: 0.05,
  },
};

/** A parsed configuration. */
export interface RandAugmentPolicy {
  ops: readonly RandAugmentOp[];
  /** How likely each operation is to be chosen, where they differ; an operation is then chosen at most once for a picture. */
  weights?: readonly number[];
  /** 0 to 10, and above where `max` allows it. */
  magnitude: number;
  /** Standard deviation of the magnitude; Infinity draws it evenly between 0 and `magnitude`. */
  std: number;
  max: number;
  /** Operations chosen for a picture. */
  layers: number;
  /** How often a chosen one is applied. */
  prob: number;
}

const sections: Record<string, string> = {
  m: "magnitude, 0 to 10",
  n: "operations for each picture",
  p: "probability of each",
  mstd: "spread of the magnitude",
  mmax: "highest magnitude",
  inc: "1 for operations that do more at a higher magnitude",
  t: `set of operations: ${Object.keys(sets).join(", ")}`,
};

/** Reads timm's form, such as `rand-m9-mstd0.5-inc1`. */
export function parseRandAugment(text: string): RandAugmentPolicy {
  const wrong = (message: string) =>
    new UsageError({
      message: `RandAugment: ${message}`,
      at: text,
      details: Object.entries(sections).map(([key, meaning]) => `${key.padEnd(5)} ${meaning}`),
      help: "write it like rand-m9-mstd0.5-inc1",
    });
  const [name, ...parts] = text.split("-");
  if (name !== "rand") throw wrong(`the text begins with "${name}", not with "rand"`);
  const numbers: Record<string, number> = { m: 10, n: 2, p: 0.5, mstd: 0, mmax: 10, inc: 0 };
  let set: string | undefined;
  for (const part of parts) {
    if (part.startsWith("t")) {
      set = part.slice(1);
      if (!(set in sets))
        throw wrong(`there is no set of operations "${set}"; the nearest is "${nearest(set, Object.keys(sets), 1)}"`);
      continue;
    }
    const [, key, value] = /^([a-z]+)(\d+(?:\.\d+)?|inf)$/.exec(part) ?? [];
    if (key === undefined || !(key in numbers)) throw wrong(`the part "${part}" is not understood`);
    numbers[key] = value === "inf" ? Number.POSITIVE_INFINITY : Number(value);
  }
  const { m: magnitude, n: layers, p: prob, mstd, mmax: max, inc } = numbers;
  if (!Number.isInteger(layers) || layers < 1) throw wrong(`n is ${layers}; it must be a whole number of at least 1`);
  if (prob > 1) throw wrong(`p is ${prob}; a probability is at most 1`);
  if (magnitude > max) throw wrong(`m is ${magnitude}, above the highest magnitude, ${max}; raise it with mmax`);
  const chosen = set === undefined ? (inc ? plain.map(withTwin) : plain) : sets[set];
  const common = { magnitude, layers, prob, max, std: mstd > 100 ? Number.POSITIVE_INFINITY : mstd };
  if (Array.isArray(chosen)) return { ops: chosen, ...common };
  const ops = Object.keys(chosen) as RandAugmentOp[];
  if (layers > ops.length) throw wrong(`n is ${layers}, but the set has ${ops.length} operations and uses none twice`);
  return { ops, weights: Object.values(chosen), ...common };
}

/** Applies the policy.  `filter: "random"` takes bilinear or bicubic by chance.  [H, W, 3] -> [H, W, 3] */
export function randAugment(
  image: Image,
  policy: RandAugmentPolicy,
  random: Random,
  { filter, fill }: { filter: "bilinear" | "bicubic" | "random"; fill: readonly number[] },
): Image {
  let out = image;
  for (const name of chooseOps(policy, random)) {
    if (random.uniform() >= policy.prob) continue;
    const op: Op = randAugmentOps[name];
    const level = drawMagnitude(policy, random) / 10;
    const sign = random.uniform() < 0.5 ? -1 : 1;
    const either = random.uniform() < 0.5 ? "bilinear" : "bicubic";
    out = op(out, level, sign, { filter: filter === "random" ? either : filter, fill });
  }
  return out;
}

function chooseOps({ ops, weights, layers }: RandAugmentPolicy, random: Random): RandAugmentOp[] {
  if (!weights) return Array.from({ length: layers }, () => ops[random.below(ops.length)]);
  const left = [...weights];
  return Array.from({ length: layers }, () => {
    let rest = random.uniform() * left.reduce((a, b) => a + b);
    const found = left.findIndex((weight) => {
      rest -= weight;
      return rest < 0;
    });
    const at = found >= 0 ? found : left.findLastIndex((weight) => weight > 0);
    left[at] = 0;
    return ops[at];
  });
}

function drawMagnitude({ magnitude, std, max }: RandAugmentPolicy, random: Random): number {
  if (std === Number.POSITIVE_INFINITY) return Math.min(random.between(0, magnitude), max);
  return Math.min(Math.max(magnitude + std * (std > 0 ? random.normal() : 0), 0), max);
}
