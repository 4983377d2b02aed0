/**
 * How values that were trained for one shape become those of another, as timm does it when it loads published weights, or where it
 * has no such model the official repository: position tables for another image size, bias tables for another window, kernels for other
 * patches and channels, filters for other frequencies.  Maps are resampled axis by axis, so every way of resizing is two small matrices.
 */

/** Values of a parameter, row-major. */
export interface Values {
  readonly shape: readonly number[];
  readonly data: Float32Array<ArrayBuffer>;
}

/** Makes values for `shape` of those of another; undefined where nothing sensible can be made. */
export type Adapt = (from: Values, shape: readonly number[]) => Float32Array<ArrayBuffer> | undefined;

/** Each row makes one element of a resized axis of all elements before: [to, from]. */
type Matrix = readonly Float64Array[];

const count = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** The side of a square of so many elements, if it is one. */
function squareSide(elements: number): number | undefined {
  const side = Math.round(Math.sqrt(elements));
  return elements > 0 && side * side === elements ? side : undefined;
}

/** Keys's cubic (1981); a is -0.5 in Pillow, -0.75 in PyTorch where it does not average. */
function cubic(x: number, a = -0.5): number {
  const t = Math.abs(x);
  if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  return t < 2 ? a * (((t - 5) * t + 8) * t - 4) : 0;
}

/** Bicubic resampling of an axis that averages where it shrinks ("antialias"): PyTorch's `interpolate` of that mode, and Pillow's. */
function bicubic(from: number, to: number): Matrix {
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  return Array.from({ length: to }, (_, i) => {
    const centre = scale * (i + 0.5);
    const first = Math.max(Math.trunc(centre - 2 * stretch + 0.5), 0);
    const end = Math.min(Math.trunc(centre + 2 * stretch + 0.5), from);
    const row = new Float64Array(from);
    let sum = 0;
    for (let j = first; j < end; j++) {
      row[j] = cubic((j + 0.5 - centre) / stretch);
      sum += row[j];
    }
    return row.map((weight) => weight / sum);
  });
}

/** Cubic between elements of which the first and last stay in their places, the ends repeated: PyTorch's "bicubic" with aligned corners. */
function cubicBetweenEnds(from: number, to: number): Matrix {
  const step = to > 1 ? (from - 1) / (to - 1) : 0;
  return Array.from({ length: to }, (_, i) => {
    const row = new Float64Array(from);
    const left = Math.floor(i * step);
    for (let j = left - 1; j <= left + 2; j++) row[Math.min(Math.max(j, 0), from - 1)] += cubic(j - i * step, -0.75);
    return row;
  });
}

/** Linear between the middles of elements, constant beyond the outermost: PyTorch's "bilinear". */
function bilinear(from: number, to: number): Matrix {
  const places = Array.from({ length: from }, (_, i) => i);
  return Array.from({ length: to }, (_, i) => linearBetween(places, ((i + 0.5) * from) / to - 0.5));
}

/**
 * Where the offsets of a smaller window lie among those of a larger: dense near 0 and spreading geometrically, as BEiT's fine-tuning
 * has it (Bao et al., 2022); values between are linear, beyond the ends constant.
 */
function geometric(from: number, to: number): Matrix {
  const [few, many] = [from, to].map((size) => Math.floor(size / 2));
  let [low, high, ratio] = [1.01, 1.5, 1.01];
  while (high - low > 1e-6) {
    ratio = (low + high) / 2;
    if ((1 - ratio ** few) / (1 - ratio) > many) high = ratio;
    else low = ratio;
  }
  const places = [0];
  for (let i = 0, at = 1; i < few; i++) {
    places.push(at);
    places.unshift(-at);
    at += ratio ** (i + 1);
  }
  return Array.from({ length: to }, (_, i) => linearBetween(places, i - many));
}

/** Weights of the two places that `x` lies between; of the end where it lies beyond. */
function linearBetween(places: readonly number[], x: number): Float64Array {
  const row = new Float64Array(places.length);
  const right = places.findIndex((place) => place >= x);
  if (right <= 0) row[right === 0 ? 0 : places.length - 1] = 1;
  else {
    const share = (x - places[right - 1]) / (places[right] - places[right - 1]);
    row[right - 1] = 1 - share;
    row[right] = share;
  }
  return row;
}

/** [before, H, W, after] -> [before, H', W', after] */
function resample(values: ArrayLike<number>, [before, after]: readonly number[], rows: Matrix, columns: Matrix) {
  const narrowed = alongAxis(values, before * rows[0].length, columns, after);
  return Float32Array.from(alongAxis(narrowed, before, rows, columns.length * after));
}

/** [before, from, after] -> [before, to, after] */
function alongAxis(values: ArrayLike<number>, before: number, matrix: Matrix, after: number): Float64Array {
  const [from, to] = [matrix[0].length, matrix.length];
  const out = new Float64Array(before * to * after);
  for (let b = 0; b < before; b++)
    for (const [t, row] of matrix.entries())
      for (const [f, weight] of row.entries()) {
        if (weight === 0) continue;
        const [source, target] = [(b * from + f) * after, (b * to + t) * after];
        for (let a = 0; a < after; a++) out[target + a] += weight * values[source + a];
      }
  return out;
}

/** A map whose rows and columns are the axes `first` and the next; the others stay. */
const mapBy =
  (way: (from: number, to: number) => Matrix, first: number): Adapt =>
  ({ shape: from, data }, shape) => {
    const isSide = (axis: number): boolean => axis === first || axis === first + 1;
    if (from.length !== shape.length || from.some((size, axis) => !isSide(axis) && size !== shape[axis]))
      return undefined;
    const around = [count(shape.slice(0, first)), count(shape.slice(first + 2))];
    const [rows, columns] = [first, first + 1].map((axis) => way(from[axis], shape[axis]));
    return resample(data, around, rows, columns);
  };

/** A map of position embeddings for another grid: bicubic.  [1, H, W, C] */
export const positionMap: Adapt = mapBy(bicubic, 1);

/** The same, bilinear, as iFormer's official code has it for images of another size.  [1, H, W, C] */
export const positionMapBilinear: Adapt = mapBy(bilinear, 1);

/**
 * Filters for the frequencies of a map of another size: bicubic, the lowest and highest staying in their places.
 * [H, W / 2 + 1, C, 2].  SpectFormer's official code.
 */
export const spectralFilters: Adapt = mapBy(cubicBetweenEnds, 0);

/** Biases for the distances along both axes of a square window: bicubic.  [heads, M²].  timm's `resize_rel_pos_bias_table_levit`. */
export const distanceBiases: Adapt = ({ shape: [heads, places], data }, shape) => {
  const [from, to] = [squareSide(places), squareSide(shape[1])];
  if (from === undefined || to === undefined || shape.length !== 2) return undefined;
  return positionMap({ shape: [heads, from, from, 1], data }, [shape[0], to, to, 1]);
};

/**
 * A table of position embeddings for another grid: bicubic; the first `prefix` rows, of class tokens, are kept.  The grid that it was
 * trained for is taken to be square.  [1, prefix + H · W, D].  timm's `resample_abs_pos_embed`.
 */
export const positions =
  (grid: readonly number[], prefix: number): Adapt =>
  ({ shape: [one, rows, dim], data }, shape) => {
    if (one !== 1 || dim !== shape[2]) return undefined;
    // A table without rows for the class tokens, or with more of them, tells by what is left being a square.
    const own = [prefix, 0, 1, 2].find((p) => squareSide(rows - p));
    const side = own === undefined ? undefined : squareSide(rows - own);
    if (own === undefined || side === undefined) return undefined;
    const map = resample(data.subarray(own * dim), [1, dim], bicubic(side, grid[0]), bicubic(side, grid[1]));
    const out = new Float32Array(count(shape));
    out.set(data.subarray(0, Math.min(own, prefix) * dim));
    out.set(map, prefix * dim);
    return out;
  };

/**
 * A table of biases for the offsets in another window; `extra` rows at its end, of class tokens, are kept.  The window that it was
 * trained for is taken to be square.  [(2 H - 1) (2 W - 1) + extra, heads] or [heads, 2 H - 1, 2 W - 1].  timm's
 * `resize_rel_pos_bias_table`.
 */
export const offsetBiases =
  (window: readonly number[], extra = 0): Adapt =>
  ({ shape: from, data }, shape) => {
    if (from.length !== shape.length) return undefined;
    const matrices = (sides: readonly number[]) => sides.map((side, i) => geometric(side, 2 * window[i] - 1));
    if (shape.length === 3) {
      const [height, width] = matrices(from.slice(1));
      return from[0] === shape[0] ? resample(data, [shape[0], 1], height, width) : undefined;
    }
    const [rows, heads] = from;
    const side = squareSide(rows - extra);
    if (side === undefined || heads !== shape[1]) return undefined;
    const [height, width] = matrices([side, side]);
    const out = new Float32Array(count(shape));
    out.set(resample(data, [1, heads], height, width));
    if (extra > 0) out.set(data.subarray(-extra * heads), out.length - extra * heads);
    return out;
  };

/** Pictures have three channels; only a kernel that reads or read these can be one for other pictures. */
const colours = 3;

/**
 * A kernel over pictures for another number of channels: repeated in turn and scaled so that their sum stays; one channel gets the sum
 * of all.  [O, I, kh, kw].  timm's `adapt_input_conv`.
 */
export const pictureChannels: Adapt = ({ shape: from, data }, shape) => {
  const [[outputs, before, ...kernel], [wanted, after]] = [from, shape];
  const same = outputs === wanted && kernel.every((size, i) => size === shape[i + 2]) && from.length === shape.length;
  if (!same || (before !== colours && after !== colours)) return undefined;
  const area = count(kernel);
  const out = new Float32Array(count(shape));
  for (let o = 0; o < outputs; o++)
    for (let c = 0; c < (after === 1 ? before : after); c++)
      for (let i = 0; i < area; i++)
        if (after === 1) out[o * area + i] += data[(o * before + c) * area + i];
        else out[(o * after + c) * area + i] = (data[(o * before + (c % before)) * area + i] * before) / after;
  return out;
};

/**
 * A kernel over patches for patches of another side: what gives equal products with patches resized likewise, by the pseudoinverse of
 * bicubic resizing (Beyer et al., "FlexiViT", 2023, section 3.4), and for other channels.  [O, I, P, P].  timm's `resample_patch_embed`.
 */
export const patchKernel: Adapt = (from, shape) => {
  const [outputs, channels, ...kernel] = from.shape;
  if (from.shape.length !== 4 || outputs !== shape[0]) return undefined;
  if (channels !== shape[1]) {
    const between = [outputs, shape[1], ...kernel];
    const data = pictureChannels(from, between);
    return (
      data && (kernel.every((size, i) => size === shape[i + 2]) ? data : patchKernel({ shape: between, data }, shape))
    );
  }
  const [rows, columns] = kernel.map((size, i) => transpose(pseudoinverse(bicubic(size, shape[i + 2]))));
  return resample(from.data, [outputs * channels, 1], rows, columns);
};

const transpose = (matrix: Matrix): Matrix =>
  Array.from(matrix[0], (_, column) => Float64Array.from(matrix, (row) => row[column]));

const product = (a: Matrix, b: Matrix): Matrix => {
  const columns = transpose(b);
  return a.map((row) => Float64Array.from(columns, (column) => row.reduce((sum, x, i) => sum + x * column[i], 0)));
};

/** Of a matrix of full rank: (AᵀA)⁻¹Aᵀ, or Aᵀ(AAᵀ)⁻¹ where it is wider than high. */
function pseudoinverse(a: Matrix): Matrix {
  const t = transpose(a);
  return a.length >= t.length ? solve(product(t, a), t) : transpose(solve(product(a, t), a));
}

/** X in A X = B, by elimination with the largest pivots. */
function solve(a: Matrix, b: Matrix): Matrix {
  const rows = a.map((row, i) => Float64Array.of(...row, ...b[i]));
  for (const [i] of rows.entries()) {
    const pivot = rows.reduce((best, row, j) => (j > i && Math.abs(row[i]) > Math.abs(rows[best][i]) ? j : best), i);
    [rows[i], rows[pivot]] = [rows[pivot], rows[i]];
    const scaled = rows[i].map((x) => x / rows[i][i]);
    for (const [j, row] of rows.entries()) {
      if (j === i) continue;
      const factor = row[i];
      for (let k = i; k < row.length; k++) row[k] -= factor * scaled[k];
    }
    rows[i] = scaled;
  }
  return rows.map((row) => row.slice(a.length));
}
