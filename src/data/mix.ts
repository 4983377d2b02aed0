import { UsageError } from "../base/errors.ts";
import { checkNumbers, isAmount, isShare } from "../base/options.ts";
import type { Random } from "../base/philox.ts";

/** Mixup and CutMix on batches, as timm has them.  Zhang et al., "mixup" (2018); Yun et al., "CutMix" (2019). */
export interface MixOptions {
  /** Mixup's share is drawn from Beta(α, α); 0, the default, turns it off. */
  alpha?: number;
  /** The same for CutMix. */
  cutmixAlpha?: number;
  /** How often a batch is mixed at all. */
  prob?: number;
  /** How often CutMix is taken where both are on. */
  switchProb?: number;
  /** Share of a target spread evenly over all classes. */
  labelSmoothing?: number;
}

/** Throws when an option is out of range. */
export function checkMix({
  alpha = 0,
  cutmixAlpha = 0,
  prob = 1,
  switchProb = 0.5,
  labelSmoothing = 0,
}: MixOptions): void {
  checkNumbers({ alpha, cutmixAlpha }, isAmount, "at least 0");
  checkNumbers({ prob, switchProb, labelSmoothing }, isShare, "from 0 to 1");
}

/**
 * Mixes each picture in place with the one at the same distance from the batch's other end, and gives the targets, which sum to 1:
 * image i becomes λ x_i + (1 - λ) x_{N-1-i}, or gets a rectangle of it of area 1 - λ.  image: [N, 3, H, W] -> [N, classes]
 */
export function mixBatch(
  image: Float32Array,
  label: Int32Array,
  [height, width]: readonly [number, number],
  classes: number,
  options: MixOptions,
  random: Random,
): Float32Array<ArrayBuffer> {
  const { alpha = 0, cutmixAlpha = 0, prob = 1, switchProb = 0.5, labelSmoothing = 0 } = options;
  let lambda = 1;
  if ((alpha > 0 || cutmixAlpha > 0) && random.uniform() < prob) {
    const cut = cutmixAlpha > 0 && (alpha === 0 || random.uniform() < switchProb);
    lambda = drawShare(cut ? cutmixAlpha : alpha, random);
    if (cut) {
      const box = randomBox(height, width, lambda, random);
      exchangeBox(image, label.length, height, width, box);
      lambda = 1 - ((box.bottom - box.top) * (box.right - box.left)) / (height * width); // the box may have been cut off at the border
    } else {
      blendPairs(image, label.length, lambda);
    }
  }
  return softTargets(label, classes, lambda, labelSmoothing);
}

/** From Beta(α, α), which for an α of almost nothing is 0 or 1: both of the draws that it is the ratio of may then be 0. */
function drawShare(alpha: number, random: Random): number {
  const share = random.beta(alpha, alpha);
  return Number.isNaN(share) ? Number(random.uniform() < 0.5) : share;
}

/** λ y_i + (1 - λ) y_{N-1-i}, where y is one-hot with `smoothing` spread evenly.  label: [N] -> [N, classes] */
export function softTargets(
  label: Int32Array,
  classes: number,
  lambda: number,
  smoothing: number,
): Float32Array<ArrayBuffer> {
  const wrong = label.findIndex((l) => l < 0 || l >= classes);
  if (wrong >= 0) throw new UsageError(`label ${wrong} is ${label[wrong]}; there are ${classes} classes, from 0`);
  const off = smoothing / classes;
  const target = new Float32Array(label.length * classes).fill(off);
  for (let i = 0; i < label.length; i++) {
    target[i * classes + label[i]] += lambda * (1 - smoothing);
    target[i * classes + label[label.length - 1 - i]] += (1 - lambda) * (1 - smoothing);
  }
  return target;
}

interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

/** A box of the picture's shape and 1 - λ of its area about a random pixel, cut off at the border. */
function randomBox(height: number, width: number, lambda: number, random: Random): Box {
  const side = Math.sqrt(1 - lambda);
  const [h, w] = [Math.trunc(height * side), Math.trunc(width * side)];
  const [y, x] = [random.below(height), random.below(width)];
  return {
    left: Math.max(x - (w >> 1), 0),
    top: Math.max(y - (h >> 1), 0),
    right: Math.min(x + ((w + 1) >> 1), width),
    bottom: Math.min(y + ((h + 1) >> 1), height),
  };
}

function exchangeBox(
  image: Float32Array,
  n: number,
  height: number,
  width: number,
  { left, top, right, bottom }: Box,
): void {
  const plane = height * width;
  for (let i = 0; i < n >> 1; i++) {
    for (let channel = 0; channel < 3; channel++) {
      for (let y = top; y < bottom; y++) {
        const a = (i * 3 + channel) * plane + y * width;
        const b = ((n - 1 - i) * 3 + channel) * plane + y * width;
        const kept = image.slice(a + left, a + right);
        image.copyWithin(a + left, b + left, b + right);
        image.set(kept, b + left);
      }
    }
  }
}

function blendPairs(image: Float32Array, n: number, lambda: number): void {
  const size = image.length / n;
  const rest = 1 - lambda;
  for (let i = 0; i < n >> 1; i++) {
    const [a, b] = [i * size, (n - 1 - i) * size];
    for (let k = 0; k < size; k++) {
      const [x, y] = [image[a + k], image[b + k]];
      image[a + k] = lambda * x + rest * y;
      image[b + k] = lambda * y + rest * x;
    }
  }
}
