/**
 * Affine transforms as Pillow's `Image.transform` and `Image.rotate` do them: every output pixel looks up its place in the
 * input, without antialiasing.  Pillow, `src/libImaging/Geometry.c`.
 */
import { createImage, type Image } from "./image.ts";
import { compute } from "./pixels.ts";

type Smooth = "bilinear" | "bicubic";

export interface AffineOptions {
  filter?: "nearest" | Smooth;
  /** The colour of what lies outside. */
  fill?: readonly number[];
}

/** Maps output to input: x' = a x + b y + c, y' = d x + e y + f. */
export type Matrix = readonly [a: number, b: number, c: number, d: number, e: number, f: number];

/** The picture seen through `matrix`, in its own size.  [H, W, 3] -> [H, W, 3] */
export function affine(image: Image, matrix: Matrix, options: AffineOptions = {}): Image {
  const { filter = "bicubic", fill = [0, 0, 0] } = options;
  return filter === "nearest" ? sampleNearest(image, matrix, fill) : sample(image, matrix, fill, filter);
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
function sampleNearest(image: Image, [a, b, c, d, e, f]: Matrix, fill: readonly number[]): Image {
  const { width, height } = image;
  const out = createImage(width, height, fill);
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
  return out;
}

/** As the filter says, between pixels. */
function sample(image: Image, matrix: Matrix, [red, green, blue]: readonly number[], filter: Smooth): Image {
  const { width, height } = image;
  const fill = red | (green << 8) | (blue << 16);
  const data = compute(image.data.length, [image.data], (pixels, to, [from]) =>
    pixels.transform(from, to, width, height, ...matrix, fill, filter === "bicubic"),
  );
  return { width, height, channels: 3, data };
}
