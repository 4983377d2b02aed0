/**
 * Resizing as Pillow does it, so that a model sees the pixels it was trained on.  Each output pixel is a weighted mean of
 * the input pixels under a filter that widens with the scale (antialiasing), along rows and then along columns; both passes
 * round to 8 bits, with weights in 22-bit fixed point.  Pillow, `src/libImaging/Resample.c`.  Rows come first, as in every
 * Pillow before 13, which takes columns first where one side grows and the other shrinks (a level or two apart).
 */
import { UsageError } from "../base/errors.ts";
import { createImage, type Image } from "./image.ts";
import { compute } from "./pixels.ts";

export type Filter = "nearest" | "bilinear" | "bicubic" | "lanczos";

export interface ResizeOptions {
  filter?: Filter;
  /** The part of the picture to resize, in pixels and fractions of them: [left, top, right, bottom]. */
  box?: readonly [number, number, number, number];
}

/** Weight at distance x, and how far from 0 it reaches. */
interface Kernel {
  support: number;
  weight(x: number): number;
}

const sinc = (x: number): number => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

const kernels: Record<Exclude<Filter, "nearest">, Kernel> = {
  bilinear: { support: 1, weight: (x) => Math.max(1 - Math.abs(x), 0) },
  // Keys' cubic with a = -1/2
  bicubic: {
    support: 2,
    weight: (signed) => {
      const x = Math.abs(signed);
      if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
      return x < 2 ? ((x - 5) * x + 8) * x * -0.5 + 2 : 0;
    },
  },
  lanczos: { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

/** [H, W, 3] -> [height, width, 3] */
export function resize(image: Image, width: number, height: number, options: ResizeOptions = {}): Image {
  const { filter = "bicubic", box = [0, 0, image.width, image.height] } = options;
  const [left, top, right, bottom] = box.map(Math.fround); // as Pillow stores it
  if (!(width >= 1 && height >= 1 && Number.isInteger(width) && Number.isInteger(height))) {
    throw new UsageError(`resize: the new size is ${width}×${height}; both must be whole numbers of at least 1`);
  }
  if (!(left >= 0 && top >= 0 && right <= image.width && bottom <= image.height && left < right && top < bottom)) {
    throw new UsageError(
      `resize: the box [${box.join(", ")}] is not inside a picture of ${image.width}×${image.height}`,
    );
  }
  if (filter === "nearest") return resizeNearest(image, width, height, box);
  const kernel = kernels[filter];
  const acrossRows = width !== image.width || left !== 0 || right !== width;
  const acrossColumns = height !== image.height || top !== 0 || bottom !== height;
  const vertical = weights(kernel, image.height, top, bottom, height);
  let rows: Image = image;
  let firstRow = 0;
  if (acrossRows) {
    // Only the rows that the second pass will read.
    const used = acrossColumns ? vertical : { first: [0], count: [image.height] };
    firstRow = used.first[0];
    const last = used.first.length - 1;
    const lastRow = used.first[last] + used.count[last];
    rows = resizeRows(image, firstRow, lastRow, weights(kernel, image.width, left, right, width));
  }
  return acrossColumns ? resizeColumns(rows, firstRow, vertical) : rows;
}

/** Bits behind the point of a weight. */
const precision = 22;

/** For output pixel i: the `count[i]` input pixels from `first[i]`, with weights at `value[i * stride]`. */
interface Weights {
  first: Int32Array;
  count: Int32Array;
  value: Int32Array;
  stride: number;
}

function weights(kernel: Kernel, inSize: number, from: number, to: number, outSize: number): Weights {
  const scale = Math.fround(to - from) / outSize;
  const stretch = Math.max(scale, 1);
  const support = kernel.support * stretch;
  const stride = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(outSize);
  const count = new Int32Array(outSize);
  const value = new Int32Array(outSize * stride);
  const taps = new Float64Array(stride);
  for (let i = 0; i < outSize; i++) {
    const center = from + (i + 0.5) * scale;
    const low = Math.max(Math.trunc(center - support + 0.5), 0);
    const n = Math.min(Math.trunc(center + support + 0.5), inSize) - low;
    let sum = 0;
    for (let k = 0; k < n; k++) {
      taps[k] = kernel.weight((k + low - center + 0.5) * (1 / stretch));
      sum += taps[k];
    }
    for (let k = 0; k < n; k++) {
      const share = (sum === 0 ? taps[k] : taps[k] / sum) * (1 << precision);
      value[i * stride + k] = Math.trunc(share < 0 ? share - 0.5 : share + 0.5);
    }
    first[i] = low;
    count[i] = n;
  }
  return { first, count, value, stride };
}

/** Rows firstRow … lastRow-1 of the picture, each resized.  [H, W, 3] -> [lastRow - firstRow, width, 3] */
function resizeRows(image: Image, firstRow: number, lastRow: number, w: Weights): Image {
  const [width, height] = [w.first.length, lastRow - firstRow];
  const from = image.data.subarray(firstRow * image.width * 3, lastRow * image.width * 3);
  const data = compute(
    height * width * 3,
    [from, w.first, w.count, w.value],
    (pixels, to, [from, first, count, value]) => {
      pixels.resizeRows(from, to, height, image.width, width, first, count, value, w.stride);
    },
  );
  return { width, height, channels: 3, data };
}

/** `rows` holds the picture from row `firstRow` on.  [H', W, 3] -> [height, W, 3] */
function resizeColumns(rows: Image, firstRow: number, w: Weights): Image {
  const [width, height] = [rows.width, w.first.length];
  const firsts = w.first.map((y) => y - firstRow);
  const data = compute(
    height * width * 3,
    [rows.data, firsts, w.count, w.value],
    (pixels, to, [from, first, count, value]) => {
      pixels.resizeColumns(from, to, width * 3, height, first, count, value, w.stride);
    },
  );
  return { width, height, channels: 3, data };
}

function resizeNearest(image: Image, width: number, height: number, box: readonly number[]): Image {
  const out = createImage(width, height);
  const columns = nearestSources(box[0], box[2], width);
  const rows = nearestSources(box[1], box[3], height);
  let at = 0;
  for (const y of rows) {
    for (const x of columns) {
      const p = (y * image.width + x) * 3;
      out.data[at++] = image.data[p];
      out.data[at++] = image.data[p + 1];
      out.data[at++] = image.data[p + 2];
    }
  }
  return out;
}

/** Positions are summed, not multiplied, because Pillow sums them and a centre may fall on a pixel's edge. */
function nearestSources(from: number, to: number, size: number): Int32Array {
  const scale = (to - from) / size;
  const sources = new Int32Array(size);
  let center = from + scale * 0.5;
  for (let i = 0; i < size; i++, center += scale) sources[i] = Math.trunc(center);
  return sources;
}
