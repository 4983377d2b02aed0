import { ShapeError } from "../../base/errors.ts";
import { type Data, type DType, dataOf, isFloat } from "../../graph/dtype.ts";
import {
  broadcast,
  type Dim,
  divDim,
  isOpen,
  mulDim,
  placesOf,
  type Shape,
  sameDim,
  stridesOf,
} from "../../graph/shape.ts";
import { constant, type Tensor } from "../../graph/tensor.ts";

/**
 * Numbers that are known while a model is drawn: sizes, axes, scales, limits.  Exporters compute them with nodes of the graph, and a
 * size that only a run knows, the batch, may be among them.
 */
export class Known {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly values: readonly Dim[];
  #tensor?: Tensor;
  constructor(dtype: DType, shape: readonly number[], values: readonly Dim[]) {
    this.dtype = dtype;
    this.shape = shape;
    this.values = values;
  }

  /** Whether every number is one. */
  get isStatic(): boolean {
    return !this.values.some(isOpen);
  }

  /** The numbers as a constant of the graph.  Sizes that are open cannot be one. */
  constant(): Tensor {
    this.#tensor ??= constant(dataOf(this.dtype, this.values as readonly number[]), this.shape, this.dtype);
    return this.#tensor;
  }
}

/** What a name of a model stands for. */
export type Value = Tensor | Known;

export const isKnown = (value: Value | undefined): value is Known => value instanceof Known;

/** More numbers than this are left to the engine: a table of relative positions fits, weights do not. */
export const most = 2 ** 18;

/** The numbers of a constant. */
export function knownOf(dtype: DType, shape: readonly number[], data: Data): Known {
  return new Known(dtype, shape, Array.from(data as Iterable<number | bigint>, Number));
}

const count = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** Tells that something is known only to a run: the graph has to compute it. */
class Unknown extends Error {}

/** `compute`, or undefined where it meets a size that only a run knows. */
export function ifKnown(compute: () => Known | Known[] | undefined): Known[] | undefined {
  try {
    const made = compute();
    return made && [made].flat();
  } catch (error) {
    if (error instanceof Unknown) return undefined;
    throw error;
  }
}

const num = (d: Dim): number => {
  if (isOpen(d)) throw new Unknown();
  return d;
};

/** Elements of `x` for each place of `shape`, which a walk with a step for each axis visits from `start`. */
function walk(x: Known, shape: readonly number[], steps: readonly number[], start = 0): Dim[] {
  if (count(shape) > most) throw new Unknown();
  return Array.from(placesOf(shape, steps, start), (place) => x.values[place]);
}

function broadcastOf(a: readonly number[], b: readonly number[]): number[] {
  const both = broadcast(a, b);
  if (!both) throw new ShapeError(`[${a}] and [${b}] do not broadcast`);
  return both as number[];
}

/** The numbers repeated to `shape`. */
export function spread(x: Known, shape: readonly number[]): Known {
  const steps = stridesOf(x.shape);
  const missing = shape.length - x.shape.length;
  const full = broadcastOf(x.shape, shape);
  const each = full.map((_, i) => (i < missing || x.shape[i - missing] === 1 ? 0 : steps[i - missing]));
  return new Known(x.dtype, full, walk(x, full, each));
}

/** As integers are stored: divided towards zero, by nothing to nothing. */
const whole = (dtype: DType, value: number): number =>
  isFloat(dtype) ? value : Number.isNaN(value) ? 0 : Math.trunc(value);

const truth = (f: (a: number, b: number) => boolean) => (a: Dim, b: Dim) => (f(num(a), num(b)) ? 1 : 0);
const numbers = (f: (a: number, b: number) => number) => (a: Dim, b: Dim) => f(num(a), num(b));

/** Two numbers in, one out.  Products and quotients of open sizes are open sizes. */
const pairs: Readonly<Record<string, (a: Dim, b: Dim) => Dim>> = {
  Add: (a, b) => (a === 0 ? b : b === 0 ? a : num(a) + num(b)),
  Sub: (a, b) => (b === 0 ? a : sameDim(a, b) ? 0 : num(a) - num(b)),
  Mul: (a, b) => {
    if (!isOpen(a) && !isOpen(b)) return a * b;
    const [open, factor] = isOpen(a) ? [a, b] : [b, a];
    const times = num(factor);
    if (!Number.isInteger(times) || times < 0) throw new Unknown();
    return mulDim(open, times);
  },
  Div: (a, b) => {
    if (!isOpen(a) && !isOpen(b)) return a / b;
    const quotient = divDim(a, b);
    if (quotient === undefined) throw new Unknown();
    return quotient;
  },
  Mod: numbers((a, b) => a - Math.floor(a / b) * b),
  Fmod: numbers((a, b) => a % b),
  Pow: numbers((a, b) => a ** b),
  Max: (a, b) => (sameDim(a, b) ? a : Math.max(num(a), num(b))),
  Min: (a, b) => (sameDim(a, b) ? a : Math.min(num(a), num(b))),
  // A size is never zero or below.
  Equal: (a, b) => {
    if (sameDim(a, b)) return 1;
    const other = isOpen(a) ? b : a;
    return isOpen(a) !== isOpen(b) && num(other) <= 0 ? 0 : num(a) === num(b) ? 1 : 0;
  },
  Greater: truth((a, b) => a > b),
  GreaterOrEqual: truth((a, b) => a >= b),
  Less: truth((a, b) => a < b),
  LessOrEqual: truth((a, b) => a <= b),
  And: truth((a, b) => a !== 0 && b !== 0),
  Or: truth((a, b) => a !== 0 || b !== 0),
  Xor: truth((a, b) => (a !== 0) !== (b !== 0)),
};
const comparing = new Set(["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor"]);

/** The result of an operation on two lists of numbers. */
export function foldPair(op: string, a: Known, b: Known): Known | undefined {
  const f = pairs[op];
  if (!f) return undefined;
  const shape = broadcastOf(a.shape, b.shape);
  const [x, y] = [spread(a, shape).values, spread(b, shape).values];
  const dtype = comparing.has(op) ? "bool" : a.dtype;
  return new Known(
    dtype,
    shape,
    x.map((value, i) => {
      const z = f(value, y[i]);
      return isOpen(z) ? z : whole(dtype, z);
    }),
  );
}

const evenly = (x: number): number => {
  const low = Math.floor(x);
  return x - low === 0.5 ? low + (low % 2 === 0 ? 0 : 1) : Math.round(x);
};

const singles: Readonly<Record<string, (x: number) => number>> = {
  Neg: (x) => -x,
  Abs: Math.abs,
  Floor: Math.floor,
  Ceil: Math.ceil,
  Round: evenly,
  Sqrt: Math.sqrt,
  Exp: Math.exp,
  Log: Math.log,
  Sin: Math.sin,
  Cos: Math.cos,
  Sign: Math.sign,
  Reciprocal: (x) => 1 / x,
  Not: (x) => (x === 0 ? 1 : 0),
};

/** The result of an operation on each of some numbers. */
export function foldSingle(op: string, x: Known): Known | undefined {
  const f = singles[op];
  if (!f) return undefined;
  // Rounding leaves a size as it is.
  const kept = op === "Floor" || op === "Ceil" || op === "Round" || op === "Abs";
  return new Known(
    x.dtype,
    x.shape,
    x.values.map((v) => (isOpen(v) && kept ? v : f(num(v)))),
  );
}

/** The numbers as another type. */
export function foldCast(x: Known, to: DType): Known {
  const turn = (value: number): number => {
    if (to === "bool") return value === 0 ? 0 : 1;
    if (to === "float32") return Math.fround(value);
    return isFloat(to) ? value : whole(to, value);
  };
  return new Known(
    to,
    x.shape,
    x.values.map((v) => (isOpen(v) ? v : turn(v))),
  );
}

export function foldWhere(condition: Known, a: Known, b: Known): Known {
  const shape = broadcastOf(broadcastOf(condition.shape, a.shape), b.shape);
  const [c, x, y] = [condition, a, b].map((k) => spread(k, shape).values);
  return new Known(
    a.dtype,
    shape,
    c.map((v, i) => (num(v) !== 0 ? x[i] : y[i])),
  );
}

/** The same numbers in another shape. */
export function foldReshape(x: Known, shape: readonly number[]): Known {
  if (count(shape) !== x.values.length) throw new ShapeError(`[${x.shape}] cannot become [${shape}]`);
  return new Known(x.dtype, shape, x.values);
}

export function foldTranspose(x: Known, perm: readonly number[]): Known {
  const steps = stridesOf(x.shape);
  const shape = perm.map((p) => x.shape[p]);
  return new Known(
    x.dtype,
    shape,
    walk(
      x,
      shape,
      perm.map((p) => steps[p]),
    ),
  );
}

/** Elements of an axis by place; places are checked before. */
export function foldGather(x: Known, places: readonly number[], placesShape: readonly number[], axis: number): Known {
  const before = count(x.shape.slice(0, axis));
  const inner = count(x.shape.slice(axis + 1));
  if (before * places.length * inner > most) throw new Unknown();
  const out: Dim[] = [];
  for (let b = 0; b < before; b++)
    for (const place of places)
      for (let i = 0; i < inner; i++) out.push(x.values[(b * x.shape[axis] + place) * inner + i]);
  return new Known(x.dtype, [...x.shape.slice(0, axis), ...placesShape, ...x.shape.slice(axis + 1)], out);
}

export function foldConcat(xs: readonly Known[], axis: number): Known {
  const [first] = xs;
  for (const x of xs)
    if (x.shape.length !== first.shape.length || x.shape.some((d, i) => i !== axis && d !== first.shape[i]))
      throw new ShapeError(`all must agree but in axis ${axis}`);
  const before = count(first.shape.slice(0, axis));
  const out: Dim[] = [];
  for (let b = 0; b < before; b++)
    for (const x of xs) {
      const each = x.values.length / Math.max(before, 1);
      for (let i = 0; i < each; i++) out.push(x.values[b * each + i]);
    }
  if (out.length > most) throw new Unknown();
  const size = xs.reduce((sum, x) => sum + x.shape[axis], 0);
  return new Known(first.dtype, first.shape.with(axis, size), out);
}

const reductions: Readonly<Record<string, (values: readonly number[]) => number>> = {
  ReduceSum: (values) => values.reduce((a, b) => a + b, 0),
  ReduceProd: (values) => values.reduce((a, b) => a * b, 1),
  ReduceMax: (values) => values.reduce((a, b) => Math.max(a, b), -Infinity),
  ReduceMin: (values) => values.reduce((a, b) => Math.min(a, b), Infinity),
  ReduceMean: (values) => values.reduce((a, b) => a + b, 0) / values.length,
};

/** A list reduced to one number; the sizes of a map multiplied are the number of its elements. */
export function foldReduce(op: string, x: Known, keepdims: boolean): Known | undefined {
  const shape = keepdims ? x.shape.map(() => 1) : [];
  if (op === "ReduceProd") return new Known(x.dtype, shape, [x.values.reduce<Dim>((a, b) => pairs.Mul(a, b), 1)]);
  const f = reductions[op];
  return f && new Known(x.dtype, shape, [whole(x.dtype, f(x.values.map(num)))]);
}

export function foldRange(dtype: DType, [start, limit, step]: readonly Dim[]): Known {
  const [from, to, by] = [num(start), num(limit), num(step)];
  const length = Math.max(0, Math.ceil((to - from) / by));
  if (!(length <= most)) throw new Unknown();
  return new Known(
    dtype,
    [length],
    Array.from({ length }, (_, i) => from + i * by),
  );
}

/** One number everywhere. */
export function foldFill(dtype: DType, shape: Shape, value: number): Known {
  const sizes = shape.map(num);
  if (sizes.some((d) => d < 0)) throw new ShapeError(`[${sizes}] is no shape`);
  const size = count(sizes);
  if (!(size <= most)) throw new Unknown();
  return new Known(dtype, sizes, new Array(size).fill(value));
}
