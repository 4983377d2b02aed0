import { didYouMean, UsageError } from "../base/errors.ts";
import { isCount } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { Initializer } from "../nn/init.ts";
import { Linear } from "../nn/layers.ts";
import type { Module } from "../nn/module.ts";
import type { Layer } from "../nn/sequential.ts";
import type { FamilyNames } from "./names.ts";

/** How pictures are prepared for a model: what timm calls its pretrained configuration. */
export interface Preprocessing {
  /** Side of the square that the model reads, in pixels. */
  imageSize: number;
  /** Evaluation resizes the shorter side to imageSize / cropPct, then cuts out the centre. */
  cropPct: number;
  /** "squash" resizes both sides to imageSize instead, whatever the picture's shape. */
  cropMode?: "center" | "squash";
  interpolation: "bicubic" | "bilinear";
  /** Of pixels in 0…1, for red, green and blue. */
  mean: readonly [number, number, number];
  std: readonly [number, number, number];
}

export const imagenet: Preprocessing = {
  imageSize: 224,
  cropPct: 0.875,
  interpolation: "bicubic",
  mean: [0.485, 0.456, 0.406],
  std: [0.229, 0.224, 0.225],
};

/** What every family gives: a pyramid of maps for dense tasks, and one vector for each image to classify by. */
export interface Backbone extends Module {
  /** Channels and strides of the maps, stage by stage. */
  readonly channels: readonly number[];
  readonly strides: readonly number[];
  /** [N, 3, H, W] -> a map for each stage, [N, C, H / stride, W / stride] */
  forward(image: Tensor): Tensor[];
  /** The width of what `embed` returns. */
  readonly dim: number;
  /** [N, 3, H, W] -> [N, dim] */
  embed(image: Tensor): Tensor;
  /** Where published checkpoints keep the classifier: "head", "head.fc", "fc". */
  readonly headName: string;
  /** How the classifier's weights begin, where it is not the deviation of 0.02 that transformers have. */
  readonly headInit?: Initializer;
  /** A classifier, where it is more than a linear layer.  [N, dim] -> [N, classes] */
  createHead?(classes: number): Layer;
  /** Further classifiers that published checkpoints keep, as wide as the first one. */
  readonly otherHeads?: readonly string[];
  /**
   * What all classifiers say together, the first of `heads` being that of `headName`.  Without it there is one, and it reads `embed`.
   * [N, 3, H, W] -> [N, classes]
   */
  logits?(image: Tensor, heads: readonly Layer[]): Tensor;
}

/** Where a backbone's checkpoints keep its classifiers, the first one first. */
export const headNames = ({ headName, otherHeads = [] }: Backbone): string[] => [headName, ...otherHeads];

/** New classifiers for these places. */
export function createHeads(backbone: Backbone, classes: number): Layer[] {
  if (!isCount(classes))
    throw new UsageError({
      message: `a classifier cannot be for ${classes} classes`,
      help: "give it one or more; for vectors without a classifier there is the backbone's `embed`",
    });
  return headNames(backbone).map(
    () => backbone.createHead?.(classes) ?? new Linear(backbone.dim, classes, { init: backbone.headInit }),
  );
}

/** What an image is classified as.  [N, 3, H, W] -> [N, classes] */
export const logitsOf = (backbone: Backbone, image: Tensor, heads: readonly Layer[]): Tensor =>
  backbone.logits ? backbone.logits(image, heads) : heads[0].forward(backbone.embed(image));

/** What a caller may change about any model; some families know more. */
export interface BackboneOptions {
  /** Side of the images, or height and width. */
  imageSize?: number | readonly [number, number];
  inChannels?: number;
  /** Stochastic depth of the last block; it grows linearly from 0. */
  dropPath?: number;
}

/** What an option may be, in words and as a test. */
export interface OptionRule {
  wants: string;
  takes: (value: unknown) => boolean;
}

/** A published size of a family. */
export interface Variant<C> {
  config: C;
  preprocessing?: Partial<Preprocessing>;
  /** How linear layers begin, where the published deviation of 0.02 is too little: in models narrower than 100 channels. */
  init?: Initializer;
  /** Classes of the classifier that it was published with, 0 where it has none; 1000 unless given. */
  classes?: number;
  /** Other names for it: an official repository's. */
  aliases?: readonly string[];
}

/** What a family's file exports. */
export interface Family<C = never> {
  /** "Liu et al., …" */
  paper: string;
  variants: Readonly<Record<string, Variant<C>>>;
  /** The options that only this family knows: their choices, or what they take. */
  options?: Readonly<Record<string, readonly string[] | OptionRule>>;
  /** How others call its weights; where a convention is missing, it names them as we do. */
  names?: FamilyNames | ((config: C) => FamilyNames);
  create(config: C, options: BackboneOptions): Backbone;
}

/** Height and width from one number or two. */
export const sides = (size: number | readonly [number, number]): readonly [number, number] =>
  typeof size === "number" ? [size, size] : size;

/** Rates of stochastic depth for `count` blocks, from 0 to `last`. */
export const dropPathRates = (count: number, last: number): number[] =>
  Array.from({ length: count }, (_, i) => (count === 1 ? 0 : (last * i) / (count - 1)));

/** Rates of stochastic depth for each block of each stage; over all stages they grow from 0 to `last`. */
export function stageRates(depths: readonly number[], last: number): number[][] {
  const rates = dropPathRates(
    depths.reduce((a, b) => a + b, 0),
    last,
  );
  return depths.map((depth) => rates.splice(0, depth));
}

/** What each stage makes of what the one before it made. */
export function throughStages(stages: readonly { forward(x: Tensor): Tensor }[], start: Tensor): Tensor[] {
  let x = start;
  return stages.map((stage) => {
    x = stage.forward(x);
    return x;
  });
}

const common: Readonly<Record<keyof BackboneOptions, OptionRule>> = {
  imageSize: {
    wants: "a number of pixels, or [height, width]",
    takes: (size) => (Array.isArray(size) ? size.length === 2 && size.every(isCount) : isCount(size)),
  },
  inChannels: { wants: "a whole number of channels", takes: isCount },
  dropPath: {
    wants: "a rate from 0 to below 1",
    takes: (rate) => typeof rate === "number" && rate >= 0 && rate < 1,
  },
};

const oneOf = (choices: readonly string[]): OptionRule => ({
  wants: choices.join(" or "),
  takes: (value) => choices.some((choice) => choice === value),
});

/** Throws where an option is unknown or has a value that it cannot have.  `special`: the family's own. */
export function checkOptions(model: string, options: object, special: Family["options"] = {}): void {
  const names = [...Object.keys(common), ...Object.keys(special)];
  for (const [name, value] of Object.entries(options)) {
    if (!names.includes(name))
      throw new UsageError({
        message: `${model} has no option "${name}"`,
        help: didYouMean(name, names, `it knows ${names.join(", ")}`),
      });
    if (value === undefined) continue;
    const rule = Object.hasOwn(special, name) ? special[name] : common[name as keyof BackboneOptions];
    const fits = "takes" in rule ? rule : oneOf(rule);
    if (!fits.takes(value))
      throw new UsageError(
        `${name} of ${model} must be ${fits.wants}, it is ${typeof value === "number" ? value : JSON.stringify(value)}`,
      );
  }
}

/** Throws where an image is smaller than one element of the last map: the model would look at padding more than at the image. */
export function checkImage(model: string, backbone: Backbone, size: number | readonly [number, number]): void {
  const stride = Math.max(...backbone.strides);
  if (Math.min(...sides(size)) >= stride) return;
  throw new UsageError({
    message: `an image of ${sides(size).join(" × ")} is too small for ${model}`,
    help: `its last map has one element for ${stride} × ${stride} pixels: give images of ${stride} × ${stride} or more`,
  });
}
