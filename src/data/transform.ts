/** From a decoded picture to what a model takes; described by plain data, so that worker threads can be told. */
import { UsageError } from "../base/errors.ts";
import { checkNumbers, isShare } from "../base/options.ts";
import { Random } from "../base/philox.ts";
import {
  type ColorJitter,
  type CropMode,
  centerView,
  checkJitter,
  colorJitter,
  cover,
  padAndCrop,
  randomResizedCrop,
} from "./augment.ts";
import { grayscale } from "./enhance.ts";
import { checkErasing, type ErasingOptions, randomErase } from "./erase.ts";
import { flipHorizontal, flipVertical, type Image } from "./image.ts";
import { parseRandAugment, randAugment } from "./rand-augment.ts";

/** Numbers that pictures are normalised with: (value / 255 - mean) / std, one for each channel. */
export interface Normalization {
  mean: readonly [number, number, number];
  std: readonly [number, number, number];
}

/** ImageNet's channel statistics, which most published backbones expect. */
export const imagenet: Normalization = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

interface Frame extends Partial<Normalization> {
  /** The side of the picture that the model takes, or [height, width]. */
  size: number | readonly [height: number, width: number];
}

/** A new random view at every call.  The defaults are timm's for ImageNet, without colour changes. */
export interface TrainTransform extends Frame {
  kind: "train";
  /** Share of the picture's area that a crop keeps. */
  scale?: readonly [number, number];
  /** Width / height of a crop, before it is resized. */
  ratio?: readonly [number, number];
  /** Instead of the random resized crop: resizes the shorter side, pads by this many pixels and crops `size`, as is usual for CIFAR. */
  padding?: number;
  /** `random` is bilinear or bicubic by chance. */
  interpolation?: "bilinear" | "bicubic" | "random";
  /** Probability of a flip. */
  hflip?: number;
  vflip?: number;
  /** timm's configuration string, such as `rand-m9-mstd0.5-inc1`. */
  randAugment?: string;
  /** One number stands for brightness, contrast and saturation. */
  colorJitter?: number | ColorJitter;
  /** Probability of losing the colours. */
  grayscale?: number;
  /** After normalising. */
  erasing?: ErasingOptions;
}

/** The one view that a picture is judged by. */
export interface EvaluateTransform extends Frame {
  kind: "evaluate";
  /** Share of the resized picture's side that the crop keeps; above 1 the picture lies within a border. */
  cropPct?: number;
  cropMode?: CropMode;
  interpolation?: "bilinear" | "bicubic" | "lanczos" | "nearest";
}

export type Transform = TrainTransform | EvaluateTransform;

/** What one view's random choices depend on; `copy` tells apart several views of one picture in an epoch. */
export interface ViewKey {
  seed: number;
  epoch: number;
  index: number;
  copy: number;
}

/** A transform made ready: writes one normalised picture.  [H, W, 3] -> out[offset …] as [3, height, width] */
export interface View {
  readonly height: number;
  readonly width: number;
  apply(image: Image, key: ViewKey, out: Float32Array, offset: number): void;
}

/** Checks a transform and works out its tables once. */
export function prepare(transform: Transform): View {
  const { size, mean = imagenet.mean, std = imagenet.std } = transform;
  const [height, width] = typeof size === "number" ? [size, size] : size;
  if (![height, width].every((side) => Number.isInteger(side) && side >= 1)) {
    throw new UsageError({
      message: `the picture size is ${height}×${width}`,
      help: "give a whole number of pixels, such as 224",
    });
  }
  if (!mean.every(Number.isFinite) || !std.every((s) => Number.isFinite(s) && s > 0))
    throw new UsageError({
      message: `pictures cannot be normalised with mean [${mean}] and std [${std}]`,
      help: "give finite numbers, those of std above 0",
    });
  const tables = normalizationTables({ mean, std });
  const fill = mean.map((m) => Math.round(m * 255));
  const pixels =
    transform.kind === "train"
      ? trainView(transform, [height, width], fill)
      : evaluateView(transform, [height, width], fill);
  const erasing = transform.kind === "train" ? transform.erasing : undefined;
  return {
    height,
    width,
    apply(image, key, out, offset) {
      checkPixels(image);
      normalize(pixels(image, key), tables, out, offset);
      if (erasing) randomErase(out, offset, [height, width], erasing, stream(key, "erase"));
    },
  };
}

/** Throws where a program without types gives something else than an `Image`, such as a page's `ImageData` with its four channels. */
function checkPixels(image: Image): void {
  const { width, height, data } = image ?? {};
  const size = 3 * width * height;
  if (data?.length === size) return;
  throw new UsageError({
    message:
      data && size >= 0
        ? `this is no picture of 8-bit RGB, [${height}, ${width}, 3] in ${size} bytes, but of ${data.length}`
        : "this is no picture: one is { width, height, data }, 8-bit RGB",
    help: "of a file's bytes decodeNode of oriel/data makes one; in a page readImage of oriel/web, also of a canvas or ImageData",
  });
}

const stream = ({ seed, epoch, index, copy }: ViewKey, op: string): Random => new Random(seed, epoch, index, op, copy);

type Pixels = (image: Image, key: ViewKey) => Image;

function trainView(t: TrainTransform, size: readonly [number, number], fill: readonly number[]): Pixels {
  const { scale = [0.08, 1], ratio = [3 / 4, 4 / 3], interpolation = "random", hflip = 0.5, vflip = 0 } = t;
  if (!(scale[0] > 0 && scale[0] <= scale[1]) || !(ratio[0] > 0 && ratio[0] <= ratio[1])) {
    throw new UsageError(`the crop's scale [${scale}] and ratio [${ratio}] must be positive, the smaller number first`);
  }
  const { grayscale: grey = 0, padding = 0 } = t;
  checkNumbers({ hflip, vflip, grayscale: grey }, isShare, "a probability, from 0 to 1");
  checkNumbers({ padding }, (x) => Number.isInteger(x) && x >= 0, "a whole number of pixels");
  if (t.erasing) checkErasing(t.erasing);
  const policy = t.randAugment === undefined ? undefined : parseRandAugment(t.randAugment);
  const jitter = typeof t.colorJitter === "number" ? everyColor(t.colorJitter) : t.colorJitter;
  if (jitter) checkJitter(jitter);
  return (image, key) => {
    const cropping = stream(key, "crop");
    const either = cropping.uniform() < 0.5 ? "bilinear" : "bicubic";
    const filter = interpolation === "random" ? either : interpolation;
    let view =
      t.padding === undefined
        ? randomResizedCrop(image, size, cropping, { scale, ratio, filter })
        : padAndCrop(cover(image, size, filter), t.padding, cropping, size);
    const flipping = stream(key, "flip");
    if (flipping.uniform() < hflip) view = flipHorizontal(view);
    if (flipping.uniform() < vflip) view = flipVertical(view);
    if (policy) view = randAugment(view, policy, stream(key, "randaugment"), { filter: interpolation, fill });
    if (jitter) view = colorJitter(view, jitter, stream(key, "jitter"));
    if (grey > 0 && stream(key, "grayscale").uniform() < grey) view = grayscale(view);
    return view;
  };
}

const everyColor = (by: number): ColorJitter => ({ brightness: by, contrast: by, saturation: by });

function evaluateView(t: EvaluateTransform, size: readonly [number, number], fill: readonly number[]): Pixels {
  const { cropPct = 0.875, cropMode = "center", interpolation: filter = "bicubic" } = t;
  // a few published models ask for 1.15; 87.5 is a percentage by mistake
  if (!(cropPct > 0 && cropPct < 2)) {
    throw new UsageError({
      message: `cropPct is ${cropPct}`,
      help: "give a share, such as 0.875; one above 1 leaves a border, and 2 or more is refused",
    });
  }
  return (image) => centerView(image, size, { cropPct, cropMode, filter, fill });
}

/** What each of the 256 levels becomes, rounded to float32 after every step as PyTorch's tensors are.  -> 3 × [256] */
function normalizationTables({ mean, std }: Normalization): Float32Array[] {
  return mean.map((m, channel) =>
    Float32Array.from(
      { length: 256 },
      (_, v) => Math.fround(Math.fround(v / 255) - Math.fround(m)) / Math.fround(std[channel]),
    ),
  );
}

/** [H, W, 3] bytes -> [3, H, W] floats */
function normalize({ data, width, height }: Image, [r, g, b]: Float32Array[], out: Float32Array, offset: number): void {
  const area = width * height;
  for (let i = 0, p = 0, o = offset; i < area; i++, p += 3, o++) {
    out[o] = r[data[p]];
    out[o + area] = g[data[p + 1]];
    out[o + 2 * area] = b[data[p + 2]];
  }
}
