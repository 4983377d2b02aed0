import { dataOf } from "../../graph/dtype.ts";
import { type Dim, isOpen, known, sameShape, sizeOf } from "../../graph/shape.ts";
import { constant, scalar, type Tensor } from "../../graph/tensor.ts";
import { cast, greater, where } from "../compare.ts";
import { convOp, convTransposeOp, placesSeen } from "../conv.ts";
import * as elementwise from "../elementwise.ts";
import { along, einsum, gemm } from "../linalg.ts";
import { expand } from "../move.ts";
import * as norm from "../norm.ts";
import { averagePool, maxPool } from "../pool.ts";
import { dequantizeLinear, quantizeLinear } from "../quantize.ts";
import * as reduce from "../reduce.ts";
import { type ResizeMode, resize } from "../resize.ts";
import type { At, Importer } from "./at.ts";
import { foldReduce, ifKnown, isKnown, type Value } from "./known.ts";

const spatialOf = (x: Tensor): number => x.rank - 2;
const times = (n: number, value: number): number[] => Array.from({ length: n }, () => value);

/** How a window walks over a map, as Conv and the pools write it; `SAME` and `VALID` are worked out. */
function windowOf(at: At, x: Tensor, kernel: readonly number[]) {
  const n = spatialOf(x);
  if (n < 1 || n > 3) throw at.wrong(`wants a map, it has ${x}`);
  const strides = at.ints("strides") ?? times(n, 1);
  const dilations = at.ints("dilations") ?? times(n, 1);
  if ([kernel, strides, dilations].some((list) => list.length !== n || list.some((v) => !(v >= 1))))
    throw at.wrong(`has windows of [${kernel}] by [${strides}], apart [${dilations}], for ${x}`);
  return { n, strides, dilations, pads: padsOf(at, x, kernel, strides, dilations) };
}

function padsOf(
  at: At,
  x: Tensor,
  kernel: readonly number[],
  strides: readonly number[],
  dilations: readonly number[],
): readonly number[] {
  const auto = at.text("auto_pad", "NOTSET");
  const n = kernel.length;
  if (auto === "NOTSET") {
    const pads = at.ints("pads") ?? times(2 * n, 0);
    if (pads.length !== 2 * n || pads.some((p) => p < 0)) throw at.wrong(`pads ${n} axes by [${pads}]`);
    return pads;
  }
  if (auto === "VALID") return times(2 * n, 0);
  if (auto !== "SAME_UPPER" && auto !== "SAME_LOWER") throw at.wrong(`pads by "${auto}"`);
  const each = kernel.map((k, i) => {
    const size = known(x.shape[i + 2], "a map's axis");
    const places = Math.ceil(size / strides[i]);
    return Math.max(0, placesSeen(places, k, strides[i], dilations[i]) - size);
  });
  const [few, rest] = [each.map((p) => Math.floor(p / 2)), each.map((p) => Math.ceil(p / 2))];
  return auto === "SAME_UPPER" ? [...few, ...rest] : [...rest, ...few];
}

const kernelOf = (w: Tensor): number[] => w.shape.slice(2).map((d) => known(d, "a kernel's axis"));

export const conv = (at: At): Tensor => {
  const [x, w] = [at.x(0), at.x(1)];
  const { strides, dilations, pads } = windowOf(at, x, kernelOf(w));
  return convOp(x, w, at.maybe(2), { strides, dilations, pads, group: at.attr("group", 1) });
};

const convTranspose: Importer = (at) => {
  const [x, w] = [at.x(0), at.x(1)];
  const kernel = kernelOf(w);
  if (at.text("auto_pad", "NOTSET") !== "NOTSET" || at.ints("output_shape"))
    throw at.wrong("pads by the size it makes", "export it with pads");
  const { n, strides, dilations, pads } = windowOf(at, x, kernel);
  const outputPadding = at.ints("output_padding") ?? times(n, 0);
  return convTransposeOp(x, w, at.maybe(2), { strides, dilations, pads, group: at.attr("group", 1), outputPadding });
};

/** The windows of a pool.  One that skips pixels has no op here. */
function poolOf(at: At, x: Tensor) {
  const kernel = at.ints("kernel_shape");
  if (!kernel) throw at.wrong("has no kernel_shape");
  const { strides, dilations, pads } = windowOf(at, x, kernel);
  if (dilations.some((d) => d !== 1)) throw at.wrong(`pools pixels that lie [${dilations}] apart`);
  return { kernel, stride: strides, padding: pads, ceilMode: at.attr("ceil_mode", 0) !== 0 };
}

const mapAxes = (x: Tensor): number[] => times(spatialOf(x), 0).map((_, i) => i + 2);

/** Softmax and its logarithm.  Before version 13 all axes from the given one on counted as one. */
const soft =
  (draw: (x: Tensor, options: { axis: number }) => Tensor): Importer =>
  (at) => {
    const x = at.x(0);
    const axis = at.axis(at.attr("axis", at.opset < 13 ? 1 : -1), x.rank);
    if (at.opset >= 13 || axis === x.rank - 1) return draw(x, { axis });
    const flat = x.reshape([sizeOf(x.shape.slice(0, axis)), sizeOf(x.shape.slice(axis))]);
    return draw(flat, { axis: 1 }).reshape(x.shape);
  };

/** A vector counts as a matrix of one row, or of one column on the right. */
function product(a: Tensor, b: Tensor): Tensor {
  const left = a.rank === 1 ? a.unsqueeze(0) : a;
  const right = b.rank === 1 ? b.unsqueeze(1) : b;
  const y = left.matmul(right);
  const shape = y.shape.filter((_, i) => !(a.rank === 1 && i === y.rank - 2) && !(b.rank === 1 && i === y.rank - 1));
  return y.reshape(shape);
}

const general: Importer = (at) => {
  const [a, b, c] = [at.x(0), at.x(1), at.maybe(2)];
  const [alpha, beta] = [at.attr("alpha", 1), at.attr("beta", 1)];
  return gemm(a, b, c, {
    ...(alpha === 1 ? {} : { alpha }),
    ...(beta === 1 ? {} : { beta }),
    transA: at.attr("transA", 0) !== 0,
    transB: at.attr("transB", 0) !== 0,
  });
};

const batchNorm: Importer = (at) => {
  const [x, scale, bias, mean, variance] = [0, 1, 2, 3, 4].map((i) => at.x(i));
  const attrs = { epsilon: at.attr("epsilon", 1e-5), momentum: at.attr("momentum", 0.9) };
  const { training } = at.around;
  if (training) return training.batchNorm({ x, scale, bias, mean, variance }, attrs);
  return norm.batchNorm(x, scale, bias, mean, variance, { epsilon: attrs.epsilon });
};

/** Normalises the last axes, from `axis` on; the means and 1/σ that it finds may be read too. */
const layerNorm: Importer = (at) => {
  const x = at.x(0);
  const axis = at.axis(at.attr("axis", -1), x.rank);
  const own = x.shape.slice(axis);
  const inputs = [x, at.x(1).reshape(own), at.maybe(2)?.reshape(own)];
  return norm.layerNormOp(inputs, { axis, epsilon: at.attr("epsilon", 1e-5) });
};

const groupNorm: Importer = (at) => {
  const x = at.x(0);
  const groups = at.attr("num_groups", 0);
  const channels = known(x.shape[1], "the channel axis");
  // Before version 21 there is one scale for each group.
  const each = (t: Tensor): Tensor =>
    t.shape[0] === channels
      ? t
      : t
          .reshape([groups, 1])
          .mul(constant(dataOf(t.dtype, times(channels / groups, 1)), [1, channels / groups], t.dtype))
          .reshape([channels]);
  if (!(groups >= 1) || channels % groups !== 0) throw at.wrong(`makes ${groups} groups of ${channels} channels`);
  return norm.groupNorm(x, groups, each(at.x(1)), each(at.x(2)), at.attr("epsilon", 1e-5));
};

const rmsNorm: Importer = (at) => {
  const x = at.x(0);
  if (at.axis(at.attr("axis", -1), x.rank) !== x.rank - 1) throw at.wrong("normalises more than the last axis");
  const [scale, own] = [at.x(1), x.shape.slice(-1)];
  const each = sameShape(scale.shape, own) ? scale : expand(scale.reshape([-1]), { shape: own });
  return norm.rmsNorm(x, each, at.attr("epsilon", 1e-5));
};

type Reduction = (x: Tensor, attrs: { axes: readonly number[]; keepdims: boolean }) => Tensor;

const reducing =
  (draw: Reduction): Importer =>
  (at) => {
    const value = at.value(0);
    const rank = value.shape.length;
    const given = at.axes(1);
    if (!given?.length && at.attr("noop_with_empty_axes", 0) !== 0) return value;
    const axes = (given?.length ? given : value.shape.map((_, i) => i)).map((a) => at.axis(a, rank));
    const keepdims = at.attr("keepdims", 1) !== 0;
    if (isKnown(value) && axes.length === rank) {
      const folded = ifKnown(() => foldReduce(at.node.op, value, keepdims));
      if (folded) return folded;
    }
    return axes.length === 0 ? value : draw(at.tensor(value), { axes, keepdims });
  };

const product64: Reduction = (x, { axes, keepdims }) =>
  axes
    .reduce((y, axis) => {
      const size = known(y.shape[axis], "a multiplied axis");
      if (size > 64) throw new RangeError(`a product of ${size} numbers along an axis`);
      const parts = times(size, 0).map((_, i) => y.slice(axis, i, i + 1));
      return parts.reduce((a, b) => a.mul(b));
    }, x)
    .reshape(x.shape.flatMap((d, i): Dim[] => (axes.includes(i) ? (keepdims ? [1] : []) : [d])));

const best =
  (turn: (x: Tensor) => Tensor): Importer =>
  (at) => {
    const x = at.x(0);
    const axis = at.axis(at.attr("axis", 0), x.rank);
    const keepdims = at.attr("keepdims", 1) !== 0;
    if (at.attr("select_last_index", 0) === 0) return reduce.argMax(turn(x), { axis, keepdims });
    // Of equals the last is the first from the other end.
    const last = known(x.shape[axis], "the axis") - 1;
    return scalar(last, "int64").sub(reduce.argMax(turn(x).flip(axis), { axis, keepdims }));
  };

const topK: Importer = (at) => {
  const x = at.x(0);
  const k = at.opset < 10 ? at.attr("k", 1) : at.number(1, "how many");
  const axis = at.axis(at.attr("axis", -1), x.rank);
  if (at.attr("largest", 1) !== 0) {
    const { values, indices } = reduce.topK(x, k, axis);
    return [values, indices];
  }
  const { values, indices } = reduce.topK(x.neg(), k, axis);
  return [values.neg(), indices];
};

/** How ONNX places the pixels of a resized axis. */
interface Placing {
  coordinates: string;
  mode: string;
  nearest: string;
  a: number;
  outside: boolean;
}

/** Pixels of an axis beyond this are a broken file, not a picture. */
const largestSide = 2 ** 16;

/**
 * Another resolution.  What PyTorch writes is one op here; any other way of placing pixels becomes a product with each axis's weights,
 * so that it has a gradient too.
 */
const resized: Importer = (at) => {
  const x = at.x(0);
  const old = at.node.op === "Upsample" || at.opset < 11;
  const scaleAt = old ? 1 : 2;
  const axes = at.ints("axes")?.map((a) => at.axis(a, x.rank)) ?? x.shape.map((_, i) => i);
  const whole = (list: readonly Dim[] | undefined, what: string): Dim[] | undefined => {
    if (!list?.length) return undefined;
    if (list.length !== axes.length) throw at.wrong(`has ${list.length} ${what} for ${axes.length} axes`);
    return x.shape.map((_, i) => (axes.includes(i) ? list[axes.indexOf(i)] : NaN));
  };
  const byAttribute = scalesAttribute(at);
  const scales = whole(byAttribute ?? (at.has(scaleAt) ? at.numbers(scaleAt, "scales") : undefined), "scales");
  const sizes = whole(!old && at.has(3) ? at.dims(3, "sizes") : undefined, "sizes");
  if (!scales && !sizes) throw at.wrong("says neither how large the result is nor by what it grows");
  if (at.attr("antialias", 0) !== 0) throw at.wrong("smooths what it shrinks (antialias), which is not read");
  if (at.text("keep_aspect_ratio_policy", "stretch") !== "stretch") throw at.wrong("keeps the aspect ratio");
  const placing: Placing = {
    coordinates: at.text("coordinate_transformation_mode", old ? "asymmetric" : "half_pixel"),
    mode: at.text("mode", "nearest"),
    nearest: at.text("nearest_mode", old ? "floor" : "round_prefer_floor"),
    a: at.attr("cubic_coeff_a", -0.75),
    outside: at.attr("exclude_outside", 0) !== 0,
  };
  const target = x.shape.map((d, i): { size: Dim; scale: number } => {
    const [scale, size] = [scales?.[i], sizes?.[i]];
    if (Number.isNaN(scale ?? size) || isOpen(d)) return { size: d, scale: 1 };
    if (typeof size === "number") return { size, scale: size / d };
    if (typeof scale !== "number") throw at.wrong("resizes to a size that only a run knows");
    return { size: Math.floor(Math.fround(d * scale)), scale };
  });
  for (const { size } of target)
    if (!isOpen(size) && !(Number.isInteger(size) && size >= 1 && size <= largestSide))
      throw at.wrong(`makes an axis of ${size}`);
  const mode = ownMode(placing);
  // A scale is a float32: 7 / 5 is there a little less.
  const exact = target.every(
    ({ size, scale }, i) => isOpen(size) || Math.abs(size - Number(x.shape[i]) * scale) < 1e-6 * size,
  );
  // PyTorch's exporter takes a single pixel from the corner, PyTorch itself from the middle.
  const single = placing.coordinates === "pytorch_half_pixel" && target.slice(2).some(({ size }) => size === 1);
  if (mode && exact && !single && target.slice(0, 2).every(({ size }, i) => size === x.shape[i]) && x.rank > 2)
    return resize(x, { ...mode, size: target.slice(2).map(({ size }) => known(size, "a resized axis")) });
  return target.reduce((y, { size, scale }, axis) => {
    if (isOpen(size) || size === x.shape[axis]) return y;
    const from = known(x.shape[axis], "a resized axis");
    if (from > largestSide || from * size > 2 ** 24) throw at.wrong(`turns ${from} pixels into ${size}`);
    const rows = times(size, 0).map((_, i) => weightsOf(at, i, from, size, scale, placing));
    return along(y, axis, constant(dataOf(x.dtype, rows.flat()), [size, from], x.dtype));
  }, x);
};

function scalesAttribute(at: At): readonly number[] | undefined {
  const list = at.ints("scales");
  if (list || at.node.op !== "Upsample") return list;
  const [height, width] = [at.attr("height_scale", 0), at.attr("width_scale", 0)];
  return height > 0 && width > 0 ? [1, 1, height, width] : undefined;
}

/** The same resizing among those that we have an op for. */
function ownMode({ coordinates, mode, nearest, a, outside }: Placing) {
  const corners = coordinates === "align_corners";
  const half = coordinates === "half_pixel" || coordinates === "pytorch_half_pixel";
  const made = (own: ResizeMode) => ({ mode: own, alignCorners: corners });
  if (mode === "nearest") {
    if (coordinates === "asymmetric" && nearest === "floor") return made("nearest");
    return half && nearest === "round_prefer_ceil" ? made("nearest-exact") : undefined;
  }
  if (!half && !corners) return undefined;
  if (mode === "linear") return made("linear");
  return mode === "cubic" && a === -0.75 && !outside ? made("cubic") : undefined;
}

/** Weights of an axis's pixels in pixel `i` of the result, as ONNX defines Resize. */
function weightsOf(at: At, i: number, from: number, to: number, scale: number, placing: Placing): number[] {
  const { coordinates, mode, nearest, a, outside } = placing;
  const place = ((): number => {
    switch (coordinates) {
      case "asymmetric":
        return i / scale;
      case "align_corners":
        return to === 1 ? 0 : (i * (from - 1)) / (to - 1);
      case "half_pixel":
        return (i + 0.5) / scale - 0.5;
      case "pytorch_half_pixel":
        return to === 1 ? 0 : (i + 0.5) / scale - 0.5;
      case "half_pixel_symmetric": {
        const adjusted = to / (scale * from);
        return from * (1 - adjusted) * 0.5 + (i + 0.5) / scale - 0.5;
      }
      default:
        throw at.wrong(`places pixels by "${coordinates}"`);
    }
  })();
  const row = times(from, 0);
  const inside = (p: number): boolean => p >= 0 && p < from;
  const add = (p: number, weight: number): void => {
    row[Math.min(Math.max(p, 0), from - 1)] += weight;
  };
  const left = Math.floor(place);
  const t = place - left;
  if (mode === "nearest") add(nearestOf(at, place, nearest), 1);
  else if (mode === "linear") {
    add(left, 1 - t);
    add(left + 1, t);
  } else if (mode === "cubic") {
    const taps = [-1, 0, 1, 2].map((k) => ({ p: left + k, weight: cubic(Math.abs(t - k), a) }));
    const kept = outside ? taps.filter(({ p }) => inside(p)) : taps;
    const sum = outside ? kept.reduce((s, { weight }) => s + weight, 0) : 1;
    for (const { p, weight } of kept) add(p, weight / sum);
  } else throw at.wrong(`resizes by "${mode}"`);
  return row;
}

function nearestOf(at: At, place: number, nearest: string): number {
  const low = Math.floor(place);
  switch (nearest) {
    case "floor":
      return low;
    case "ceil":
      return Math.ceil(place);
    case "round_prefer_floor":
      return place - low <= 0.5 ? low : low + 1;
    case "round_prefer_ceil":
      return place - low < 0.5 ? low : low + 1;
    default:
      throw at.wrong(`takes the pixel by "${nearest}"`);
  }
}

/** The cubic convolution kernel with slope `a` at 1.  Keys, "Cubic Convolution Interpolation" (1981). */
const cubic = (d: number, a: number): number =>
  d <= 1 ? ((a + 2) * d - (a + 3)) * d * d + 1 : d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;

/** softmax(q kᵀ · scale + mask) v.  q: [...B, L, D], k: [...B, S, D], v: [...B, S, E] -> [...B, L, E] */
export function attention(q: Tensor, k: Tensor, v: Tensor, scale: number, mask?: Tensor): Tensor {
  const scores = q.mul(scale).matmul(k.mT);
  return norm.softmax(mask ? scores.add(mask) : scores).matmul(v);
}

/** [N, L, heads · D] -> [N, heads, L, D] */
export const toHeads = (x: Tensor, heads: number): Tensor =>
  x.reshape([x.shape[0], x.shape[1], heads, known(x.shape[2]) / heads]).permute(0, 2, 1, 3);
/** [N, heads, L, D] -> [N, L, heads · D] */
export const fromHeads = (x: Tensor): Tensor =>
  x.permute(0, 2, 1, 3).reshape([x.shape[0], x.shape[2], known(x.shape[1]) * known(x.shape[3])]);

/** ONNX's Attention (23) without a past. */
const attend: Importer = (at) => {
  const inputs = [at.x(0), at.x(1), at.x(2)];
  if (at.has(4) || at.has(5) || at.node.outputs.slice(1).some(Boolean)) throw at.wrong("keeps a past");
  if (at.attr("is_causal", 0) !== 0 || at.attr("softcap", 0) !== 0) throw at.wrong("is causal or capped");
  const flat = inputs[0].rank === 3;
  const heads = [at.attr("q_num_heads", 1), at.attr("kv_num_heads", 1), at.attr("kv_num_heads", 1)];
  const [q, k, v] = flat ? inputs.map((x, i) => toHeads(x, heads[i])) : inputs;
  if (q.shape[1] !== k.shape[1]) throw at.wrong("shares keys between heads");
  const scale = at.attr("scale", 1 / Math.sqrt(known(q.shape[3])));
  const mask = at.maybe(3);
  const added = mask?.dtype === "bool" ? hidden(mask, q) : mask;
  const y = attention(q, k, v, scale, added);
  return flat ? fromHeads(y) : y;
};

/** 0 where a mask holds, else far below any score. */
const hidden = (mask: Tensor, like: Tensor): Tensor =>
  elementwise.mul(elementwise.sub(cast(mask, { to: like.dtype }), scalar(1, like.dtype)), scalar(1e9, like.dtype));

/** x as it is, but divided by its own length along an axis. */
const lpNorm: Importer = (at) => {
  const x = at.x(0);
  const axis = at.axis(at.attr("axis", -1), x.rank);
  const isSum = at.attr("p", 2) === 1;
  const sum = (isSum ? elementwise.abs(x) : x.square()).sum([axis], true);
  // Zeros stay zeros, and a gradient passes them.
  const some = where(greater(sum, scalar(0, x.dtype)), sum, scalar(1, x.dtype));
  return x.div(isSum ? some : some.sqrt());
};

/** A scale's axis counts from the front, where there is one for each place of it. */
const quantized = (at: At, x: Value): { axis: number } => ({
  axis: at.shape(1).length === 0 || x.shape.length === 0 ? 0 : at.axis(at.attr("axis", 1), Math.max(x.shape.length, 2)),
});

/** Layers: what mixes elements. */
export const layers: Readonly<Record<string, Importer>> = {
  Conv: conv,
  ConvTranspose: convTranspose,
  MatMul: (at) => product(at.x(0), at.x(1)),
  Gemm: general,
  Einsum: (at) => einsum(at.text("equation", ""), ...at.inputs.map((_, i) => at.x(i))),
  MaxPool: (at) => {
    if (at.node.outputs.length > 1 && at.node.outputs[1]) throw at.wrong("gives the places of what it takes");
    const x = at.x(0);
    return maxPool(x, poolOf(at, x));
  },
  AveragePool: (at) => {
    const x = at.x(0);
    return averagePool(x, { ...poolOf(at, x), countPadding: at.attr("count_include_pad", 0) !== 0 });
  },
  GlobalAveragePool: (at) => {
    const x = at.x(0);
    return x.mean(mapAxes(x), true);
  },
  GlobalMaxPool: (at) => {
    const x = at.x(0);
    return x.max(mapAxes(x), true);
  },
  Softmax: soft(norm.softmax),
  LogSoftmax: soft(norm.logSoftmax),
  BatchNormalization: batchNorm,
  LayerNormalization: layerNorm,
  InstanceNormalization: (at) => norm.instanceNorm(at.x(0), at.x(1), at.x(2), { epsilon: at.attr("epsilon", 1e-5) }),
  GroupNormalization: groupNorm,
  RMSNormalization: rmsNorm,
  SimplifiedLayerNormalization: rmsNorm,
  LpNormalization: lpNorm,
  ReduceSum: reducing(reduce.reduceSum),
  ReduceMean: reducing(reduce.reduceMean),
  ReduceMax: reducing(reduce.reduceMax),
  ReduceMin: reducing(reduce.reduceMin),
  ReduceProd: reducing(product64),
  ReduceLogSumExp: reducing(reduce.reduceLogSumExp),
  ReduceSumSquare: reducing(reduce.reduceSumSquare),
  ReduceL1: reducing((x, attrs) => reduce.reduceSum(elementwise.abs(x), attrs)),
  ReduceL2: reducing((x, attrs) => reduce.reduceSumSquare(x, attrs).sqrt()),
  ReduceLogSum: reducing((x, attrs) => reduce.reduceSum(x, attrs).log()),
  ArgMax: best((x) => x),
  ArgMin: best((x) => x.neg()),
  TopK: topK,
  Resize: resized,
  Upsample: resized,
  Attention: attend,
  QuantizeLinear: (at) => {
    const zero = at.maybe(2);
    return quantizeLinear(at.x(0), at.x(1), zero, { ...quantized(at, at.value(0)), dtype: zero?.dtype ?? "uint8" });
  },
  DequantizeLinear: (at) => dequantizeLinear(at.x(0), at.x(1), at.maybe(2), quantized(at, at.value(0))),
};
