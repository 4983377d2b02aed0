import { dtypeName } from "../../graph/onnx/read.ts";
import {
  broadcast,
  type Dim,
  divDim,
  isOpen,
  known,
  mulDim,
  type Shape,
  sameDim,
  showShape,
  sizeOf,
} from "../../graph/shape.ts";
import { constant, scalar, type Tensor } from "../../graph/tensor.ts";
import { cast, where } from "../compare.ts";
import { defineOp } from "../define.ts";
import * as move from "../move.ts";
import { type At, computed, type Importer } from "./at.ts";
import {
  foldConcat,
  foldFill,
  foldGather,
  foldRange,
  foldReshape,
  foldTranspose,
  ifKnown,
  isKnown,
  Known,
  spread,
  type Value,
} from "./known.ts";

/** The same values in another shape, of a tensor or of numbers. */
function reshaped(value: Value, shape: Shape): Value {
  if (!isKnown(value)) return move.reshape(value, shape);
  const free = shape.indexOf(-1);
  const left = free < 0 ? undefined : divDim(value.values.length, sizeOf(shape.with(free, 1)));
  const full = left === undefined ? shape : shape.with(free, left);
  return full.some(isOpen) ? move.reshape(value.constant(), full) : foldReshape(value, full as number[]);
}

/** ONNX's Reshape: 0 keeps an axis, -1 takes what is left. */
const reshape: Importer = (at) => {
  const value = at.value(0);
  const wanted = at.dims(1, "a shape");
  const keeps = at.attr("allowzero", 0) === 0;
  const shape = wanted.map((d, i): Dim => {
    if (d !== 0 || !keeps) return d;
    const kept = value.shape[i];
    if (kept === undefined) throw at.wrong(`keeps axis ${i} of ${showShape(value.shape)}`);
    return kept;
  });
  return reshaped(value, forOtherBatch(at, value.shape, shape));
};

/**
 * A shape that was written for another number of images than came.  Where nothing else takes what there is more of, the first axis
 * does: that is where exporters leave the batch, alone or merged.
 */
function forOtherBatch({ around: { madeFor } }: At, from: Shape, shape: readonly Dim[]): readonly Dim[] {
  if (madeFor === undefined || shape.length === 0) return shape;
  const [first, ...rest] = shape;
  if (isOpen(first) || first < 1 || first % madeFor !== 0) return shape;
  const free = rest.indexOf(-1);
  // [1, -1]: one row an image, so the first axis grows and the free one stays.
  if (free >= 0 && first !== madeFor) return shape;
  const size = sizeOf(from);
  if (free >= 0) {
    const left = divDim(size, from[0]);
    return left === undefined || shape.length !== 2 ? shape : [from[0], left];
  }
  const fixed = rest.reduce<Dim>(mulDim, 1);
  if (sameDim(mulDim(first, fixed), size)) return shape;
  const grown = divDim(size, fixed);
  return grown === undefined ? shape : [grown, ...rest];
}

/** Repeats axes of size 1, open ones too. */
export function expanded(at: At, value: Value, wanted: readonly Dim[]): Value {
  const shape = broadcast(value.shape, wanted);
  if (!shape) throw at.wrong(`cannot repeat ${showShape(value.shape)} to ${showShape(wanted)}`);
  if (isKnown(value)) {
    const folded = shape.some(isOpen) ? undefined : ifKnown(() => spread(value, shape as number[]));
    if (folded) return folded[0];
  }
  const x = at.tensor(value);
  const missing = shape.some((d, i) => isOpen(d) && !sameDim(x.shape[x.rank - shape.length + i] ?? 1, d));
  if (!missing)
    return shape.every((d, i) => sameDim(x.shape[i - shape.length + x.rank] ?? 0, d)) ? x : move.expand(x, { shape });
  return move.expandTo(x, at.tensor(new Known("int64", [shape.length], shape)), { shape });
}

interface Range {
  axis: number;
  start: number;
  end: number;
  step: number;
}

function slice(at: At): Value {
  const value = at.value(0);
  const old = at.opset < 10;
  const starts = old ? at.ints("starts") : at.numbers(1, "starts");
  const ends = old ? at.ints("ends") : at.numbers(2, "ends");
  if (!starts || !ends || starts.length !== ends.length) throw at.wrong("has other numbers of starts and ends");
  const axes = (old ? at.ints("axes") : at.has(3) ? at.numbers(3, "axes") : undefined) ?? starts.map((_, i) => i);
  const steps = !old && at.has(4) ? at.numbers(4, "steps") : starts.map(() => 1);
  if (axes.length !== starts.length || steps.length !== starts.length) throw at.wrong("has other numbers of axes");
  return starts.reduce<Value>((y, from, i) => {
    const axis = at.axis(axes[i], y.shape.length);
    const size = y.shape[axis];
    const step = steps[i];
    if (!Number.isInteger(step) || step === 0) throw at.wrong(`steps by ${step}`);
    if (isOpen(size)) {
      if (from === 0 && step === 1 && ends[i] >= 2 ** 31 - 1) return y;
      throw at.wrong(`cuts the axis ${size}, whose size only a run knows`);
    }
    const place = (p: number): number => (p < 0 ? p + size : p);
    const [low, high] = step > 0 ? [0, size] : [-1, size - 1];
    const limit = (p: number): number => Math.min(Math.max(p, low), high);
    // An end before the first element of a walk backwards is "up to the first".
    const end = step < 0 && ends[i] < -size ? -1 : limit(place(ends[i]));
    return sliced(at, y, { axis, start: limit(place(from)), end, step });
  }, value);
}

function sliced(at: At, value: Value, { axis, start, end, step }: Range): Value {
  const size = known(value.shape[axis]);
  if (start === 0 && end === size && step === 1) return value;
  const count = Math.max(0, Math.ceil((end - start) / step));
  if (isKnown(value)) {
    const places = Array.from({ length: count }, (_, i) => start + i * step);
    const folded = ifKnown(() => foldGather(value, places, [count], axis));
    if (folded) return folded[0];
  }
  if (count === 0) throw at.wrong("leaves nothing, and tensors without elements are not computed with");
  const x = at.tensor(value);
  if (step > 0) return x.slice(axis, start, end, step);
  // Backwards: the same elements from their other end, turned around.
  const first = start + (count - 1) * step;
  return x.slice(axis, first, start + 1, -step).flip(axis);
}

/** Elements of an axis by place. */
const gather: Importer = (at) => {
  const value = at.value(0);
  const axis = at.axis(at.attr("axis", 0), value.shape.length);
  const size = value.shape[axis];
  const indices = at.known(1);
  if (!indices) return move.gather(at.x(0), indexed(at.x(1)), { axis });
  if (isOpen(size)) throw at.wrong(`takes elements of the axis ${size}, whose size only a run knows`);
  const places = at.numbers(1, "places").map((p) => {
    const place = p < 0 ? p + size : p;
    if (!Number.isInteger(place) || place < 0 || place >= size) throw at.wrong(`reads place ${p} of ${size}`);
    return place;
  });
  if (isKnown(value)) {
    const folded = ifKnown(() => foldGather(value, places, indices.shape, axis));
    if (folded) return folded[0];
  }
  const x = at.tensor(value);
  // One place is a slice: its gradient is zeros around it.
  if (places.length === 1) {
    const shape = [...x.shape.slice(0, axis), ...indices.shape, ...x.shape.slice(axis + 1)];
    return move.reshape(x.slice(axis, places[0], places[0] + 1), shape);
  }
  return move.gather(x, new Known("int64", indices.shape, places).constant(), { axis });
};

const indexed = (indices: Tensor): Tensor =>
  indices.dtype === "int32" || indices.dtype === "int64" ? indices : cast(indices, { to: "int64" });

const concat: Importer = (at) => {
  const values = at.inputs.map((_, i) => at.value(i));
  if (values.length === 0) throw at.wrong("joins nothing");
  const axis = at.axis(at.attr("axis", 1), values[0].shape.length);
  if (values.every(isKnown)) {
    const folded = ifKnown(() => foldConcat(values, axis));
    if (folded) return folded;
  }
  // What is empty adds nothing.
  const parts = values.filter((v) => v.shape[axis] !== 0);
  return move.concat(
    (parts.length > 0 ? parts : values.slice(0, 1)).map((v) => at.tensor(v)),
    axis,
  );
};

const split: Importer = (at) => {
  const value = at.value(0);
  const axis = at.axis(at.attr("axis", 0), value.shape.length);
  const size = known(value.shape[axis], "a split axis");
  const parts = at.node.outputs.length;
  const each = Math.ceil(size / parts);
  const sizes =
    at.ints("split") ??
    (at.has(1)
      ? at.numbers(1, "sizes")
      : Array.from({ length: parts }, (_, i) => Math.max(0, Math.min(each, size - i * each))));
  if (sizes.length !== parts || sizes.reduce((a, b) => a + b, 0) !== size || sizes.some((s) => s < 0))
    throw at.wrong(`cuts an axis of ${size} into ${sizes.join(" + ")}`);
  if (isKnown(value)) {
    let start = 0;
    return sizes.map((s) => {
      const part = sliced(at, value, { axis, start, end: start + s, step: 1 });
      start += s;
      return part;
    });
  }
  return move.split(value, axis, sizes);
};

const squeeze: Importer = (at) => {
  const value = at.value(0);
  const rank = value.shape.length;
  const axes = at.axes(1)?.map((a) => at.axis(a, rank));
  const kept = value.shape.filter((d, i) => (axes ? !axes.includes(i) : d !== 1));
  if (axes?.some((a) => value.shape[a] !== 1)) throw at.wrong(`drops axes [${axes}] of ${showShape(value.shape)}`);
  return reshaped(value, kept);
};

const unsqueeze: Importer = (at) => {
  const value = at.value(0);
  const asked = at.axes(1);
  if (!asked || asked.length > 16) throw at.wrong("does not say which axes it adds");
  const rank = value.shape.length + asked.length;
  const axes = new Set(asked.map((a) => at.axis(a, rank)));
  const rest = [...value.shape];
  return reshaped(
    value,
    Array.from({ length: rank }, (_, i) => (axes.has(i) ? 1 : (rest.shift() ?? 1))),
  );
};

function pad(at: At): Value {
  const x = at.x(0);
  const old = at.opset < 11;
  const pads = old ? at.ints("pads") : at.numbers(1, "pads");
  const axes = at.has(3) ? at.numbers(3, "axes").map((a) => at.axis(a, x.rank)) : x.shape.map((_, i) => i);
  if (pads?.length !== 2 * axes.length) throw at.wrong(`pads ${axes.length} axes by ${pads?.length ?? 0} numbers`);
  const mode = at.text("mode", "constant");
  if (mode !== "constant" && mode !== "reflect" && mode !== "edge") throw at.wrong(`pads by ${mode}`);
  const value = old ? at.attr("value", 0) : at.number(2, "a value", 0);
  const ends = (from: number): number[] => x.shape.map((_, i) => (axes.includes(i) ? pads[from + axes.indexOf(i)] : 0));
  const [before, after] = [ends(0), ends(axes.length)];
  if ([...before, ...after].every((p) => p === 0)) return x;
  return move.padAxes(x, { before, after, mode, value });
}

/** Repeats whole axes. */
function tile(at: At): Value {
  const value = at.value(0);
  const times = at.dims(1, "numbers of repetitions");
  if (times.length !== value.shape.length) throw at.wrong(`repeats ${times.length} axes of ${value.shape.length}`);
  if (times.every((t) => t === 1)) return value;
  // Each axis behind one that repeats it: [a, b] becomes [t, a, u, b], then [t a, u b].
  const apart = value.shape.flatMap((d, i): Dim[] => (times[i] === 1 ? [d] : [1, d]));
  const repeated = value.shape.flatMap((d, i): Dim[] => (times[i] === 1 ? [d] : [times[i], d]));
  const joined = value.shape.map((d, i) => mulDim(times[i], d));
  return reshaped(expanded(at, reshaped(value, apart), repeated), joined);
}

/** Channels become pixels, or pixels channels.  [N, C · b², H, W] <-> [N, C, H · b, W · b] */
function depthToSpace(at: At): Value {
  const x = at.x(0);
  const b = at.attr("blocksize", 0);
  if (x.rank !== 4 || !(b >= 1)) throw at.wrong(`wants a map and a block size, it has ${x} and ${b}`);
  const [n, c, h, w] = x.shape;
  const channels = known(c) / (b * b);
  if (at.node.op === "SpaceToDepth") {
    const [rows, columns] = [known(h) / b, known(w) / b];
    return x
      .reshape([n, c, rows, b, columns, b])
      .permute(0, 3, 5, 1, 2, 4)
      .reshape([n, known(c) * b * b, rows, columns]);
  }
  const byColumn = at.text("mode", "DCR") === "CRD";
  const blocks = x.reshape(byColumn ? [n, channels, b, b, h, w] : [n, b, b, channels, h, w]);
  return blocks
    .permute(...(byColumn ? [0, 1, 4, 2, 5, 3] : [0, 3, 4, 1, 5, 2]))
    .reshape([n, channels, known(h) * b, known(w) * b]);
}

/** One triangle of the last two axes; the other becomes zeros. */
function trilu(at: At): Value {
  const x = at.x(0);
  const upper = at.attr("upper", 1) !== 0;
  const k = at.number(1, "a diagonal", 0);
  const [rows, columns] = x.shape.slice(-2).map((d) => known(d, "an axis of a triangle"));
  if (x.rank < 2 || rows * columns > 2 ** 24) throw at.wrong(`has no triangle in ${x}`);
  const keeps = Uint8Array.from({ length: rows * columns }, (_, i) => {
    const over = (i % columns) - Math.floor(i / columns) - k;
    return (upper ? over >= 0 : over <= 0) ? 1 : 0;
  });
  return where(constant(keeps, [rows, columns], "bool"), x, scalar(0, x.dtype));
}

const filled: Importer = (at) => {
  const tensor = at.tensorOf("value");
  const value = tensor ? at.around.read(tensor) : new Known("float32", [], [0]);
  const [number] = isKnown(value) && value.isStatic ? (value.values as number[]) : [];
  if (number === undefined) throw at.wrong("has no number to fill with");
  const shape = at.dims(0, "a shape");
  const folded = ifKnown(() => foldFill(value.dtype, shape, number));
  return folded ?? expanded(at, scalar(number, value.dtype), shape);
};

const literal: Importer = (at) => {
  const { attributes } = at.node;
  const tensor = at.tensorOf("value");
  if (tensor) return at.around.read(tensor);
  for (const [name, dtype] of [
    ["value_float", "float32"],
    ["value_floats", "float32"],
    ["value_int", "int64"],
    ["value_ints", "int64"],
  ] as const) {
    const value = attributes.get(name);
    if (typeof value === "number") return new Known(dtype, [], [value]);
    if (value !== undefined) return new Known(dtype, [at.ints(name)!.length], at.ints(name)!);
  }
  throw at.wrong("holds neither a tensor nor numbers");
};

/** 0, 1, 2, … up to a size that only a run knows. */
const counted = defineOp<["start", "limit", "step"], { shape: Shape }>({
  onnx: "Range",
  inputs: ["start", "limit", "step"],
  infer: ({ start }, { shape }) => ({ dtype: start.dtype, shape }),
  vjp: () => ({ start: null, limit: null, step: null }),
  form: () => ({}),
});

/** Operations that move values, and those that make or know them. */
export const moves: Readonly<Record<string, Importer>> = {
  Constant: literal,
  ConstantOfShape: filled,
  Shape: (at) => {
    const shape = at.shape(0);
    const place = (p: number): number => Math.min(Math.max(p < 0 ? p + shape.length : p, 0), shape.length);
    const part = shape.slice(place(at.attr("start", 0)), place(at.attr("end", shape.length)));
    return new Known("int64", [part.length], part);
  },
  Size: (at) => new Known("int64", [], [sizeOf(at.shape(0))]),
  Range: (at) => {
    const ends = [0, 1, 2].map((i) => at.dims(i, "limits")[0] ?? 0);
    const made = ifKnown(() => foldRange(at.value(0).dtype, ends));
    if (made) return made;
    const [start, limit, step] = ends;
    if (start !== 0 || step !== 1 || !isOpen(limit))
      throw at.wrong(`counts from ${start} to ${limit}, which only a run knows`);
    return counted(at.x(0), at.x(1), at.x(2), { shape: [limit] });
  },
  EyeLike: (at) => {
    const [rows, columns] = at.shape(0).map((d) => known(d, "an axis"));
    const k = at.attr("k", 0);
    if (!(rows * columns <= 2 ** 18)) throw at.wrong(`makes ${rows} × ${columns}`);
    const asked = at.attr("dtype", 0);
    const dtype = asked === 0 ? at.value(0).dtype : dtypeName(asked);
    if (!dtype || dtype === "string") throw at.wrong(`is of type ${asked}, which is not known here`);
    return new Known(
      computed(dtype),
      [rows, columns],
      Array.from({ length: rows * columns }, (_, i) => ((i % columns) - Math.floor(i / columns) === k ? 1 : 0)),
    );
  },
  Reshape: reshape,
  Flatten: (at) => {
    const { shape } = at.value(0);
    const asked = at.attr("axis", 1);
    const axis = asked === shape.length ? asked : at.axis(asked, shape.length);
    return reshaped(at.value(0), [sizeOf(shape.slice(0, axis)), sizeOf(shape.slice(axis))]);
  },
  Squeeze: squeeze,
  Unsqueeze: unsqueeze,
  Transpose: (at) => {
    const value = at.value(0);
    const perm = at.ints("perm") ?? value.shape.map((_, i) => value.shape.length - 1 - i);
    if (isKnown(value) && perm.length === value.shape.length && value.shape.every((_, i) => perm.includes(i))) {
      const folded = ifKnown(() => foldTranspose(value, perm));
      if (folded) return folded;
    }
    return move.permute(at.tensor(value), { perm });
  },
  Expand: (at) => expanded(at, at.value(0), at.dims(1, "a shape")),
  Tile: tile,
  Concat: concat,
  Split: split,
  Slice: slice,
  Pad: pad,
  Gather: gather,
  GatherElements: (at) => {
    const axis = at.axis(at.attr("axis", 0), at.shape(0).length);
    return move.gatherElements(at.x(0), indexed(at.x(1)), { axis });
  },
  GatherND: (at) => {
    const places = at.shape(1);
    if (at.attr("batch_dims", 0) !== 0 || places.at(-1) !== 1) throw at.wrong("gathers along several axes at once");
    const indices = indexed(at.x(1));
    return move.gather(at.x(0), indices.reshape(places.slice(0, -1)), { axis: 0 });
  },
  ScatterElements: (at) => {
    if (at.text("reduction", "none") !== "add") throw at.wrong("overwrites elements, which has no rule here");
    const axis = at.axis(at.attr("axis", 0), at.shape(0).length);
    return move.scatterElementsAdd(at.x(0), indexed(at.x(1)), at.x(2), { axis });
  },
  ScatterND: (at) => {
    if (at.text("reduction", "none") !== "add" || at.shape(1).length !== 2 || at.shape(1)[1] !== 1)
      throw at.wrong("overwrites elements, which has no rule here");
    return move.scatterNdAdd(at.x(0), cast(at.x(1), { to: "int64" }), at.x(2));
  },
  DepthToSpace: depthToSpace,
  SpaceToDepth: depthToSpace,
  Trilu: trilu,
  If: (at) => {
    const chooses = at.known(0);
    if (!chooses?.isStatic) throw at.wrong("chooses by a value that only a run knows");
    return at.around.branch(at.graph(chooses.values[0] !== 0 ? "then_branch" : "else_branch"));
  },
};
