/** Gaussian blur as Pillow does it: three box blurs, whose widths may be fractions.  Pillow, `src/libImaging/BoxBlur.c`. */
import { createImage, type Image } from "./image.ts";

const passes = 3;
const f32 = Math.fround;

/** Blurs with standard deviation `sigma` in pixels.  Gwosdek et al., "Theoretical Foundations of Gaussian Convolution by Extended Box Filtering" (2011). */
export function gaussianBlur(image: Image, sigma: number): Image {
  if (sigma <= 0) return image;
  const variance = f32((sigma * sigma) / passes);
  const whole = Math.floor((Math.sqrt(12 * variance + 1) - 1) / 2);
  const rest = f32((2 * whole + 1) * f32(whole * (whole + 1) - 3 * variance)) / f32(6 * (variance - (whole + 1) ** 2));
  const radius = f32(whole + rest);
  const out = createImage(image.width, image.height);
  out.data.set(image.data);
  const line = new Uint8Array(Math.max(image.width, image.height));
  const row = image.width * 3;
  for (let pass = 0; pass < passes; pass++) {
    for (let y = 0; y < image.height; y++) {
      for (let k = 0; k < 3; k++) boxBlur(out.data, y * row + k, 3, image.width, radius, line);
    }
  }
  for (let pass = 0; pass < passes; pass++) {
    for (let x = 0; x < row; x++) boxBlur(out.data, x, row, image.height, radius, line);
  }
  return out;
}

/** The mean over `radius` to each side, along the `length` values from `start` at every `stride`; the ends are repeated. */
function boxBlur(
  data: Uint8Array,
  start: number,
  stride: number,
  length: number,
  radius: number,
  line: Uint8Array,
): void {
  for (let i = 0; i < length; i++) line[i] = data[start + i * stride];
  const reach = Math.trunc(radius);
  const inner = Math.trunc(f32(16777216 / f32(radius * 2 + 1))); // 8.24 fixed point
  const edge = Math.trunc((16777216 - (reach * 2 + 1) * inner) / 2);
  const last = length - 1;
  let sum = 0;
  for (let i = -reach; i <= reach; i++) sum += line[Math.min(Math.max(i, 0), last)];
  for (let i = 0; i < length; i++) {
    const before = line[Math.max(i - reach - 1, 0)];
    const after = line[Math.min(i + reach + 1, last)];
    data[start + i * stride] = (sum * inner + (before + after) * edge + 8388608) / 16777216;
    sum += after - line[Math.max(i - reach, 0)];
  }
}
