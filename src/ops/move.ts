import { OrielError, ShapeError } from "../base/errors.ts";
import { some } from "../base/text.ts";
import { type Data, dataOf } from "../graph/dtype.ts";
import {
  broadcast,
  type Dim,
  divDim,
  isCount,
  isOpen,
  known,
  normalAxis,
  type Shape,
  sameDim,
  sameShape,
  showShape,
  sizeOf,
} from "../graph/shape.ts";
import { constant, constantData, scalar, type Tensor } from "../graph/tensor.ts";
import { cast, less } from "./compare.ts";
import { type Draw, defineMany, defineOp, explained, sameDtype } from "./define.ts";
import { along } from "./linalg.ts";

// Operations that move values without changing them.

const int64 = (values: readonly number[]) => ({
  dtype: "int64" as const,
  shape: [values.length],
  data: dataOf("int64", values),
});

/** The same values, other axes (ONNX Reshape). */
const reshapeOp = defineOp<["x"], { shape: Shape }>({
  onnx: "Reshape",
  inputs: ["x"],
  infer: ({ x }, { shape }) => {
    if (shape.filter(isOpen).length > 1) throw new ShapeError(`at most one axis may be open, got ${showShape(shape)}`);
    if (shape.some((d) => !isOpen(d) && d < 0)) throw new ShapeError(`${showShape(shape)} is no shape`);
    if (!sameDim(sizeOf(x.shape), sizeOf(shape)))
      throw new ShapeError({
        message: `${showShape(shape)} holds ${sizeOf(shape)} elements, ${sizeOf(x.shape)} came`,
        help: "a reshape keeps every element; -1 stands for what is left",
      });
    return { dtype: x.dtype, shape };
  },
  vjp: ({ x }, dy) => ({ x: dy.reshape(x.shape) }),
  // A batch of one is open too once the graph is bound, so the leading axis stays free wherever that is possible.  By itself ONNX
  // takes a 0 as the size that the axis had.
  form: ({ shape }) => ({
    ...(shape.includes(0) ? { attributes: { allowzero: 1 } } : {}),
    constants: [int64(shape.map((d) => (isOpen(d) ? -1 : d)))],
  }),
});

/** The same values, other axes; one may be -1: what is left. */
export function reshape(x: Tensor, shape: Shape): Tensor {
  const free = shape.indexOf(-1);
  if (free < 0) return reshapeOp(x, { shape });
  const left = divDim(sizeOf(x.shape), sizeOf(shape.with(free, 1)));
  // Where it does not divide, the op says so.
  return reshapeOp(x, { shape: left === undefined ? shape : shape.with(free, left) });
}

/** Axes in another order (ONNX Transpose). */
export const permute = defineOp<["x"], { perm: readonly number[] }>({
  onnx: "Transpose",
  inputs: ["x"],
  infer: ({ x }, { perm }) => {
    if (perm.length !== x.rank || x.shape.some((_, axis) => !perm.includes(axis)))
      throw new ShapeError(`the order (${perm.join(", ")}) does not name every axis once`);
    return { dtype: x.dtype, shape: perm.map((p) => x.shape[p]) };
  },
  vjp: (_, dy, { attrs: { perm } }) => ({ x: dy.permute(...perm.map((_, i) => perm.indexOf(i))) }),
});

/** Repeats axes of size 1 (ONNX Expand). */
export const expand = defineOp<["x"], { shape: Shape }>({
  onnx: "Expand",
  inputs: ["x"],
  infer: ({ x }, { shape }) => {
    const full = broadcast(x.shape, shape);
    if (!full || !sameShape(full, shape)) throw new ShapeError(`it does not broadcast to ${showShape(shape)}`);
    return { dtype: x.dtype, shape };
  },
  vjp: (_, dy) => ({ x: dy }),
  // Expand keeps the larger size of each axis, so an open axis that is there already is asked for as 1.
  form: ({ shape }) => ({ constants: [int64(shape.map((d) => (isOpen(d) ? 1 : d)))] }),
});

/** The sizes of some axes as int64, for what must know the batch while running.  No gradient. */
export const shapeOf = defineOp<["x"], { start: number; end: number }>({
  onnx: "Shape",
  inputs: ["x"],
  infer: (_, { start, end }) => ({ dtype: "int64", shape: [end - start] }),
  vjp: () => ({ x: null }),
});

/** Repeats axes of size 1 as `sizes` asks, int64: for what is open while drawing. */
export const expandTo = defineOp<["x", "sizes"], { shape: Shape }>({
  onnx: "Expand",
  inputs: ["x", "sizes"],
  infer: ({ x }, { shape }) => ({ dtype: x.dtype, shape }),
  vjp: (_, dy) => ({ x: dy, sizes: null }),
  form: () => ({}),
});

/** `x` with its leading axis of size 1 repeated as often as `like` is long: a class token for each image.  [1, ...S] -> [N, ...S] */
export function expandBatch(x: Tensor, like: Tensor): Tensor {
  const size = like.shape[0];
  explained("expandBatch", [x, like], ["x", "like"], () => {
    if (x.shape[0] !== 1 || size === undefined)
      throw new ShapeError("what is repeated is [1, ...S], for each of [N, ...]");
  });
  if (!isOpen(size)) return expand(x, { shape: [size, ...x.shape.slice(1)] });
  // Expand aligns shapes at their ends: with the batch last, its size alone is the whole target.
  const flat = x.reshape([sizeOf(x.shape), 1]);
  return expandTo(flat, shapeOf(like, { start: 0, end: 1 }), { shape: [flat.shape[0], size] })
    .permute(1, 0)
    .reshape([size, ...x.shape.slice(1)]);
}

interface SliceAttrs {
  starts: readonly number[];
  ends: readonly number[];
  axes: readonly number[];
  steps: readonly number[];
}

/** Every `step`-th element of a range along some axes (ONNX Slice); starts and ends count from the front, steps are positive. */
export const sliceAxes = defineOp<["x"], SliceAttrs>({
  onnx: "Slice",
  inputs: ["x"],
  infer: ({ x }, { starts, ends, axes, steps }) => {
    const shape = [...x.shape];
    axes.forEach((axis, i) => {
      const size = known(x.shape[axis], "a sliced axis");
      if (![starts[i], ends[i]].every(Number.isInteger) || starts[i] < 0 || ends[i] > size || starts[i] >= ends[i])
        throw new ShapeError(`${starts[i]} to ${ends[i]} is no range of axis ${axis}, which has ${size}`);
      if (!isCount(steps[i]))
        throw new ShapeError({
          message: `a step of ${steps[i]} leads nowhere`,
          help: "a step is 1 or more; flip what is to be read backwards",
        });
      shape[axis] = Math.ceil((ends[i] - starts[i]) / steps[i]);
    });
    return { dtype: x.dtype, shape };
  },
  // The gradient goes back to its place among zeros.
  vjp: ({ x }, dy, { attrs: { starts, axes, steps } }) => ({
    x: axes.reduce((d, axis, i) => placeAlong(d, axis, known(x.shape[axis]), starts[i], steps[i]), dy),
  }),
  form: ({ starts, ends, axes, steps }) => ({ constants: [int64(starts), int64(ends), int64(axes), int64(steps)] }),
});

/** Zeros along an axis of `size`, with x's elements at start, start + step, …: what undoes a slice. */
export function placeAlong(x: Tensor, axis: number, size: number, start: number, step: number): Tensor {
  const apart = spread(x, axis, step);
  const length = known(apart.shape[axis]);
  const after = size - start - length;
  // The zeros that follow the last element may reach past the end.
  return apart.slice(axis, 0, length + Math.min(0, after)).pad(axis, start, Math.max(0, after));
}

/** Puts `step - 1` zeros after each element of `axis`. */
export function spread(x: Tensor, axis: number, step: number): Tensor {
  if (step === 1) return x;
  const split = x.reshape([...x.shape.slice(0, axis + 1), 1, ...x.shape.slice(axis + 1)]).pad(axis + 1, 0, step - 1);
  return split.reshape([...x.shape.slice(0, axis), known(x.shape[axis]) * step, ...x.shape.slice(axis + 1)]);
}

export interface PadAttrs {
  before: readonly number[];
  after: readonly number[];
  mode?: "constant" | "reflect" | "edge";
  value?: number;
}

/** Grows axes at both ends (ONNX Pad); `before` and `after` have a number for each axis. */
export const padAxes = defineOp<["x"], PadAttrs>({
  onnx: "Pad",
  inputs: ["x"],
  infer: ({ x }, { before, after, mode = "constant" }) => {
    for (const list of [before, after])
      if (list.length !== x.rank || !list.every(Number.isInteger))
        throw new ShapeError(
          `${x.rank} whole numbers are needed at each end, one for each axis; (${list.join(", ")}) came`,
        );
    if (mode !== "constant" && [...before, ...after].some((p) => p < 0))
      throw new ShapeError({ message: `padding by ${mode} does not cut`, help: "slice it" });
    const shape = x.shape.map((d, i) => {
      if (before[i] === 0 && after[i] === 0) return d;
      const size = known(d, "a padded axis");
      if (mode === "reflect" && Math.max(before[i], after[i]) >= size)
        throw new ShapeError(`${Math.max(before[i], after[i])} elements cannot be reflected out of ${size}`);
      const cut = Math.max(0, -before[i]) + Math.max(0, -after[i]);
      if (cut >= size) throw new ShapeError(`${cut} elements cannot be cut off axis ${i}, which has ${size}`);
      return size + before[i] + after[i];
    });
    return { dtype: x.dtype, shape };
  },
  vjp: ({ x }, dy, { attrs: { before, after, mode = "constant" } }) => {
    const axes = before.flatMap((b, i) => (b !== 0 || after[i] !== 0 ? [i] : []));
    if (mode !== "constant")
      return { x: axes.reduce((d, axis) => foldBack(d, axis, before[axis], known(x.shape[axis]), mode), dy) };
    // Cut where it grew, and grown with zeros where it was cut.
    const grown = axes.filter((i) => before[i] > 0 || after[i] > 0);
    const starts = grown.map((i) => Math.max(0, before[i]));
    const ends = grown.map((i) => known(dy.shape[i]) - Math.max(0, after[i]));
    const steps = grown.map(() => 1);
    const cut = grown.length > 0 ? sliceAxes(dy, { starts, ends, axes: grown, steps }) : dy;
    return { x: axes.reduce((d, i) => d.pad(i, Math.max(0, -before[i]), Math.max(0, -after[i])), cut) };
  },
  form: ({ before, after, mode = "constant", value = 0 }, node) => ({
    attributes: { mode },
    constants: [
      int64([...before, ...after]),
      { dtype: node.inputs[0]!.dtype, shape: [], data: dataOf(node.inputs[0]!.dtype, [value]) },
    ],
  }),
});

/** Adds what reflection or edge padding took from an axis back to where it came from: a product with a 0/1 matrix. */
function foldBack(dy: Tensor, axis: number, before: number, size: number, mode: "reflect" | "edge"): Tensor {
  const padded = known(dy.shape[axis]);
  const values = new Float64Array(padded * size);
  for (let i = 0; i < padded; i++) {
    const from = i - before;
    const reflected = from < 0 ? -from : from >= size ? 2 * (size - 1) - from : from;
    values[i * size + (mode === "edge" ? Math.min(Math.max(from, 0), size - 1) : reflected)] = 1;
  }
  return along(dy, axis, constant(dataOf(dy.dtype, values), [padded, size], dy.dtype).mT);
}

const concatOp = defineMany<{ axis: number }>({
  onnx: "Concat",
  inputs: "variadic",
  infer: (xs, { axis }) => {
    const [first] = xs;
    for (const x of xs)
      if (
        x.dtype !== first.dtype ||
        x.rank !== first.rank ||
        x.shape.some((d, i) => i !== axis && !sameDim(d, first.shape[i]))
      )
        throw new ShapeError(`all must agree but in axis ${axis}`);
    const sizes = xs.map((x) => x.shape[axis]);
    const size = sizes.length === 1 ? sizes[0] : sizes.reduce<number>((sum, d) => sum + known(d, "a joined axis"), 0);
    return [{ dtype: first.dtype, shape: first.shape.map((d, i) => (i === axis ? size : d)) }];
  },
  vjp: (xs, [dy], { attrs: { axis } }) =>
    split(
      dy!,
      axis,
      xs.map((x) => known(x.shape[axis])),
    ),
});

/** Joins tensors along an axis. */
export const concat = (xs: readonly Tensor[], axis: number): Tensor =>
  explained("Concat", xs, "variadic", () => {
    if (xs.length === 0) throw new ShapeError("there is nothing to join");
    const a = normalAxis(axis, xs[0].rank);
    return xs.length === 1 ? xs[0] : concatOp(xs, { axis: a })[0];
  });

/** Puts tensors of one shape side by side along a new axis. */
export const stack = (xs: readonly Tensor[], axis: number): Tensor =>
  concat(
    xs.map((x) => x.unsqueeze(axis)),
    axis,
  );

const splitOp = defineMany<{ axis: number; sizes: readonly number[] }>({
  onnx: "Split",
  inputs: ["x"],
  infer: ([x], { axis, sizes }) => {
    const size = known(x.shape[axis], "a split axis");
    if (!sizes.every(isCount) || sizes.reduce((a, b) => a + b, 0) !== size)
      throw new ShapeError(`parts of ${sizes.join(" + ")} do not make ${size}`);
    return sizes.map((part) => ({ dtype: x.dtype, shape: x.shape.map((d, i) => (i === axis ? part : d)) }));
  },
  vjp: (_, dys, { ys, attrs: { axis } }) => [
    concat(
      dys.map((dy, i) => dy ?? zerosLike(ys[i])),
      axis,
    ),
  ],
  form: ({ axis, sizes }) => ({ attributes: { axis }, constants: [int64(sizes)] }),
});

/** Zeros of the shape and dtype of `like`. */
export const zerosLike = (like: Tensor): Tensor => expandLike(scalar(0, like.dtype), like);

/** `x` repeated to the shape of `like`, an open axis included. */
export function expandLike(x: Tensor, like: Tensor): Tensor {
  const shape = like.shape;
  const missing = shape.some((d, i) => isOpen(d) && !sameDim(x.shape[x.rank - shape.length + i] ?? 1, d));
  return missing ? expandTo(x, shapeOf(like, { start: 0, end: like.rank }), { shape }) : expand(x, { shape });
}

/** Cuts an axis into parts of the given sizes, or into `parts` equal ones. */
export const split = (x: Tensor, axis: number, parts: readonly number[] | number): Tensor[] =>
  explained("Split", [x], ["x"], () => {
    const a = normalAxis(axis, x.rank);
    const size = known(x.shape[a], "a split axis");
    if (typeof parts === "number" && size % parts !== 0) throw new ShapeError(`${size} does not divide by ${parts}`);
    const sizes = typeof parts === "number" ? Array.from({ length: parts }, () => size / parts) : parts;
    return sizes.length === 1 && sizes[0] === size ? [x] : [...splitOp([x], { axis: a, sizes })];
  });

/** Rolls an axis: the last `shift` elements come to the front. */
export const roll = (x: Tensor, shift: number, axis: number): Tensor =>
  explained("roll", [x], ["x"], () => {
    const a = normalAxis(axis, x.rank);
    const size = known(x.shape[a], "a rolled axis");
    const by = ((shift % size) + size) % size;
    return by === 0 ? x : concat([x.slice(a, size - by, size), x.slice(a, 0, size - by)], a);
  });

function checkIndices(indices: Tensor): void {
  if (indices.dtype !== "int32" && indices.dtype !== "int64")
    throw new ShapeError({ message: "the indices must be int32 or int64", help: "cast them" });
}

const exceeds = (d: Dim, size: Dim): boolean => !isOpen(d) && !isOpen(size) && d > size;

/** What is read or written by one index for each element. */
function checkElements(x: Tensor, indices: Tensor, { axis }: { axis: number }, updates?: Tensor): void {
  checkIndices(indices);
  sameDtype(x, updates);
  if (x.rank !== indices.rank) throw new ShapeError(`x has ${x.rank} axes, the indices ${indices.rank}`);
  const a = normalAxis(axis, x.rank);
  if (indices.shape.some((d, i) => i !== a && exceeds(d, x.shape[i])))
    throw new ShapeError(
      `indices ${showShape(indices.shape)} reach beyond ${showShape(x.shape)} in other axes than ${a}`,
    );
  if (updates && !sameShape(updates.shape, indices.shape))
    throw new ShapeError(`updates are ${showShape(updates.shape)}, the indices ${showShape(indices.shape)}`);
}

/** Elements of `axis` by place (ONNX Gather).  x: [A, S, B], indices int32 or int64 [...I] -> [A, ...I, B] */
export const gather: Draw<["x", "indices"], { axis: number }> = defineOp({
  onnx: "Gather",
  inputs: ["x", "indices"],
  infer: ({ x, indices }, { axis }) => {
    const a = normalAxis(axis, x.rank);
    checkIndices(indices);
    return { dtype: x.dtype, shape: [...x.shape.slice(0, a), ...indices.shape, ...x.shape.slice(a + 1)] };
  },
  vjp: ({ x, indices }, dy, { attrs }) => {
    const axis = normalAxis(attrs.axis, x.rank);
    const count = sizeOf(indices.shape);
    // Gathered rows in front, added to their places.
    const flat = indices.rank === 1 ? dy : dy.reshape([...x.shape.slice(0, axis), count, ...x.shape.slice(axis + 1)]);
    const front = flat.swapAxes(0, axis); // [I, ..., A, ...]
    const added = sumByPlace(front, indices, x.shape[axis]) ?? addAtPlaces(front, indices, x, axis);
    return { x: added.swapAxes(0, axis), indices: null };
  },
});

/**
 * Sums the rows that have the same place, which are known beforehand, in an order that never changes: each place gathers its own rows.
 * Undefined where places are not known, or some have so many more rows than others that most of the gathering would be zeros.
 * rows: [K, ...R], indices: K places -> [places, ...R]
 */
function sumByPlace(rows: Tensor, indices: Tensor, places: Dim): Tensor | undefined {
  const data = constantData(indices);
  if (!data || isOpen(places) || isOpen(rows.shape[0])) return undefined;
  const count = rows.shape[0];
  const own: number[][] = Array.from({ length: places }, () => []);
  data.forEach((place: number | bigint, row: number) => {
    own[(Number(place) + places) % places].push(row);
  });
  const most = own.reduce((n, list) => Math.max(n, list.length), 0);
  if (most * places > 16 * (count + places)) return undefined;
  const order = Int32Array.from(own.flatMap((list) => [...list, ...new Array(most - list.length).fill(count)]));
  const padded = order.includes(count) ? rows.pad(0, 0, 1) : rows; // row `count` is zeros
  const sorted = gather(padded, constant(order, [order.length], "int32"), { axis: 0 });
  return sorted.reshape([places, most, ...rows.shape.slice(1)]).sum([1], false);
}

/**
 * Adds rows at places that are not known beforehand.  The engine's ScatterND adds rows of one place on several threads and may lose one,
 * so it is left for shapes that its other operator cannot be given.
 */
function addAtPlaces(rows: Tensor, indices: Tensor, x: Tensor, axis: number): Tensor {
  const shape = [x.shape[axis], ...rows.shape.slice(1)];
  if (x.shape.some(isOpen) || shape.some(isOpen) || rows.shape.some(isOpen)) {
    const zeros = x.shape.some(isOpen) ? zerosLike(x).swapAxes(0, axis) : expand(scalar(0, x.dtype), { shape });
    return scatterNdAdd(zeros, wide(indices, [sizeOf(indices.shape), 1]), rows);
  }
  const column = indices.reshape([rows.shape[0], ...rows.shape.slice(1).map(() => 1)]);
  return scatterElementsAdd(expand(scalar(0, x.dtype), { shape }), expand(column, { shape: rows.shape }), rows, {
    axis: 0,
  });
}

/** Indices as int64, the only type that ScatterND takes. */
function wide(indices: Tensor, shape: Shape): Tensor {
  const data = constantData(indices);
  if (data) return constant(dataOf("int64", Array.from(data as Int32Array, Number)), shape as number[], "int64");
  // Reshaped before they are widened: WebGPU reshapes no int64.
  return cast(indices.reshape(shape), { to: "int64" });
}

/** x with updates added at places (ONNX ScatterND, reduction "add").  x: [S, ...R], indices [K, 1], updates [K, ...R] */
export const scatterNdAdd: Draw<["x", "indices", "updates"]> = defineOp({
  onnx: "ScatterND",
  inputs: ["x", "indices", "updates"],
  infer: ({ x, indices, updates }) => {
    sameDtype(x, updates);
    if (indices.dtype !== "int64") throw new ShapeError({ message: "the indices must be int64", help: "cast them" });
    if (!sameShape(indices.shape, [updates.shape[0], 1]) || !sameShape(updates.shape.slice(1), x.shape.slice(1)))
      throw new ShapeError({
        message: `rows ${showShape(updates.shape)} at ${showShape(indices.shape)} do not go into ${showShape(x.shape)}`,
        help: "it adds updates [K, ...R] at places [K, 1] to x [S, ...R]",
      });
    return { dtype: x.dtype, shape: x.shape };
  },
  vjp: ({ indices, updates }, dy) => ({
    x: dy,
    indices: null,
    updates: gather(dy, indices.reshape([updates.shape[0]]), { axis: 0 }),
  }),
  form: () => ({ attributes: { reduction: "add" } }),
});

/** One element of `axis` for each index (ONNX GatherElements).  x and indices have the same rank; the result has indices' shape. */
export const gatherElements = defineOp<["x", "indices"], { axis: number }>({
  onnx: "GatherElements",
  inputs: ["x", "indices"],
  infer: ({ x, indices }, attrs) => {
    checkElements(x, indices, attrs);
    return { dtype: x.dtype, shape: indices.shape };
  },
  vjp: ({ x, indices }, dy, { attrs }) => ({ x: dy.scatterInto(x, indices, attrs.axis), indices: null }),
});

/** x with updates added along `axis` (ONNX ScatterElements, reduction "add"). */
export const scatterElementsAdd = defineOp<["x", "indices", "updates"], { axis: number }>({
  onnx: "ScatterElements",
  inputs: ["x", "indices", "updates"],
  infer: ({ x, indices, updates }, attrs) => {
    checkElements(x, indices, attrs, updates);
    return { dtype: x.dtype, shape: x.shape };
  },
  vjp: ({ indices }, dy, { attrs }) => ({ x: dy, indices: null, updates: gatherElements(dy, indices, attrs) }),
  form: ({ axis }) => ({ attributes: { axis, reduction: "add" } }),
});

/** Elements of `axis` in another order, each once: a gather whose gradient is a gather.  `order` is a permutation. */
export const permuteAlong = (x: Tensor, order: ArrayLike<number>, axis: number): Tensor =>
  explained("Gather", [x], ["x"], () => {
    const indices = Int32Array.from(order);
    return permutation(x, { axis: normalAxis(axis, x.rank), order: indices, inverse: inverseOrder(indices) });
  });

/** The order that undoes one: `permuteAlong` by both leaves a tensor as it was. */
export function inverseOrder(order: Int32Array): Int32Array {
  const out = new Int32Array(order.length).fill(-1);
  for (let to = 0; to < order.length; to++) out[order[to]] = to;
  if (out.includes(-1))
    throw new ShapeError({
      message: `the order of ${order.length} does not name every place once`,
      help: "gather takes places more than once",
    });
  return out;
}

const permutation: Draw<["x"], { axis: number; order: Int32Array; inverse: Int32Array }> = defineOp({
  onnx: "Gather",
  inputs: ["x"],
  infer: ({ x }, { axis, order }) => {
    if (x.shape[axis] !== order.length)
      throw new ShapeError(`an order of ${order.length} for an axis of ${x.shape[axis]}`);
    return { dtype: x.dtype, shape: x.shape };
  },
  vjp: (_, dy, { attrs: { axis, order, inverse } }) => ({
    x: permutation(dy, { axis, order: inverse, inverse: order }),
  }),
  form: ({ axis, order }) => ({
    attributes: { axis },
    constants: [{ dtype: "int32", shape: [order.length], data: order as Data }],
  }),
});

/** The same values; no gradient passes.  Vanishes when the graph is written. */
export const stopGradient = defineOp({
  onnx: "Identity",
  inputs: ["x"],
  infer: ({ x }) => ({ dtype: x.dtype, shape: x.shape }),
  vjp: () => ({ x: null }),
});

type GradientRule = (dy: Tensor, ...xs: Tensor[]) => readonly (Tensor | null)[];

const withRule = defineMany<{ rule: GradientRule }>({
  onnx: "Identity",
  inputs: "variadic",
  infer: ([y]) => [{ dtype: y.dtype, shape: y.shape }],
  // The rule reads the inputs of the node, which a pass may have replaced since it was drawn.
  vjp: ([, ...xs], [dy], { attrs: { rule } }) => [null, ...answerOf(rule, dy!, xs)],
  form: () => ({}),
});

/** What a rule answers: without this, a tensor that it forgets would never learn. */
function answerOf(rule: GradientRule, dy: Tensor, xs: Tensor[]): readonly (Tensor | null)[] {
  const dxs: unknown = rule(dy, ...xs);
  if (Array.isArray(dxs) && dxs.length === xs.length) return dxs;
  throw new OrielError("autodiff", {
    message: `a rule given to withGradient answers with ${Array.isArray(dxs) ? some(dxs.length, "gradient") : "no list"} for ${some(xs.length, "tensor")}`,
    help: "let it return a list with one gradient for each, null where none passes",
  });
}

/**
 * `draw(...xs)` with a gradient rule of its own: straight-through estimators, surrogate gradients.  `rule` maps the gradient of
 * the result to those of `xs`, in order, null where none passes.
 */
export function withGradient(draw: (...xs: Tensor[]) => Tensor, rule: GradientRule): (...xs: Tensor[]) => Tensor {
  return (...xs) => withRule([draw(...xs), ...xs], { rule })[0];
}

/**
 * `x` as it is, but not before `gate` is there, and never taken for `x` by a program that merges what is equal: a product with a 1
 * that is made from the gate, also where the gate is not finite.  x: [...S] of numbers, gate: float32, not empty
 */
export function waitFor(x: Tensor, gate: Tensor): Tensor {
  const first = gate.reshape([-1]).slice(0, 0, 1);
  const one = scalar(1).sub(cast(less(first, first), { to: "float32" })); // no number is less than itself
  return x.mul(cast(one.reshape(x.rank === 0 ? [] : [1]), { to: x.dtype }));
}
