/**
 * Random views of a picture for training and the fixed one for evaluation.  Each takes its own stream of random numbers, so
 * a view depends on nothing but its key.
 */
import { checkNumbers, isAmount } from "../base/options.ts";
import type { Random } from "../base/philox.ts";
import { brightness, color, contrast, hue } from "./enhance.ts";
import { crop, type Image } from "./image.ts";
import { type Filter, resize } from "./resize.ts";

/** To the nearest whole number, halves to the even one, as Python rounds. */
export function roundEven(v: number): number {
  const down = Math.floor(v);
  if (v - down !== 0.5) return Math.round(v);
  return down % 2 === 0 ? down : down + 1;
}

/** A rectangle: where it begins, how large it is. */
interface Frame {
  left: number;
  top: number;
  width: number;
  height: number;
}

/**
 * A part of the picture of random area (a share of the whole in `scale`) and shape (width / height in `ratio`, log-uniform),
 * resized.  After ten misses the largest centred part of an allowed shape.  [H, W, 3] -> [height, width, 3]
 * Szegedy et al., "Going Deeper with Convolutions" (2015), section 6; torchvision's `RandomResizedCrop`.
 */
export function randomResizedCrop(
  image: Image,
  size: readonly [height: number, width: number],
  random: Random,
  { scale, ratio, filter }: { scale: readonly [number, number]; ratio: readonly [number, number]; filter: Filter },
): Image {
  const { left, top, width, height } = randomFrame(image, random, scale, ratio);
  return resize(crop(image, left, top, width, height), size[1], size[0], { filter });
}

function randomFrame(
  image: Image,
  random: Random,
  scale: readonly [number, number],
  ratio: readonly [number, number],
): Frame {
  const { width: w, height: h } = image;
  for (let attempt = 0; attempt < 10; attempt++) {
    const area = w * h * random.between(scale[0], scale[1]);
    const aspect = Math.exp(random.between(Math.log(ratio[0]), Math.log(ratio[1])));
    const width = roundEven(Math.sqrt(area * aspect));
    const height = roundEven(Math.sqrt(area / aspect));
    if (width < 1 || height < 1 || width > w || height > h) continue;
    const top = random.below(h - height + 1);
    return { left: random.below(w - width + 1), top, width, height };
  }
  const width = Math.min(w, Math.max(roundEven(h * ratio[1]), 1));
  const height = Math.min(h, Math.max(roundEven(w / ratio[0]), 1));
  return { left: (w - width) >> 1, top: (h - height) >> 1, width, height };
}

/**
 * The picture with `padding` black pixels on each side, seen through a window at a random place, of its own size where no other is given:
 * for pictures as small as CIFAR's.  torchvision's `RandomCrop`.
 */
export function padAndCrop(
  image: Image,
  padding: number,
  random: Random,
  [height, width]: readonly [height: number, width: number] = [image.height, image.width],
): Image {
  const top = random.below(image.height - height + 2 * padding + 1) - padding;
  return crop(image, random.below(image.width - width + 2 * padding + 1) - padding, top, width, height);
}

/** Resized in its own shape to the smallest picture that covers the frame, as evaluation does. */
export function cover(image: Image, size: readonly [height: number, width: number], filter: Filter): Image {
  const [height, width] = fitted(image, size, "center");
  return resize(image, width, height, { filter });
}

/** How far each property may go: a factor between 1 - x and 1 + x, and for `hue` a turn of up to x of the circle. */
export interface ColorJitter {
  brightness?: number;
  contrast?: number;
  saturation?: number;
  hue?: number;
}

/** Throws when an amount is out of range. */
export function checkJitter({ brightness = 0, contrast = 0, saturation = 0, hue = 0 }: ColorJitter): void {
  checkNumbers({ brightness, contrast, saturation }, isAmount, "at least 0");
  checkNumbers({ hue }, (turn) => turn >= 0 && turn <= 0.5, "from 0 to 0.5, half the circle");
}

/** Brightness, contrast, saturation and hue, in random order.  torchvision's `ColorJitter`. */
export function colorJitter(image: Image, amount: ColorJitter, random: Random): Image {
  const steps = [
    { change: brightness, by: amount.brightness },
    { change: contrast, by: amount.contrast },
    { change: color, by: amount.saturation },
    { change: hue, by: amount.hue },
  ];
  let out = image;
  for (const at of random.permutation(steps.length)) {
    const { change, by = 0 } = steps[at];
    if (by === 0) continue;
    out = change(out, change === hue ? random.between(-by, by) : random.between(Math.max(1 - by, 0), 1 + by));
  }
  return out;
}

/** How evaluation fits a picture into the frame: `center` cuts what sticks out, `squash` bends the shape, `border` pads. */
export type CropMode = "center" | "squash" | "border";

/**
 * The view for evaluation: resized so that `size` is `cropPct` of it, then the middle.  [H, W, 3] -> [height, width, 3]
 * What the picture does not cover is `fill` where the mode is "border", else black.  timm's `transforms_imagenet_eval`.
 */
export function centerView(
  image: Image,
  size: readonly [height: number, width: number],
  { cropPct, cropMode, filter, fill }: { cropPct: number; cropMode: CropMode; filter: Filter; fill: readonly number[] },
): Image {
  const [height, width] = size;
  const target = [Math.floor(height / cropPct), Math.floor(width / cropPct)];
  const [h, w] = fitted(image, target, cropMode);
  const resized = resize(image, w, h, { filter });
  const around = cropMode === "border" ? fill : undefined;
  return crop(resized, middle(w, width), middle(h, height), width, height, around);
}

/** Where the middle `part` of `whole` pixels begins; a part that is larger reaches beyond them by the smaller half first. */
const middle = (whole: number, part: number): number =>
  whole < part ? -Math.floor((part - whole) / 2) : roundEven((whole - part) / 2);

/** The size to resize to, [height, width]. */
function fitted(image: Image, [height, width]: readonly number[], mode: CropMode): [number, number] {
  const { height: h, width: w } = image;
  if (mode === "squash") return [height, width];
  // torchvision, which timm asks where both sides are alike, cuts the longer side's fraction off
  if (mode === "center" && height === width) {
    return h <= w ? [height, Math.trunc((height * w) / h)] : [Math.trunc((height * h) / w), height];
  }
  const ratio = mode === "border" ? Math.max(h / height, w / width) : Math.min(h / height, w / width);
  return [Math.max(roundEven(h / ratio), 1), Math.max(roundEven(w / ratio), 1)];
}
