import { ShapeError } from "../base/errors.ts";
import { dataOf } from "../graph/dtype.ts";
import { known, type Shape, staticSize } from "../graph/shape.ts";
import { constant, type OnnxForm, scalar, type Tensor } from "../graph/tensor.ts";
import { cast, equal } from "./compare.ts";
import {
  channelsOf,
  checkWindow,
  convSize,
  convTransposeOp,
  eachAxis,
  kernelPlaces,
  placesSeen,
  readPlace,
  turnedPads,
} from "./conv.ts";
import { type Draw, defineMany, defineOp, explained } from "./define.ts";
import { along } from "./linalg.ts";
import { expandLike, placeAlong, zerosLike } from "./move.ts";
import { checkSize, repeatPlaces } from "./resize.ts";

export interface PoolAttrs {
  kernel: readonly number[];
  strides: readonly number[];
  /** Starts, then ends. */
  pads: readonly number[];
}

function poolShape(x: Tensor, { kernel, strides, pads }: PoolAttrs): Shape {
  if (x.rank !== kernel.length + 2)
    throw new ShapeError(`windows of ${kernel.join(" × ")} read [N, C, ...${kernel.length} axes]`);
  const sizes = kernel.map((k, i) => {
    const out = convSize(known(x.shape[i + 2], "a pooled axis"), k, strides[i], pads[i] + pads[i + kernel.length], 1);
    if (out < 1) throw new ShapeError(`a map of ${x.shape[i + 2]} is smaller than the window`);
    return out;
  });
  return [x.shape[0], x.shape[1], ...sizes];
}

const form = ({ kernel, strides, pads }: PoolAttrs): OnnxForm => ({
  attributes: { kernel_shape: kernel, strides, pads },
});

/** How far the windows reach over an axis, padding at its start included. */
const reachOf = (y: Tensor, { kernel, strides }: PoolAttrs, i: number): number =>
  placesSeen(known(y.shape[i + 2]), kernel[i], strides[i], 1);

/** Puts gradients back where the windows read: one for each place of a window, or one for all.  [N, C, ...S'] -> [N, C, ...S] */
function unpool(taps: readonly Tensor[], x: Tensor, attrs: PoolAttrs): Tensor {
  const { kernel, strides, pads } = attrs;
  const spatial = kernel.length;
  if (kernel.every((k, i) => k === strides[i])) return unpoolSideBySide(taps, x, attrs);
  if (spatial > 2) return unpoolByPlace(taps, x, attrs);
  // WebGPU's ConvTranspose miscounts groups that read an even number of channels and make one: an empty one is added.
  const even = taps.length > 1 && taps.length % 2 === 0;
  const joined = sideBySide(even ? [...taps, zerosLike(taps[0])] : taps);
  const [channels, places, count] = [channelsOf(x), staticSize(kernel), known(joined.shape[2])];
  const values = Float32Array.from({ length: channels * count * places }, (_, i) =>
    count === 1 || Math.floor(i / places) % count === i % places ? 1 : 0,
  );
  const weights = constant(dataOf(x.dtype, values), [channels * count, 1, ...kernel], x.dtype);
  const flat = joined.reshape([x.shape[0], channels * count, ...taps[0].shape.slice(2)]);
  return convTransposeOp(flat, weights, undefined, {
    strides,
    pads,
    dilations: kernel.map(() => 1),
    group: channels,
    // Pixels that a stride stepped over at the end.
    outputPadding: kernel.map(
      (_, i) => known(x.shape[i + 2]) + pads[i] + pads[i + spatial] - reachOf(taps[0], attrs, i),
    ),
  });
}

/** The same where windows neither overlap nor leave a gap: gradients only change places. */
function unpoolSideBySide(taps: readonly Tensor[], x: Tensor, { kernel, pads }: PoolAttrs): Tensor {
  const spatial = kernel.length;
  const sizes = kernel.map((_, i) => known(taps[0].shape[i + 2]));
  const lead = x.shape.slice(0, 2);
  const order = [0, 1, ...sizes.flatMap((_, i) => [2 + spatial + i, 2 + i])];
  const map =
    taps.length === 1
      ? repeatPlaces(taps[0], { times: kernel })
      : sideBySide(taps)
          .reshape([...lead, ...kernel, ...sizes])
          .permute(...order)
          .reshape([...lead, ...sizes.map((s, i) => s * kernel[i])]);
  return kernel.reduce((out, k, i) => {
    const end = pads[i] + known(x.shape[i + 2]);
    // Pixels beyond the last window were never read; padding was, and keeps what it got.
    return out.pad(i + 2, 0, Math.max(0, end - sizes[i] * k)).slice(i + 2, pads[i], end);
  }, map);
}

/** [N, C, ...S] each -> [N, C, K, ...S] */
const sideBySide = (taps: readonly Tensor[]): Tensor =>
  taps[0].unsqueeze(2).concat(
    taps.slice(1).map((tap) => tap.unsqueeze(2)),
    2,
  );

/** The same in three dimensions, where WebGPU has no ConvTranspose: each place's gradients among zeros, summed. */
function unpoolByPlace(taps: readonly Tensor[], x: Tensor, attrs: PoolAttrs): Tensor {
  const { kernel, strides, pads } = attrs;
  const sizes = kernel.map((_, i) => pads[i] + known(x.shape[i + 2]) + pads[i + kernel.length]);
  const sum = kernelPlaces(kernel)
    .map((place, p) =>
      place.reduce((d, start, i) => placeAlong(d, i + 2, sizes[i], start, strides[i]), taps[p % taps.length]),
    )
    .reduce((a, b) => a.add(b));
  return kernel.reduce((d, _, i) => d.slice(i + 2, pads[i], pads[i] + known(x.shape[i + 2])), sum);
}

/** The largest of each window.  [N, C, ...S] -> [N, C, ...S'] */
export const maxPoolOp = defineOp<["x"], PoolAttrs>({
  onnx: "MaxPool",
  inputs: ["x"],
  infer: ({ x }, attrs) => ({ dtype: x.dtype, shape: poolShape(x, attrs) }),
  form,
  vjp: ({ x }, dy, { y, attrs }) => ({ x: maxPoolGradient(x, y, dy, attrs) }),
});

/**
 * dx of a max pool as one operation, since processors have a faster way (`passes/pools-with-places.ts`): the first place of a window
 * that holds its maximum takes the gradient.  WebGPU's MaxPool gives no places, so they are found by comparing each shifted view of x with y.
 */
export const maxPoolGradient: Draw<["x", "y", "dy"], PoolAttrs> = defineOp({
  onnx: "MaxPoolGradient",
  domain: "oriel",
  inputs: ["x", "y", "dy"],
  infer: ({ x }) => ({ dtype: x.dtype, shape: x.shape }),
  vjp: ({ x, y }, dx, { attrs }) => {
    const [views, firsts] = [viewsOf(dx, y, attrs, 0), firstMaxima(x, y, attrs)];
    return { x: null, y: null, dy: views.map((view, i) => view.mul(firsts[i])).reduce((a, b) => a.add(b)) };
  },
  lower: ({ x, y, dy }, attrs) => {
    const taps = firstMaxima(x, y, attrs).map((first) => first.mul(dy));
    return unpool(taps, x, attrs);
  },
});

/** What each place of the windows reads of x, which `value` surrounds.  [N, C, ...S] -> [N, C, ...S'] each */
function viewsOf(x: Tensor, y: Tensor, { kernel, strides, pads }: PoolAttrs, value: number): Tensor[] {
  const sizes = kernel.map((_, i) => known(y.shape[i + 2]));
  const padded = kernel.reduce((out, _, i) => out.pad(i + 2, pads[i], pads[i + kernel.length], { value }), x);
  return kernelPlaces(kernel).map((place) => readPlace(padded, place, { sizes, strides }));
}

/** 1 where a place of the windows is the first that holds the maximum, else 0.  [N, C, ...S'] each */
function firstMaxima(x: Tensor, y: Tensor, attrs: PoolAttrs): Tensor[] {
  let free: Tensor | undefined;
  return viewsOf(x, y, attrs, -3e38).map((view) => {
    const hit = cast(equal(view, y), { to: x.dtype });
    const first = free ? hit.mul(free) : hit;
    const miss = scalar(1, x.dtype).sub(hit);
    free = free ? free.mul(miss) : miss;
    return first;
  });
}

/** The largest of each window, and where in x, all of it laid flat, it stands: int64.  [N, C, ...S] -> two of [N, C, ...S'] */
export const maxPoolWithPlaces = defineMany<PoolAttrs>({
  onnx: "MaxPool",
  inputs: ["x"],
  infer: ([x], attrs) => {
    const shape = poolShape(x, attrs);
    return [
      { dtype: x.dtype, shape },
      { dtype: "int64", shape },
    ];
  },
  form,
  vjp: "none",
});

interface AverageAttrs extends PoolAttrs {
  /** Whether padding counts in the average. */
  countPadding: boolean;
}

/** The mean of each window.  [N, C, ...S] -> [N, C, ...S'] */
export const averagePoolOp: Draw<["x"], AverageAttrs> = defineOp({
  onnx: "AveragePool",
  inputs: ["x"],
  infer: ({ x }, attrs) => ({ dtype: x.dtype, shape: poolShape(x, attrs) }),
  form: (attrs) => ({ attributes: { ...form(attrs).attributes, count_include_pad: attrs.countPadding ? 1 : 0 } }),
  vjp: ({ x }, dy, { y, attrs }) => {
    const counts = constant(dataOf(x.dtype, windowSizes(x.shape, y.shape, attrs)), known2(y.shape), x.dtype);
    const shares = dy.div(counts);
    const { kernel, strides, pads } = attrs;
    const turned = turnedPads(kernel, { pads });
    // With stride 1, each pixel sums a window of shares: an average of them, times their number.
    if (strides.some((s) => s > 1) || turned.some((p) => p < 0)) return { x: unpool([shares], x, attrs) };
    const average = averagePoolOp(shares, { kernel, strides, pads: turned, countPadding: true });
    return { x: average.mul(staticSize(kernel)) };
  },
});
const known2 = (shape: Shape): number[] => [1, 1, ...shape.slice(2).map((d) => known(d))];

/** How many elements each window averages. */
function windowSizes(x: Shape, y: Shape, { kernel, strides, pads, countPadding }: AverageAttrs): Float64Array {
  const spatial = kernel.length;
  let sizes = [1];
  kernel.forEach((k, i) => {
    const size = known(x[i + 2]);
    const along = Array.from({ length: known(y[i + 2]) }, (_, o) => {
      const start = o * strides[i] - pads[i];
      const end = Math.min(start + k, size + pads[i + spatial]);
      return countPadding ? end - start : Math.min(end, size) - Math.max(start, 0);
    });
    sizes = sizes.flatMap((a) => along.map((b) => a * b));
  });
  return Float64Array.from(sizes);
}

/** The mean of a whole map, as `mean` over its places.  [N, C, ...S] -> [N, C, ...1] */
export const globalAveragePool: Draw<["x"]> = defineOp({
  onnx: "GlobalAveragePool",
  inputs: ["x"],
  infer: ({ x }) => {
    if (x.rank < 3) throw new ShapeError(`it reads a map, [N, C, ...S]; x has ${x.rank} axes`);
    return { dtype: x.dtype, shape: x.shape.map((d, i) => (i < 2 ? d : 1)) };
  },
  vjp: ({ x }, dy) => ({ x: expandLike(dy.div(staticSize(x.shape.slice(2))), x) }),
});

export interface PoolOptions {
  kernel: number | readonly number[];
  /** By default the kernel's size. */
  stride?: number | readonly number[];
  padding?: number | readonly number[];
  ceilMode?: boolean;
}

/**
 * One number for each axis.  `ceilMode` becomes padding at the end, up to where the last window reaches: it starts on the map or in
 * the padding before it, as in PyTorch.  (ONNX infers another size than the engine computes where a window would start later.)
 */
function normalPool(x: Tensor, options: PoolOptions): { attrs: PoolAttrs; overrun: boolean } {
  const { kernel, stride = kernel, padding = 0, ceilMode = false } = options;
  const spatial = x.rank - 2;
  const [sizes, strides, given] = [kernel, stride, padding].map((value) => eachAxis(value, spatial));
  const pads = given.length === spatial ? [...given, ...given] : given;
  if (spatial < 1) throw new ShapeError("windows read a map, [N, C, ...S]");
  checkWindow(spatial, { kernel: sizes, strides, pads });
  if (pads.some((p, i) => p >= sizes[i % spatial]))
    throw new ShapeError(
      `the padding is [${pads.join(", ")}]; windows of ${sizes.join(" × ")} would read nothing else`,
    );
  const ends = sizes.map((k, i) => {
    const size = known(x.shape[i + 2], "a pooled axis") + pads[i];
    const count = convSize(size, k, strides[i], pads[i + spatial], 1);
    const reach = count * strides[i] + k;
    return ceilMode && count * strides[i] < size && reach - strides[i] < size + pads[i + spatial]
      ? reach - size
      : pads[i + spatial];
  });
  const attrs = { kernel: sizes, strides, pads: [...pads.slice(0, spatial), ...ends] };
  return { attrs, overrun: ends.some((p, i) => p > pads[i + spatial]) };
}

/** The largest of each window.  [N, C, ...S] -> [N, C, ...S'] */
export const maxPool = (x: Tensor, options: PoolOptions): Tensor =>
  explained("MaxPool", [x], ["x"], () => maxPoolOp(x, normalPool(x, options).attrs));

/** The mean of each window; padding counts unless told otherwise, as in PyTorch.  [N, C, ...S] -> [N, C, ...S'] */
export const averagePool = (x: Tensor, options: PoolOptions & { countPadding?: boolean }): Tensor =>
  explained("AveragePool", [x], ["x"], () => {
    const { countPadding = true } = options;
    const { attrs, overrun } = normalPool(x, options);
    if (!countPadding || !overrun) return averagePoolOp(x, { ...attrs, countPadding });
    // What a ceiling adds never counts: the padding that does becomes part of the map.
    const plain = normalPool(x, { ...options, ceilMode: false }).attrs.pads;
    const map = attrs.kernel.reduce((out, _, i) => out.pad(i + 2, plain[i], plain[i + attrs.kernel.length]), x);
    return averagePoolOp(map, { ...attrs, pads: attrs.pads.map((p, i) => p - plain[i]), countPadding: false });
  });

/** Means over as many windows as asked, as equal as they can be.  [N, C, ...S] -> [N, C, ...size] */
export function adaptiveAveragePool(x: Tensor, size: readonly number[]): Tensor {
  explained("AveragePool", [x], ["x"], () => checkSize(x, size));
  const from = size.map((_, i) => known(x.shape[i + 2], "a pooled axis"));
  if (from.every((s, i) => s % size[i] === 0)) return averagePool(x, { kernel: from.map((s, i) => s / size[i]) });
  // Windows of different sizes, as in PyTorch: from ⌊iS/S'⌋ to ⌈(i+1)S/S'⌉.
  return size.reduce((y, to, axis) => {
    const s = from[axis];
    const rows = Array.from({ length: to }, (_, i) => {
      const [start, end] = [Math.floor((i * s) / to), Math.ceil(((i + 1) * s) / to)];
      return Array.from({ length: s }, (_, k) => (k >= start && k < end ? 1 / (end - start) : 0));
    });
    return along(y, axis + 2, constant(dataOf(x.dtype, rows.flat()), [to, s], x.dtype));
  }, x);
}
