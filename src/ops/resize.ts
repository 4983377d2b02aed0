import { ShapeError } from "../base/errors.ts";
import { dataOf } from "../graph/dtype.ts";
import { isCount, isOpen, known, type Shape } from "../graph/shape.ts";
import { constant, FloatAttr, type OnnxForm, type Tensor } from "../graph/tensor.ts";
import { defineOp, explained } from "./define.ts";
import { along } from "./linalg.ts";
import { expand, spread } from "./move.ts";

/** As PyTorch names them: "nearest" takes the pixel at or before a place, "nearest-exact" the one whose centre is closest. */
export type ResizeMode = "nearest" | "nearest-exact" | "linear" | "cubic";

interface ResizeAttrs {
  /** Of the axes after the channels. */
  size: readonly number[];
  mode: ResizeMode;
  /** Whether the centres of the corner pixels stay in place, rather than the corners of the map. */
  alignCorners: boolean;
}

/** Another resolution (ONNX Resize), without a filter against aliasing.  [N, C, ...S] -> [N, C, ...size] */
const resizeOp = defineOp<["x"], ResizeAttrs>({
  onnx: "Resize",
  inputs: ["x"],
  infer: ({ x }, { size }) => ({ dtype: x.dtype, shape: [...x.shape.slice(0, 2), ...size] }),
  // Each axis is a product with a matrix of weights, so the gradient is one with its transpose.
  vjp: ({ x }, dy, { attrs }) => ({
    x: attrs.size.reduce((d, _, i) => {
      const weights = resizeMatrix(known(x.shape[i + 2]), attrs.size[i], attrs);
      return weights ? along(d, i + 2, matrix(weights, x).mT) : d;
    }, dy),
  }),
  form: ({ size, mode, alignCorners }, { inputs: [x] }): OnnxForm => {
    // Of every axis: where `axes` names some, the engine mixes them up as it moves a transpose past the node.
    const [lead, map] = [x!.shape.slice(0, 2), x!.shape.slice(2)];
    const factors = [1, 1, ...size.map((to, i) => factor(known(map[i]), to))];
    const byFactors = [undefined, { dtype: "float32", shape: [x!.rank], data: dataOf("float32", factors) }] as const;
    if (mode === "nearest") {
      // By whole factors: what the engine also computes in blocks of channels.
      return {
        attributes: { mode, coordinate_transformation_mode: "asymmetric", nearest_mode: "floor" },
        constants: byFactors,
      };
    }
    const sizes = [...lead, ...size];
    return {
      attributes: {
        mode: mode === "nearest-exact" ? "nearest" : mode,
        coordinate_transformation_mode: alignCorners ? "align_corners" : "half_pixel",
        nearest_mode: "round_prefer_ceil",
        cubic_coeff_a: new FloatAttr(CUBIC),
      },
      constants: isStatic(sizes)
        ? [undefined, undefined, { dtype: "int64", shape: [x!.rank], data: dataOf("int64", sizes) }]
        : byFactors,
    };
  },
});

const isStatic = (shape: Shape): shape is readonly number[] => !shape.some(isOpen);

/** to / from in float32, but never less: the engine multiplies by it and rounds down. */
function factor(from: number, to: number): number {
  const nearest = Math.fround(to / from);
  return nearest * from < to ? nearest * (1 + 2 ** -23) : nearest;
}

/** The slope of the cubic kernel at 1, as in PyTorch.  Keys, "Cubic Convolution Interpolation" (1981) has -1/2. */
const CUBIC = -0.75;

/** Weights of an axis's `from` pixels in each of `to`, row by row; undefined where it stays as it is. */
function resizeMatrix(from: number, to: number, { mode, alignCorners }: ResizeAttrs): number[][] | undefined {
  if (from === to) return undefined;
  const last = from - 1;
  return Array.from({ length: to }, (_, i) => {
    const row = new Array<number>(from).fill(0);
    const add = (place: number, weight: number): void => {
      row[Math.min(Math.max(place, 0), last)] += weight;
    };
    if (mode === "nearest") add(Math.floor((i * from) / to), 1);
    else if (mode === "nearest-exact") add(Math.floor(((i + 0.5) * from) / to), 1);
    else {
      const at = alignCorners ? (to === 1 ? 0 : (i * last) / (to - 1)) : ((i + 0.5) * from) / to - 0.5;
      const left = Math.floor(at);
      const t = at - left;
      if (mode === "linear") [1 - t, t].forEach((weight, k) => void add(left + k, weight));
      else [1 + t, t, 1 - t, 2 - t].forEach((distance, k) => void add(left - 1 + k, cubic(distance)));
    }
    return row;
  });
}

/** The cubic convolution kernel at a distance of 0 to 2 pixels. */
const cubic = (d: number): number =>
  d <= 1 ? ((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1 : ((d - 5) * d + 8) * CUBIC * d - 4 * CUBIC;

const matrix = (rows: readonly (readonly number[])[], like: Tensor): Tensor =>
  constant(dataOf(like.dtype, rows.flat()), [rows.length, rows[0].length], like.dtype);

/** A map's axes become others: as many, and none of them empty. */
export function checkSize(x: Tensor, size: readonly number[]): void {
  if (size.length !== x.rank - 2 || !size.every(isCount))
    throw new ShapeError(`a map of ${x.rank - 2} axes cannot become ${size.join(" × ")}`);
}

export interface ResizeOptions {
  /** Sizes of the axes after the channels. */
  size: readonly number[];
  /** "linear" by default. */
  mode?: ResizeMode;
  /** Whether the centres of the corner pixels stay in place; not for the nearest modes. */
  alignCorners?: boolean;
}

/** Another resolution, as PyTorch's `interpolate` without antialiasing.  [N, C, ...S] -> [N, C, ...size] */
export const resize = (x: Tensor, { size, mode = "linear", alignCorners = false }: ResizeOptions): Tensor =>
  explained("Resize", [x], ["x"], () => {
    checkSize(x, size);
    const attrs = { size, mode, alignCorners: alignCorners && !mode.startsWith("nearest") };
    const from = size.map((_, i) => known(x.shape[i + 2], "a resized axis"));
    if (from.every((s, i) => s === size[i])) return x;
    if (engineAgrees(from, attrs)) return resizeOp(x, attrs);
    return size.reduce((y, to, i) => {
      const weights = resizeMatrix(from[i], to, attrs);
      return weights ? along(y, i + 2, matrix(weights, x)) : y;
    }, x);
  });

/** Whether the engine's Resize computes it, and to the last pixel: otherwise each axis is multiplied by its weights. */
const engineAgrees = (from: readonly number[], { size, mode }: ResizeAttrs): boolean => {
  if (mode === "linear") return true;
  // With channels last, where the engine may bring it, its cubic kernel does not shrink.
  if (mode === "cubic") return size.length === 2 && from.every((s, i) => s <= size[i]);
  // It divides by a rounded scale, and a place just short of a pixel's edge gives the pixel before: seen from 14 to 16, say.
  if (mode === "nearest") return from.every((s, i) => findsNearest(s, size[i]));
  return from.every((s, i) => Math.fround(size[i] / s) === size[i] / s || !hasCentreOnEdge(s, size[i]));
};

/** Whether the engine, which divides by a rounded scale, finds the pixel at or before each of `to` places. */
const findsNearest = (from: number, to: number): boolean => to % from === 0 || Number.isInteger(Math.log2(from / to));

/** Whether a pixel of the `to` has its centre where two of the `from` meet. */
const hasCentreOnEdge = (from: number, to: number): boolean =>
  Array.from({ length: to }).some((_, i) => ((2 * i + 1) * from) % (2 * to) === 0);

/** Whole factors, one for each axis of a map. */
export interface Times {
  times: readonly number[];
}

/** The sides of a map that has one for each factor. */
function sidesFor({ shape }: Tensor, { times }: Times): number[] {
  if (shape.length !== times.length + 2 || !times.every(isCount))
    throw new ShapeError(`${times.join(" × ")} times are for [N, C, ...${times.length} axes]`);
  return shape.slice(2).map((s) => known(s, "an axis of a map"));
}

const manyTimes = (x: Tensor, attrs: Times): Shape => [
  ...x.shape.slice(0, 2),
  ...sidesFor(x, attrs).map((s, i) => s * attrs.times[i]),
];

/**
 * Each place `times` times along each axis, in every dtype; where the engine's Resize is faster, a pass takes that
 * (`passes/places-by-resampling.ts`).  [N, C, ...S] -> [N, C, ...S · times]
 */
export const repeatPlaces = defineOp<["x"], Times>({
  onnx: "RepeatPlaces",
  domain: "oriel",
  inputs: ["x"],
  infer: ({ x }, attrs) => ({ dtype: x.dtype, shape: manyTimes(x, attrs) }),
  vjp: ({ x }, dy, { attrs: { times } }) => {
    const windows = x.shape.slice(2).flatMap((s, i) => [s, times[i]]);
    return { x: dy.reshape([...x.shape.slice(0, 2), ...windows]).sum(times.map((_, i) => 3 + 2 * i)) };
  },
  lower: ({ x }, attrs) => {
    const [lead, map] = [x.shape.slice(0, 2), x.shape.slice(2)];
    const each = x.reshape([...lead, ...map.flatMap((s) => [s, 1])]);
    return expand(each, { shape: [...lead, ...map.flatMap((s, i) => [s, attrs.times[i]])] }).reshape(
      manyTimes(x, attrs),
    );
  },
});

/** Each place with `times` - 1 zeros behind it along each axis.  [N, C, ...S] -> [N, C, ...S · times] */
export const spreadPlaces = defineOp<["x"], Times>({
  onnx: "SpreadPlaces",
  domain: "oriel",
  inputs: ["x"],
  infer: ({ x }, attrs) => ({ dtype: x.dtype, shape: manyTimes(x, attrs) }),
  vjp: (_, dy, { attrs }) => ({ x: takePlaces(dy, attrs) }),
  lower: ({ x }, { times }) => times.reduce((d, k, i) => spread(d, i + 2, k), x),
});

/** The first of every `times` places along each axis.  [N, C, ...S] -> [N, C, ...⌈S / times⌉] */
export const takePlaces = defineOp<["x"], Times>({
  onnx: "TakePlaces",
  domain: "oriel",
  inputs: ["x"],
  infer: ({ x }, attrs) => ({
    dtype: x.dtype,
    shape: [...x.shape.slice(0, 2), ...sidesFor(x, attrs).map((s, i) => Math.ceil(s / attrs.times[i]))],
  }),
  vjp: ({ x }, dy, { attrs }) => ({ x: spreadOver(dy, { ...attrs, size: sidesFor(x, attrs) }) }),
  lower: ({ x }, { times }) => times.reduce((d, k, i) => d.slice(i + 2, 0, undefined, k), x),
});

/** Places spread over a map of any size: zeros are cut off its ends or added there.  [N, C, ...S] -> [N, C, ...size] */
export function spreadOver(x: Tensor, { times, size }: Times & { size: readonly number[] }): Tensor {
  return size.reduce((y, s, i) => y.pad(i + 2, 0, s - known(y.shape[i + 2])), spreadPlaces(x, { times }));
}
