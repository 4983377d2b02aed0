import { ShapeError } from "../base/errors.ts";
import { dataOf } from "../graph/dtype.ts";
import { type Dim, isCount, isOpen, known, normalAxis, sizeOf } from "../graph/shape.ts";
import type { OnnxForm, Tensor, TensorType } from "../graph/tensor.ts";
import { cast, equal } from "./compare.ts";
import { type Draw, defineMany, defineOp } from "./define.ts";
import { zerosLike } from "./move.ts";

/** Which axes, and whether they stay with size 1. */
interface Axes {
  axes: readonly number[];
  keepdims: boolean;
}

function reduced({ x }: { x: Tensor }, { axes, keepdims }: Axes): TensorType {
  const gone = new Set(axes.map((a) => normalAxis(a, x.rank)));
  // ONNX takes no axes for all of them.
  if (axes.length === 0)
    throw new ShapeError({ message: "no axis is named", help: "name every axis to reduce them all" });
  if (gone.size !== axes.length) throw new ShapeError(`the axes (${axes.join(", ")}) name one of them twice`);
  const shape = x.shape.flatMap((d, i): Dim[] => (gone.has(i) ? (keepdims ? [1] : []) : [d]));
  return { dtype: x.dtype, shape };
}

const form = ({ axes, keepdims }: Axes): OnnxForm => ({
  attributes: { keepdims: keepdims ? 1 : 0 },
  constants: [{ dtype: "int64", shape: [axes.length], data: dataOf("int64", axes) }],
});

/** Gives a reduced tensor its lost axes back, with size 1. */
const restore = (y: Tensor, x: Tensor, { axes, keepdims }: Axes): Tensor => {
  if (keepdims) return y;
  const gone = new Set(axes.map((a) => normalAxis(a, x.rank)));
  return y.reshape(x.shape.map((d, i) => (gone.has(i) ? 1 : d)));
};

export const reduceSum = defineOp<["x"], Axes>({
  onnx: "ReduceSum",
  inputs: ["x"],
  infer: reduced,
  form,
  vjp: ({ x }, dy, { attrs }) => ({ x: restore(dy, x, attrs).expandAs(x) }),
});

export const reduceMean = defineOp<["x"], Axes>({
  onnx: "ReduceMean",
  inputs: ["x"],
  infer: reduced,
  form,
  vjp: ({ x }, dy, { attrs }) => {
    const count = sizeOf(attrs.axes.map((a) => x.shape[normalAxis(a, x.rank)]));
    const share = restore(dy, x, attrs);
    // How many an open axis has is known only to the run, which counts them.
    const each = isOpen(count) ? share.div(zerosLike(x).add(1).sum(attrs.axes, true)) : share.mul(1 / count);
    return { x: each.expandAs(x) };
  },
});

/** Σ x² */
export const reduceSumSquare = defineOp<["x"], Axes>({
  onnx: "ReduceSumSquare",
  inputs: ["x"],
  infer: reduced,
  form,
  vjp: ({ x }, dy, { attrs }) => ({ x: x.mul(2).mul(restore(dy, x, attrs)) }),
});

// Where several elements are extreme, each takes an equal share of the gradient.
const extreme = (x: Tensor, y: Tensor, dy: Tensor, attrs: Axes): Tensor => {
  const hit = cast(equal(x, restore(y, x, attrs)), { to: x.dtype });
  return hit.mul(restore(dy, x, attrs).div(hit.sum(attrs.axes, true)));
};

export const reduceMax = defineOp<["x"], Axes>({
  onnx: "ReduceMax",
  inputs: ["x"],
  infer: reduced,
  form,
  vjp: ({ x }, dy, { y, attrs }) => ({ x: extreme(x, y, dy, attrs) }),
});

export const reduceMin = defineOp<["x"], Axes>({
  onnx: "ReduceMin",
  inputs: ["x"],
  infer: reduced,
  form,
  vjp: ({ x }, dy, { y, attrs }) => ({ x: extreme(x, y, dy, attrs) }),
});

/** ln Σ eˣ, computed without overflow. */
export const reduceLogSumExp = defineOp<["x"], Axes>({
  onnx: "ReduceLogSumExp",
  inputs: ["x"],
  infer: reduced,
  form,
  // dx = dy eˣ⁻ʸ, the softmax
  vjp: ({ x }, dy, { y, attrs }) => ({ x: restore(dy, x, attrs).mul(x.sub(restore(y, x, attrs)).exp()) }),
});

/** The place of the largest element along `axis`, int64.  No gradient. */
export const argMax = defineOp<["x"], { axis: number; keepdims: boolean }>({
  onnx: "ArgMax",
  inputs: ["x"],
  infer: ({ x }, { axis, keepdims }) => ({ ...reduced({ x }, { axes: [axis], keepdims }), dtype: "int64" }),
  form: ({ axis, keepdims }) => ({ attributes: { axis, keepdims: keepdims ? 1 : 0 } }),
  vjp: () => ({ x: null }),
});

/** Running sum along `axis`. */
export const cumSum: Draw<["x"], { axis: number; reverse?: boolean }> = defineOp({
  onnx: "CumSum",
  inputs: ["x"],
  infer: ({ x }, { axis }) => {
    normalAxis(axis, x.rank);
    return { dtype: x.dtype, shape: x.shape };
  },
  form: ({ axis, reverse }) => ({
    attributes: { reverse: reverse ? 1 : 0 },
    constants: [{ dtype: "int64", shape: [], data: dataOf("int64", [axis]) }],
  }),
  vjp: (_, dy, { attrs }) => ({ x: cumSum(dy, { ...attrs, reverse: !attrs.reverse }) }),
});

const topKOp = defineMany<{ k: number; axis: number }>({
  onnx: "TopK",
  inputs: ["x"],
  infer: ([x], { k, axis }) => {
    const size = known(x.shape[normalAxis(axis, x.rank)], "a sorted axis");
    if (!(isCount(k) && k <= size)) throw new ShapeError(`${k} of ${size} elements were asked for`);
    const shape = x.shape.map((d, i) => (i === normalAxis(axis, x.rank) ? k : d));
    return [
      { dtype: x.dtype, shape },
      { dtype: "int64", shape },
    ];
  },
  form: ({ k, axis }) => ({
    attributes: { axis },
    constants: [{ dtype: "int64", shape: [1], data: dataOf("int64", [k]) }],
  }),
  vjp: ([x], [dy], { ys, attrs }) => [dy ? dy.scatterInto(x, ys[1], attrs.axis) : null],
});

/** The k largest along `axis`, in order, and their places (int64). */
export function topK(x: Tensor, k: number, axis = -1): { values: Tensor; indices: Tensor } {
  const [values, indices] = topKOp([x], { k, axis });
  return { values, indices };
}
