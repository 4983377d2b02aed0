export { Random } from "../base/philox.ts";
export { type AffineOptions, affine, type Matrix, rotate, shearX, shearY, translate } from "./affine.ts";
export { type ColorJitter, type CropMode, centerView, colorJitter, padAndCrop, randomResizedCrop } from "./augment.ts";
export { gaussianBlur } from "./blur.ts";
export { type BrokenPicture, BrokenPictures, noneReadable } from "./broken.ts";
export { openCsv, parseCsv, type Row } from "./csv.ts";
export { alignClasses, classCounts, classWeights, type Dataset, type Splits, splitDataset, subset } from "./dataset.ts";
export { decodeNode } from "./decode-node.ts";
export {
  autocontrast,
  brightness,
  color,
  contrast,
  equalize,
  grayscale,
  hue,
  invert,
  posterize,
  sharpness,
  solarize,
  solarizeAdd,
} from "./enhance.ts";
export { type ErasingOptions, randomErase } from "./erase.ts";
export { createImage, crop, type Decoder, flipHorizontal, flipVertical, type Image } from "./image.ts";
export { type Batch, Loader, type LoaderOptions } from "./loader.ts";
export { type MixOptions, mixBatch, softTargets } from "./mix.ts";
export { openDataset, openSplits, type SplitName } from "./open-dataset.ts";
export {
  parseRandAugment,
  type RandAugmentOp,
  type RandAugmentPolicy,
  randAugment,
  randAugmentOps,
} from "./rand-augment.ts";
export { type Filter, type ResizeOptions, resize } from "./resize.ts";
export { type EpochOrder, epochOrder, type SamplerOptions } from "./sampler.ts";
export {
  type EvaluateTransform,
  imagenet,
  type Normalization,
  prepare,
  type TrainTransform,
  type Transform,
  type View,
  type ViewKey,
} from "./transform.ts";
