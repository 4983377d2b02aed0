/**
 * Affine transforms as Pillow's `Image.transform` and `Image.rotate` do them: every output pixel looks up its place in the
 * input, without antialiasing.  Pillow, `src/libImaging/Geometry.c`.
 */
import { clip8, createImage, type Image } from "./image.ts";

export interface AffineOptions {
  filter?: "nearest" | "bilinear" | "bicubic";
  /** The colour of what lies outside. */
  fill?: readonly number[];
}

/** Maps output to input: x' = a x + b y + c, y' = d x + e y + f. */
export type Matrix = readonly [a: number, b: number, c: number, d: number, e: number, f: number];

/** The picture seen through `matrix`, in its own size.  [H, W, 3] -> [H, W, 3] */
export function affine(image: Image, matrix: Matrix, options: AffineOptions = {}): Image {
  const { filter = "bicubic", fill = [0, 0, 0] } = options;
  const out = createImage(image.width, image.height, fill);
  if (filter === "nearest") sampleNearest(image, out, matrix);
  else if (filter === "bilinear") sample(image, out, matrix, bilinearPixel);
  else sample(image, out, matrix, bicubicPixel);
  return out;
}

/** Turns counterclockwise about the centre; corners that leave the frame are cut off. */
export function rotate(image: Image, degrees: number, options: AffineOptions = {}): Image {
  const angle = -(degrees < 0 ? (degrees % 360) + 360 : degrees % 360) * (Math.PI / 180); // by whole turns first, as Pillow
  const [cos, sin] = [round15(Math.cos(angle)), round15(Math.sin(angle))];
  const [x, y] = [image.width / 2, image.height / 2];
  return affine(image, [cos, sin, cos * -x + sin * -y + x, -sin, cos, -sin * -x + cos * -y + y], options);
}

/** 15 decimals, so that a quarter turn is exact. */
const round15 = (v: number): number => Number(v.toFixed(15));

/** x' = x + factor y */
export const shearX = (image: Image, factor: number, options?: AffineOptions): Image =>
  affine(image, [1, factor, 0, 0, 1, 0], options);

/** y' = y + factor x */
export const shearY = (image: Image, factor: number, options?: AffineOptions): Image =>
  affine(image, [1, 0, 0, factor, 1, 0], options);

/** Moves the content left by `dx` and up by `dy` pixels. */
export const translate = (image: Image, dx: number, dy: number, options?: AffineOptions): Image =>
  affine(image, [1, 0, dx, 0, 1, dy], options);

/** Places are in 16.16 fixed point where the matrix shears or turns, as in Pillow; plain sums where it only moves. */
function sampleNearest(image: Image, out: Image, [a, b, c, d, e, f]: Matrix): void {
  const { width, height } = image;
  const straight = b === 0 && d === 0;
  const unit = straight ? 1 : 65536;
  const fixed = (v: number): number => (straight ? v : Math.floor(v * unit + 0.5));
  const [ax, bx, ay, by] = [fixed(a), fixed(b), fixed(d), fixed(e)];
  let startX = fixed(c + a * 0.5 + b * 0.5);
  let startY = fixed(f + d * 0.5 + e * 0.5);
  for (let y = 0, at = 0; y < height; y++, startX += bx, startY += by) {
    let px = startX;
    let py = startY;
    for (let x = 0; x < width; x++, at += 3, px += ax, py += ay) {
      const sx = Math.floor(px / unit);
      const sy = Math.floor(py / unit);
      if (sx < 0 || sx >= width || sy < 0 || sy >= height) continue;
      const p = (sy * width + sx) * 3;
      out.data[at] = image.data[p];
      out.data[at + 1] = image.data[p + 1];
      out.data[at + 2] = image.data[p + 2];
    }
  }
}

/** Writes the pixel at `at` of `to` from the input around (x + dx, y + dy), 0 ≤ dx, dy < 1. */
type Pixel = (image: Image, x: number, y: number, dx: number, dy: number, to: Uint8Array, at: number) => void;

function sample(image: Image, out: Image, [a, b, c, d, e, f]: Matrix, pixel: Pixel): void {
  const { width, height } = image;
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at += 3) {
      const px = a * (x + 0.5) + b * (y + 0.5) + c;
      const py = d * (x + 0.5) + e * (y + 0.5) + f;
      if (px < 0 || px >= width || py < 0 || py >= height) continue;
      const left = Math.floor(px - 0.5);
      const top = Math.floor(py - 0.5);
      pixel(image, left, top, px - 0.5 - left, py - 0.5 - top, out.data, at);
    }
  }
}

const clamp = (v: number, high: number): number => Math.min(Math.max(v, 0), high);

const bilinearPixel: Pixel = ({ width, height, data }, x, y, dx, dy, to, at) => {
  const left = clamp(x, width - 1) * 3;
  const right = clamp(x + 1, width - 1) * 3;
  const upper = clamp(y, height - 1) * width * 3;
  const lower = clamp(y + 1, height - 1) * width * 3;
  for (let k = 0; k < 3; k++) {
    const above = data[upper + left + k] + (data[upper + right + k] - data[upper + left + k]) * dx;
    const below = data[lower + left + k] + (data[lower + right + k] - data[lower + left + k]) * dx;
    to[at + k] = above + (below - above) * dy; // cut off towards 0 by the array
  }
};

/** Keys' cubic with a = -1, in Horner form; resizing has a = -1/2. */
function cubic(p: number, q: number, r: number, s: number, t: number): number {
  return q + t * (r - p + t * (2 * (p - q) + r - s + t * (q - p - r + s)));
}

const bicubicPixel: Pixel = ({ width, height, data }, x, y, dx, dy, to, at) => {
  const x0 = clamp(x - 1, width - 1) * 3;
  const x1 = clamp(x, width - 1) * 3;
  const x2 = clamp(x + 1, width - 1) * 3;
  const x3 = clamp(x + 2, width - 1) * 3;
  const row = (at: number): number => clamp(at, height - 1) * width * 3;
  const y1 = row(y);
  for (let k = 0; k < 3; k++) {
    let v = cubic(data[y1 + x0 + k], data[y1 + x1 + k], data[y1 + x2 + k], data[y1 + x3 + k], dx);
    // Moving along rows alone, which most augmentations do, needs no other row.
    if (dy !== 0) {
      const y0 = row(y - 1);
      const y2 = row(y + 1);
      const y3 = row(y + 2);
      const above = cubic(data[y0 + x0 + k], data[y0 + x1 + k], data[y0 + x2 + k], data[y0 + x3 + k], dx);
      const below = cubic(data[y2 + x0 + k], data[y2 + x1 + k], data[y2 + x2 + k], data[y2 + x3 + k], dx);
      const last = cubic(data[y3 + x0 + k], data[y3 + x1 + k], data[y3 + x2 + k], data[y3 + x3 + k], dx);
      v = cubic(above, v, below, last, dy);
    }
    to[at + k] = clip8(v);
  }
};
