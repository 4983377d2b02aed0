import { dataOf } from "../graph/dtype.ts";
import { placesOf, sameShape, staticSize, stridesOf } from "../graph/shape.ts";
import { constant, constantData, type Node, type Tensor } from "../graph/tensor.ts";

// Constants as numbers: arithmetic in float64, rounded once to the constants' own type.

export type Floats = Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>;

/** The values of a constant of floats. */
export const floatsIn = (x: Tensor | undefined): Floats | undefined =>
  x?.dtype === "float32" || x?.dtype === "float64" ? (constantData(x) as Floats | undefined) : undefined;

/** The values of a float32 constant. */
export const valuesOf = (x: Tensor | undefined): Float32Array<ArrayBuffer> | undefined =>
  x?.dtype === "float32" ? (floatsIn(x) as Float32Array<ArrayBuffer> | undefined) : undefined;

/** A float32 constant. */
export const weights = (values: ArrayLike<number>, shape: readonly number[], name?: string): Tensor =>
  constant(dataOf("float32", values), shape, "float32", name);

const arithmetic: Readonly<Record<string, (a: number, b: number) => number>> = {
  Add: (a, b) => a + b,
  Sub: (a, b) => a - b,
  Mul: (a, b) => a * b,
  Div: (a, b) => a / b,
  Neg: (a) => -a,
};

/** The outputs of a node that reads constants alone, where that is a matter of moving numbers or of + - × ÷. */
export function folded(node: Node): readonly Tensor[] | undefined {
  const data = node.inputs.map(floatsIn);
  if (!data.every((values) => values !== undefined)) return undefined;
  const [x] = node.inputs as Tensor[];
  const shapes = node.inputs.map((input) => input!.shape as number[]);
  const made = (place: (y: readonly number[]) => Floats): readonly Tensor[] =>
    node.outputs.map((y) => constant(place(y.shape as number[]), y.shape as number[], y.dtype));
  switch (node.op.name) {
    case "Reshape":
      return made(() => data[0]);
    case "Transpose": {
      const { perm } = node.attrs as { perm: readonly number[] };
      const strides = stridesOf(shapes[0]);
      return made((shape) =>
        gathered(
          data[0],
          shape,
          perm.map((p) => strides[p]),
          0,
        ),
      );
    }
    case "Split": {
      const { axis } = node.attrs as { axis: number };
      const strides = stridesOf(shapes[0]);
      let start = 0;
      return node.outputs.map((y) => {
        const from = start * strides[axis];
        start += y.shape[axis] as number;
        return constant(gathered(data[0], y.shape as number[], strides, from), y.shape as number[], x.dtype);
      });
    }
    default: {
      const f = arithmetic[node.op.name];
      if (!f) return undefined;
      return made((shape) => {
        const [a, b = a] = data.map((values, i) => spread(values, shapes[i], shape));
        return a.map((value, i) => f(value, b[i]));
      });
    }
  }
}

/** `values` repeated to `shape`, which their own shape broadcasts to. */
function spread(values: Floats, own: readonly number[], shape: readonly number[]): Floats {
  if (sameShape(own, shape)) return values;
  const strides = stridesOf(own);
  const missing = shape.length - own.length;
  return gathered(
    values,
    shape,
    shape.map((_, i) => (i < missing || own[i - missing] === 1 ? 0 : strides[i - missing])),
    0,
  );
}

/** Elements read in the order of `shape`, with a step for each of its axes; a loop of its own for the last, which most lie along. */
function gathered(values: Floats, shape: readonly number[], steps: readonly number[], start: number): Floats {
  const out = new (values.constructor as Float32ArrayConstructor)(staticSize(shape));
  const [width, step] = [shape.at(-1) ?? 1, steps.at(-1) ?? 0];
  let i = 0;
  for (const row of placesOf(shape.slice(0, -1), steps.slice(0, -1), start))
    for (let x = 0; x < width; x++) out[i++] = values[row + x * step];
  return out;
}
