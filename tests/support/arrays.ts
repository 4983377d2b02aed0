import { Random } from "../../src/base/philox.ts";
import { type DType, dataOf } from "../../src/graph/dtype.ts";
import type { HostTensor } from "../../src/runtime/runtime.ts";

// Arrays for tests: made by a rule, read by coordinates, so that a naive loop can stand beside the engine's answer.

export const product = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** An array whose element at i is `value(...i)`. */
export function nd(shape: readonly number[], value: (...at: number[]) => number, dtype: DType = "float64"): HostTensor {
  const values = new Array<number>(product(shape));
  for (let place = 0; place < values.length; place++) values[place] = value(...coordinates(place, shape));
  return { dtype, shape, data: dataOf(dtype, values) };
}

/** An array of given values. */
export const array = (shape: readonly number[], values: readonly number[], dtype: DType = "float64"): HostTensor => ({
  dtype,
  shape,
  data: dataOf(dtype, values),
});

/** Whole numbers: labels, indices. */
export const ints = (shape: readonly number[], values: readonly number[]): HostTensor => array(shape, values, "int32");

function coordinates(place: number, shape: readonly number[]): number[] {
  const at = new Array<number>(shape.length);
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    at[axis] = place % shape[axis];
    place = Math.floor(place / shape[axis]);
  }
  return at;
}

/** The element at coordinates; an axis of size 1 is read at 0, so that what broadcasts needs no care. */
export function at(x: HostTensor, ...place: number[]): number {
  const own = place.slice(place.length - x.shape.length);
  return Number(x.data[own.reduce((index, i, axis) => index * x.shape[axis] + (x.shape[axis] === 1 ? 0 : i), 0)]);
}

/** The element at coordinates, or `outside` where they leave the array. */
export const atOr = (outside: number, x: HostTensor, ...place: number[]): number =>
  place.some((i, axis) => i < 0 || i >= x.shape[axis]) ? outside : at(x, ...place);

export const numbers = (x: HostTensor): number[] => Array.from(x.data as Iterable<number | bigint>, Number);

/** 0 … n-1. */
export const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** Σ over every place of `shape`. */
export function sumOver(shape: readonly number[], term: (...at: number[]) => number): number {
  let sum = 0;
  for (let place = 0; place < product(shape); place++) sum += term(...coordinates(place, shape));
  return sum;
}

let streams = 0;
const stream = (): Random => new Random(7, streams++);

/** Standard normal numbers, others at each call but the same in each run. */
export function randn(shape: readonly number[]): HostTensor {
  const random = stream();
  return nd(shape, () => random.normal());
}

/** Numbers in (0.5, 2). */
export function positive(shape: readonly number[]): HostTensor {
  const random = stream();
  return nd(shape, () => random.between(0.5, 2));
}

/** Numbers of both signs, no two closer than 0.1 and none closer than 0.05 to 0: no difference step crosses a kink or a tie. */
export function apart(shape: readonly number[]): HostTensor {
  const order = stream().permutation(product(shape));
  let next = 0;
  return nd(shape, () => 0.1 * (order[next++] - order.length / 2) + (order.length % 2 === 0 ? 0.05 : 0.1));
}
