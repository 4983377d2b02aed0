/**
 * The loops over pixels that JavaScript is slow at, in AssemblyScript; `tools/setup.js` compiles them into `src/data/pixels-code.ts`.
 * Every argument of type `usize` is a place in memory.  Functions read and write up to 15 bytes past the end of what they are told of.
 */

/** Memory is free from here on. */
export const start: usize = __heap_base;

/** Bits behind the point of a weight. */
const precision = 22;
const half: i32 = 1 << (precision - 1);

/** The first four bytes, as 32-bit numbers. */
function widen(bytes: v128): v128 {
  return i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(bytes));
}

/** Two vectors of sums as 16-bit numbers, without the bits behind the point; what does not fit becomes the nearest that does. */
function narrow(low: v128, high: v128): v128 {
  return i16x8.narrow_i32x4_s(i32x4.shr_s(low, precision), i32x4.shr_s(high, precision));
}

/**
 * Resizes rows: output pixel x is the sum of `count[x]` pixels from `first[x]` on, with the weights from `weight[x * stride]` on.
 * from: bytes [rows, inWidth, 3] -> to: bytes [rows, width, 3]
 */
export function resizeRows(
  from: usize,
  to: usize,
  rows: i32,
  inWidth: i32,
  width: i32,
  first: usize,
  count: usize,
  weight: usize,
  stride: i32,
): void {
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < width; x++) {
      let sum = i32x4.splat(half);
      let pixel = from + load<i32>(first + (x << 2)) * 3;
      let w = weight + ((x * stride) << 2);
      for (const end = w + (load<i32>(count + (x << 2)) << 2); w < end; w += 4, pixel += 3) {
        sum = i32x4.add(sum, i32x4.mul(widen(v128.load32_zero(pixel)), v128.load32_splat(w)));
      }
      const channels = narrow(sum, sum);
      // The fourth byte is written over by the next pixel.
      v128.store32_lane(to, i8x16.narrow_i16x8_u(channels, channels), 0);
      to += 3;
    }
    from += inWidth * 3;
  }
}

/**
 * Resizes columns: output row y is the sum of `count[y]` rows from `first[y]` on, weighted as above.
 * from: bytes [H, row] -> to: bytes [height, row]
 */
export function resizeColumns(
  from: usize,
  to: usize,
  row: i32,
  height: i32,
  first: usize,
  count: usize,
  weight: usize,
  stride: i32,
): void {
  for (let y = 0; y < height; y++) {
    const begin = from + load<i32>(first + (y << 2)) * row;
    const weights = weight + ((y * stride) << 2);
    const end = weights + (load<i32>(count + (y << 2)) << 2);
    for (let x = 0; x < row; x += 16) {
      let a = i32x4.splat(half);
      let b = a;
      let c = a;
      let d = a;
      let p = begin + x;
      for (let w = weights; w < end; w += 4, p += row) {
        const bytes = v128.load(p);
        const low = i16x8.extend_low_i8x16_u(bytes);
        const high = i16x8.extend_high_i8x16_u(bytes);
        const times = v128.load32_splat(w);
        a = i32x4.add(a, i32x4.mul(i32x4.extend_low_i16x8_u(low), times));
        b = i32x4.add(b, i32x4.mul(i32x4.extend_high_i16x8_u(low), times));
        c = i32x4.add(c, i32x4.mul(i32x4.extend_low_i16x8_u(high), times));
        d = i32x4.add(d, i32x4.mul(i32x4.extend_high_i16x8_u(high), times));
      }
      // What lies behind the row is written over by the next.
      v128.store(to + x, i8x16.narrow_i16x8_u(narrow(a, b), narrow(c, d)));
    }
    to += row;
  }
}

/** Two channels from `at` on, as numbers. */
function pair(at: usize): v128 {
  return f64x2.convert_low_i32x4_u(widen(v128.load32_zero(at)));
}

/** Between q and r, at t from q.  Keys' cubic with a = -1, in Horner form; resizing has a = -1/2. */
function cubic(p: v128, q: v128, r: v128, s: v128, t: v128): v128 {
  const third = f64x2.add(f64x2.sub(f64x2.sub(q, p), r), s);
  const second = f64x2.sub(f64x2.add(f64x2.mul(f64x2.splat(2), f64x2.sub(p, q)), r), s);
  const first = f64x2.sub(r, p);
  const rest = f64x2.add(second, f64x2.mul(t, third));
  return f64x2.add(q, f64x2.mul(t, f64x2.add(first, f64x2.mul(t, rest))));
}

function linear(p: v128, q: v128, t: v128): v128 {
  return f64x2.add(p, f64x2.mul(f64x2.sub(q, p), t));
}

/** Writes a pixel of which the channels lie in two pairs, cut off towards 0. */
function storePixel(to: usize, redGreen: v128, blue: v128): void {
  const low = i32x4.trunc_sat_f64x2_s_zero(redGreen);
  const all = v128.shuffle<i32>(low, i32x4.trunc_sat_f64x2_s_zero(blue), 0, 1, 4, 5);
  const channels = i16x8.narrow_i32x4_s(all, all);
  v128.store32_lane(to, i8x16.narrow_i16x8_u(channels, channels), 0);
}

function clamp(v: i32, high: i32): i32 {
  return min(max(v, 0), high);
}

/** How far the pixel at column x lies from the row's first, and row y from the picture's; those outside stand for the nearest inside. */
let width: i32 = 0;
let height: i32 = 0;
function column(x: i32): usize {
  return clamp(x, width - 1) * 3;
}
function row(y: i32): usize {
  return clamp(y, height - 1) * width * 3;
}

function bilinear(from: usize, x: i32, y: i32, dx: v128, dy: v128): v128 {
  const upper = from + row(y);
  const lower = from + row(y + 1);
  const left = column(x);
  const right = column(x + 1);
  const above = linear(pair(upper + left), pair(upper + right), dx);
  return linear(above, linear(pair(lower + left), pair(lower + right), dx), dy);
}

function bicubic(from: usize, x: i32, y: i32, dx: v128, dy: v128): v128 {
  const x0 = column(x - 1);
  const x1 = column(x);
  const x2 = column(x + 1);
  const x3 = column(x + 2);
  const y1 = from + row(y);
  const here = cubic(pair(y1 + x0), pair(y1 + x1), pair(y1 + x2), pair(y1 + x3), dx);
  // Moving along rows alone, which most augmentations do, needs no other row.
  if (f64x2.extract_lane(dy, 0) === 0) return here;
  const y0 = from + row(y - 1);
  const y2 = from + row(y + 1);
  const y3 = from + row(y + 2);
  const above = cubic(pair(y0 + x0), pair(y0 + x1), pair(y0 + x2), pair(y0 + x3), dx);
  const below = cubic(pair(y2 + x0), pair(y2 + x1), pair(y2 + x2), pair(y2 + x3), dx);
  const last = cubic(pair(y3 + x0), pair(y3 + x1), pair(y3 + x2), pair(y3 + x3), dx);
  return cubic(above, here, below, last, dy);
}

/**
 * Each pixel (x, y) from the place (a x + b y + c, d x + e y + f) of the input, all counted from pixels' corners; `fill` (red in the
 * lowest byte) where that lies outside.  from: bytes [h, w, 3] -> to: the same
 */
export function transform(
  from: usize,
  to: usize,
  w: i32,
  h: i32,
  a: f64,
  b: f64,
  c: f64,
  d: f64,
  e: f64,
  f: f64,
  fill: i32,
  smoothly: bool,
): void {
  width = w;
  height = h;
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++, to += 3) {
      const px = a * (x + 0.5) + b * (y + 0.5) + c;
      const py = d * (x + 0.5) + e * (y + 0.5) + f;
      if (px < 0 || px >= w || py < 0 || py >= h) {
        store<i32>(to, fill);
        continue;
      }
      const left = Math.floor(px - 0.5);
      const top = Math.floor(py - 0.5);
      const dx = f64x2.splat(px - 0.5 - left);
      const dy = f64x2.splat(py - 0.5 - top);
      const i = <i32>left;
      const j = <i32>top;
      if (smoothly) storePixel(to, bicubic(from, i, j, dx, dy), bicubic(from + 2, i, j, dx, dy));
      else storePixel(to, bilinear(from, i, j, dx, dy), bilinear(from + 2, i, j, dx, dy));
    }
  }
}
