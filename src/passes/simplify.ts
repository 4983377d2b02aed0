import { type Data, dataOf, floatsOf, isFloat } from "../graph/dtype.ts";
import { Graph, redraw, rewrite } from "../graph/graph.ts";
import { broadcast, isOpen, OpenDim, sameShape, staticSize } from "../graph/shape.ts";
import { Body, constant, constantData, constantOp, leaf, type Node, type Op, type Tensor } from "../graph/tensor.ts";
import { add, neg, sub } from "../ops/elementwise.ts";
import { expand, type PadAttrs, padAxes, permute, permuteAlong, sliceAxes } from "../ops/move.ts";
import { type Floats, floatsIn, folded } from "./fold.ts";

/**
 * The same graph with fewer nodes: what changes nothing is dropped, what undoes or repeats itself is merged, what was drawn twice is
 * drawn once.  Every rule gives the same numbers, up to the sign of a zero, and the same gradients, so it may run before or after
 * differentiation, and after `recompute`, whose repetitions it leaves.
 */
export function simplify(graph: Graph): Graph {
  const seen = new Map<string, readonly Tensor[]>();
  const outputs = rewrite(graph.outputs, (_node, _inputs, asItIs) => {
    let made = asItIs();
    // What a rule gives may be what another rule shortens.
    for (let next = shorten(made); next; next = shorten(made)) made = next;
    return unique(made, seen);
  });
  return new Graph(graph.inputs, outputs);
}

/** What the first rule that fits gives in the place of a node's only output. */
function shorten([y, ...others]: readonly Tensor[]): readonly Tensor[] | undefined {
  if (others.length > 0) return undefined;
  for (const rule of rules[y.node.op.name] ?? []) {
    const z = rule(y, ...(y.node.inputs as readonly Tensor[]));
    if (z && z !== y) return [z];
  }
  return undefined;
}

/** What stands for a result, given what its node reads; undefined where the rule does not fit. */
type Rule = (y: Tensor, ...inputs: Tensor[]) => Tensor | undefined;

/** The node that made `x`, where it is one of that ONNX operator. */
const by = (x: Tensor, name: string): Node | undefined => (x.node.op.name === name ? x.node : undefined);
const source = (x: Tensor, name: string): Tensor | undefined => by(x, name)?.inputs[0];
const is = (x: Tensor, value: number): boolean => {
  const data = constantData(x);
  if (data?.length !== 1) return false;
  // Half precision lies there as bits.
  const isHalf = x.dtype === "float16" || x.dtype === "bfloat16";
  return Number((isHalf ? floatsOf(x.dtype, data) : data)[0]) === value;
};
/** `x` where it has the shape of `y` already. */
const whole = (x: Tensor, y: Tensor): Tensor | undefined => (sameShape(x.shape, y.shape) ? x : undefined);

const same: Rule = (y, x) => whole(x, y);
/** Arithmetic repeats axes by itself. */
const unexpanded: Rule = (y, a, b) => {
  for (const [p, q] of [
    [source(a, "Expand"), b],
    [a, source(b, "Expand")],
  ]) {
    const shape = p && q && broadcast(p.shape, q.shape);
    if (shape && sameShape(shape, y.shape)) return redraw(y.node, [p, q])[0];
  }
  return undefined;
};
/** Numbers up to which constants are computed here: the engine folds larger ones when it loads the graph, on the device that will run it. */
const FEW = 4096;

/** The values of a small constant of floats. */
function fewFloats(x: Tensor): Floats | undefined {
  const values = floatsIn(x);
  return values && values.length <= FEW ? values : undefined;
}
/** + - × ÷ of constants, which round alike everywhere. */
const ofConstants: Rule = (y, ...inputs) =>
  inputs.every(fewFloats) && staticSize(y.shape) <= FEW ? folded(y.node)?.[0] : undefined;
/** A sum over axes of size 1 is what it sums. */
const overOne: Rule = (y, x) =>
  y.node.attrs.axes.every((axis: number) => x.shape.at(axis) === 1) && y.shape.filter(isOpen).length <= 1
    ? x.reshape(y.shape)
    : undefined;

/** Rows around columns: one padding where both add the same value. */
function padOfPad(x: Tensor, inner: PadAttrs, outer: PadAttrs): Tensor | undefined {
  const plain = ({ mode = "constant", before, after }: PadAttrs): boolean =>
    mode === "constant" && [...before, ...after].every((p) => p >= 0);
  if (!plain(inner) || !plain(outer) || (inner.value ?? 0) !== (outer.value ?? 0)) return undefined;
  const sum = (a: readonly number[], b: readonly number[]): number[] => a.map((p, i) => p + b[i]);
  return padAxes(x, { ...inner, before: sum(inner.before, outer.before), after: sum(inner.after, outer.after) });
}

const rules: Readonly<Record<string, readonly Rule[]>> = {
  Add: [
    ofConstants,
    unexpanded,
    (y, a, b) => (is(b, 0) ? whole(a, y) : is(a, 0) ? whole(b, y) : undefined),
    (_, a, b) => (by(b, "Neg") ? sub(a, source(b, "Neg")!) : by(a, "Neg") ? sub(b, source(a, "Neg")!) : undefined),
  ],
  Sub: [
    ofConstants,
    unexpanded,
    (y, a, b) => (is(b, 0) ? whole(a, y) : undefined),
    (_, a, b) => (by(b, "Neg") ? add(a, source(b, "Neg")!) : undefined),
  ],
  Mul: [
    ofConstants,
    unexpanded,
    (y, a, b) => (is(b, 1) ? whole(a, y) : is(a, 1) ? whole(b, y) : undefined),
    (y, a, b) => (is(b, -1) && whole(a, y) ? neg(a) : undefined),
  ],
  Div: [ofConstants, unexpanded, (y, a, b) => (is(b, 1) ? whole(a, y) : undefined)],
  Neg: [ofConstants, (_, x) => source(x, "Neg")],
  Cast: [
    (y, x) => {
      const values = isFloat(y.dtype) ? fewFloats(x) : undefined;
      return values && constant(dataOf(y.dtype, values), x.shape as number[], y.dtype);
    },
  ],
  Reshape: [
    same,
    (y, x) => source(x, "Reshape")?.reshape(y.shape),
    (y, x) => {
      const data = constantData(x);
      return data && constant(data, y.shape as number[], x.dtype);
    },
  ],
  Transpose: [
    (y, x) => (y.node.attrs.perm.every((p: number, i: number) => p === i) ? x : undefined),
    (y, x) => {
      const inner = by(x, "Transpose");
      return inner && permute(inner.inputs[0]!, { perm: y.node.attrs.perm.map((p: number) => inner.attrs.perm[p]) });
    },
    // Where only axes of size 1 move, no value does.  A reshape has room for one open axis.
    (y, x) => {
      if (y.shape.filter(isOpen).length > 1) return undefined;
      const moved = y.node.attrs.perm.filter((p: number) => x.shape[p] !== 1);
      return moved.every((p: number, i: number) => i === 0 || moved[i - 1] < p) ? x.reshape(y.shape) : undefined;
    },
  ],
  Expand: [
    same,
    (y, x) => {
      const inner = source(x, "Expand");
      return inner && y.node.inputs.length === 1 && by(x, "Expand")!.inputs.length === 1
        ? expand(inner, { shape: y.shape })
        : undefined;
    },
  ],
  Slice: [
    same,
    (y, x) => {
      const inner = by(x, "Slice");
      return inner && sliceAxes(inner.inputs[0]!, sliceOfSlice(inner.attrs, y.node.attrs));
    },
  ],
  Pad: [
    (y, x) => {
      const inner = by(x, "Pad");
      return inner && padOfPad(inner.inputs[0]!, inner.attrs as PadAttrs, y.node.attrs as PadAttrs);
    },
  ],
  Gather: [
    (y, x) => {
      const { order, axis } = y.node.attrs as { order?: Int32Array; axis: number };
      if (!order) return undefined;
      if (order.every((place, i) => place === i)) return x;
      const inner = by(x, "Gather");
      if (!inner?.attrs.order || inner.attrs.axis !== axis) return undefined;
      return permuteAlong(
        inner.inputs[0]!,
        order.map((place) => inner.attrs.order[place]),
        axis,
      );
    },
  ],
  ReduceSum: [overOne],
  ReduceMean: [overOne],
  ReduceMax: [overOne],
  ReduceMin: [overOne],
};

interface Ranges {
  starts: readonly number[];
  ends: readonly number[];
  axes: readonly number[];
  steps: readonly number[];
}

/** One slice that reads what `outer` reads of `inner`. */
function sliceOfSlice(inner: Ranges, outer: Ranges): Ranges {
  const ranges = new Map(inner.axes.map((axis, i) => [axis, [inner.starts[i], inner.ends[i], inner.steps[i]]]));
  outer.axes.forEach((axis, i) => {
    const [start, , step] = ranges.get(axis) ?? [0, 0, 1];
    const count = Math.ceil((outer.ends[i] - outer.starts[i]) / outer.steps[i]);
    const first = start + outer.starts[i] * step;
    const stride = outer.steps[i] * step;
    ranges.set(axis, [first, first + (count - 1) * stride + 1, stride]);
  });
  const all = [...ranges].map(([axis, [start, end, step]]) => ({ axis, start, end, step }));
  return {
    starts: all.map((r) => r.start),
    ends: all.map((r) => r.end),
    axes: all.map((r) => r.axis),
    steps: all.map((r) => r.step),
  };
}

/** The outputs that were first seen of the same op on the same inputs. */
function unique(made: readonly Tensor[], seen: Map<string, readonly Tensor[]>): readonly Tensor[] {
  const { node } = made[0];
  if (node.op === leaf || node.outputs.length !== made.length) return made;
  const key = keyOf(node);
  if (key === undefined) return made;
  const first = seen.get(key);
  if (!first) seen.set(key, made);
  return first ?? made;
}

const opNumbers = new Map<Op, number>();
const numberOf = (op: Op): number => {
  const known = opNumbers.get(op) ?? opNumbers.size;
  opNumbers.set(op, known);
  return known;
};

/** Equal for nodes that compute the same; undefined where that cannot be told. */
function keyOf({ op, inputs, attrs, outputs }: Node): string | undefined {
  if (op === constantOp) {
    const data = attrs.data as Data;
    const [{ dtype, shape }] = outputs;
    // Larger ones are weights, and merged by their bytes when the graph is written.
    return data.length <= FEW ? `${dtype} [${shape}] ${listed(data)}` : undefined;
  }
  let opaque = false;
  const told = JSON.stringify(attrs, (_, value) => {
    if (typeof value === "function" || value instanceof Body) {
      opaque = true;
      return undefined;
    }
    // JSON has no infinities.
    if (value instanceof OpenDim || (typeof value === "number" && !Number.isFinite(value))) return String(value);
    return ArrayBuffer.isView(value) ? listed(value as Data) : value;
  });
  if (opaque) return undefined;
  return `${numberOf(op)} ${inputs.map((x) => (x ? `${x.node.id}.${x.index}` : "-"))} ${told}`;
}

const listed = (data: Data): string =>
  Array.from(data as Iterable<number | bigint>, (v) => (Object.is(v, -0) ? "-0" : String(v))).join();
