/**
 * Colour operations as Pillow's ImageOps and ImageEnhance do them, equal to the byte.  Those that treat each value alone go
 * through a table of 256 entries.
 */
import { clip8, createImage, type Image } from "./image.ts";

/** Each channel through its own table. */
function lookUp(image: Image, r: Uint8Array, g: Uint8Array = r, b: Uint8Array = r): Image {
  const out = createImage(image.width, image.height);
  const from = image.data;
  const to = out.data;
  for (let i = 0; i < from.length; i += 3) {
    to[i] = r[from[i]];
    to[i + 1] = g[from[i + 1]];
    to[i + 2] = b[from[i + 2]];
  }
  return out;
}

const table = (f: (v: number) => number): Uint8Array => Uint8Array.from({ length: 256 }, (_, v) => clip8(f(v)));

/** a + factor (b - a) in float32, cut off towards 0: Pillow's blend, which goes on beyond b when factor > 1. */
function blend(a: number, b: number, factor: number): number {
  return clip8(Math.trunc(Math.fround(a + Math.fround(factor * (b - a)))));
}

/** Brightness as a grey level: ITU-R 601 weights in 16-bit fixed point. */
const luma = (r: number, g: number, b: number): number => (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;

/** 0 is black, 1 the picture. */
export function brightness(image: Image, factor: number): Image {
  const f = Math.fround(factor);
  return lookUp(
    image,
    table((v) => blend(0, v, f)),
  );
}

/** 0 is the mean grey, 1 the picture. */
export function contrast(image: Image, factor: number): Image {
  const { data } = image;
  let sum = 0;
  for (let i = 0; i < data.length; i += 3) sum += luma(data[i], data[i + 1], data[i + 2]);
  const mean = Math.trunc(sum / (data.length / 3) + 0.5);
  const f = Math.fround(factor);
  return lookUp(
    image,
    table((v) => blend(mean, v, f)),
  );
}

/** Saturation: 0 is grey, 1 the picture. */
export function color(image: Image, factor: number): Image {
  const f = Math.fround(factor);
  const out = createImage(image.width, image.height);
  const from = image.data;
  const to = out.data;
  for (let i = 0; i < from.length; i += 3) {
    const grey = luma(from[i], from[i + 1], from[i + 2]);
    to[i] = blend(grey, from[i], f);
    to[i + 1] = blend(grey, from[i + 1], f);
    to[i + 2] = blend(grey, from[i + 2], f);
  }
  return out;
}

/** 0 is smoothed, 1 the picture. */
export function sharpness(image: Image, factor: number): Image {
  const { width, height, data: from } = image;
  const f = Math.fround(factor);
  const out = createImage(width, height);
  const to = out.data;
  to.set(from); // the border is not smoothed, so it stays
  const row = width * 3;
  for (let y = 1; y < height - 1; y++) {
    for (let i = y * row + 3, end = (y + 1) * row - 3; i < end; i++) {
      const above = from[i - row - 3] + from[i - row] + from[i - row + 3];
      const below = from[i + row - 3] + from[i + row] + from[i + row + 3];
      const sum = above + below + from[i - 3] + 5 * from[i] + from[i + 3];
      to[i] = blend(((sum * 2 + 13) / 26) | 0, from[i], f); // the mean of weights 1 and, in the middle, 5, rounded
    }
  }
  return out;
}

/** 255 - v */
export const invert = (image: Image): Image =>
  lookUp(
    image,
    table((v) => 255 - v),
  );

/** Keeps the highest `bits` bits. */
export const posterize = (image: Image, bits: number): Image =>
  lookUp(
    image,
    table((v) => v & ~(2 ** (8 - bits) - 1)),
  );

/** Inverts what is not below the threshold. */
export const solarize = (image: Image, threshold: number): Image =>
  lookUp(
    image,
    table((v) => (v < threshold ? v : 255 - v)),
  );

/** Brightens what is below the threshold. */
export const solarizeAdd = (image: Image, add: number, threshold = 128): Image =>
  lookUp(
    image,
    table((v) => (v < threshold ? v + add : v)),
  );

/** Stretches each channel from darkest … brightest to 0 … 255. */
export function autocontrast(image: Image): Image {
  const [r, g, b] = histograms(image).map((counts) => {
    let low = 0;
    let high = 255;
    while (low < 255 && counts[low] === 0) low++;
    while (high > 0 && counts[high] === 0) high--;
    if (high <= low) return table((v) => v);
    const scale = 255 / (high - low);
    return table((v) => Math.trunc(v * scale - low * scale));
  });
  return lookUp(image, r, g, b);
}

/** Makes each channel's histogram flat. */
export function equalize(image: Image): Image {
  const [r, g, b] = histograms(image).map((counts) => {
    const present = counts.filter((count) => count > 0);
    const step = Math.trunc((image.width * image.height - (present.at(-1) ?? 0)) / 255);
    if (present.length <= 1 || step === 0) return table((v) => v);
    let sum = Math.trunc(step / 2);
    return table((v) => {
      const level = Math.trunc(sum / step);
      sum += counts[v];
      return level;
    });
  });
  return lookUp(image, r, g, b);
}

/** How often each value occurs, for each channel.  -> 3 × [256] */
function histograms({ data }: Image): [Uint32Array, Uint32Array, Uint32Array] {
  const [r, g, b] = [new Uint32Array(256), new Uint32Array(256), new Uint32Array(256)];
  for (let i = 0; i < data.length; i += 3) {
    r[data[i]]++;
    g[data[i + 1]]++;
    b[data[i + 2]]++;
  }
  return [r, g, b];
}

/** The luma in all three channels. */
export function grayscale(image: Image): Image {
  const out = createImage(image.width, image.height);
  const { data: from } = image;
  for (let i = 0; i < from.length; i += 3) out.data.fill(luma(from[i], from[i + 1], from[i + 2]), i, i + 3);
  return out;
}

/** Turns the hue by a share of the circle, through Pillow's 8-bit HSV as torchvision does. */
export function hue(image: Image, turn: number): Image {
  const out = createImage(image.width, image.height);
  const from = image.data;
  const by = Math.trunc(turn * 255);
  for (let i = 0; i < from.length; i += 3) {
    const [h, s, v] = toHsv(from[i], from[i + 1], from[i + 2]);
    fromHsv((h + by) & 255, s, v, out.data, i);
  }
  return out;
}

/** Rounds to float32 where Pillow does: a hue at the edge of a level would otherwise fall on the other side. */
const f32 = Math.fround;

function toHsv(r: number, g: number, b: number): [number, number, number] {
  const max = Math.max(r, g, b);
  const range = max - Math.min(r, g, b);
  if (range === 0) return [0, 0, max];
  const [fromR, fromG, fromB] = [f32((max - r) / range), f32((max - g) / range), f32((max - b) / range)];
  const place = max === r ? f32(fromB - fromG) : max === g ? f32(2 + fromR - fromB) : f32(4 + fromG - fromR);
  return [Math.trunc(f32((place / 6 + 1) % 1) * 255), Math.trunc(f32(range / max) * 255), max];
}

function fromHsv(h: number, s: number, v: number, to: Uint8Array, at: number): void {
  const sector = Math.floor((h * 6) / 255);
  const f = f32((h * 6) / 255 - sector);
  const share = f32(s / 255);
  const low = Math.round(v * (1 - share));
  const falling = Math.round(v * (1 - share * f));
  const rising = Math.round(v * (1 - share * (1 - f)));
  const levels = [v, falling, low, low, rising, v];
  for (let k = 0; k < 3; k++) to[at + k] = levels[(sector + 4 * k) % 6];
}
