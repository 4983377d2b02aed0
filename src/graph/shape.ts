import { ShapeError } from "../base/errors.ts";

/**
 * An axis whose size is known only when a program runs: `times` × the size called `name`.  The batch is one, and what a
 * reshape merges into it stays one: 64 windows of each of N images are `64N`.
 */
export class OpenDim {
  readonly name: string;
  readonly times: number;
  constructor(name: string, times = 1) {
    this.name = name;
    this.times = times;
  }
  toString(): string {
    return this.times === 1 ? this.name : `${this.times}${this.name}`;
  }
}

export type Dim = number | OpenDim;
export type Shape = readonly Dim[];

export const isOpen = (d: Dim): d is OpenDim => typeof d !== "number";

export const sameDim = (a: Dim, b: Dim): boolean =>
  a === b || (isOpen(a) && isOpen(b) && a.name === b.name && a.times === b.times);

export const sameShape = (a: Shape, b: Shape): boolean => a.length === b.length && a.every((d, i) => sameDim(d, b[i]));

export const showShape = (shape: Shape): string => `[${shape.join(", ")}]`;

/** a × b; at most one of them may be open. */
export function mulDim(a: Dim, b: Dim): Dim {
  if (!isOpen(a)) return isOpen(b) ? (a === 0 ? 0 : new OpenDim(b.name, b.times * a)) : a * b;
  if (!isOpen(b)) return mulDim(b, a);
  throw new ShapeError(`two open axes cannot be merged, ${a} and ${b}`);
}

/** a ÷ b where it divides, otherwise undefined. */
export function divDim(a: Dim, b: Dim): Dim | undefined {
  if (isOpen(b)) return isOpen(a) && a.name === b.name && a.times % b.times === 0 ? a.times / b.times : undefined;
  if (b === 0) return undefined;
  if (isOpen(a)) return a.times % b === 0 ? new OpenDim(a.name, a.times / b) : undefined;
  return a % b === 0 ? a / b : undefined;
}

/** The number of elements. */
export const sizeOf = (shape: Shape): Dim => shape.reduce<Dim>(mulDim, 1);

/** The number of elements of a shape without an open axis. */
export function staticSize(shape: Shape): number {
  const size = sizeOf(shape);
  if (isOpen(size)) throw new ShapeError(`a known size is needed here, got ${showShape(shape)}`);
  return size;
}

/** A size that must be known. */
export function known(d: Dim, what = "this axis"): number {
  if (isOpen(d)) throw new ShapeError(`${what} must have a known size, it is ${d}`);
  return d;
}

/** Whether it can be the size of an axis that holds something: 1, 2, … */
export const isCount = (n: unknown): boolean => Number.isInteger(n) && Number(n) >= 1;

/** `axis` counted from the front; negative axes count from the back. */
export function normalAxis(axis: number, rank: number): number {
  const a = axis < 0 ? axis + rank : axis;
  if (!(Number.isInteger(a) && a >= 0 && a < rank))
    throw new ShapeError(`axis ${axis} is outside a tensor of ${rank} axes`);
  return a;
}

/** The shape that both broadcast to, or undefined. */
export function broadcast(a: Shape, b: Shape): Shape | undefined {
  const rank = Math.max(a.length, b.length);
  const out: Dim[] = [];
  for (let i = 0; i < rank; i++) {
    const x = a[a.length - rank + i] ?? 1;
    const y = b[b.length - rank + i] ?? 1;
    if (sameDim(x, y) || y === 1) out.push(x);
    else if (x === 1) out.push(y);
    else return undefined;
  }
  return out;
}

/** The number of elements, each open axis taken as one. */
export const sizeForOne = (shape: Shape): number => bindShape(shape, 1).reduce((a, b) => a * b, 1);

/** Puts `value` in the place of every open axis: `bindShape([64N, 49], 8)` is `[512, 49]`. */
export const bindShape = (shape: Shape, value: number): number[] => shape.map((d) => (isOpen(d) ? d.times * value : d));

/** How far apart neighbours along each axis lie, in elements, where the last axis runs fastest. */
export const stridesOf = (shape: readonly number[]): number[] =>
  shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1));

/** Where the elements of `shape`, in order, lie for a reader who takes a step of its own along each axis. */
export function* placesOf(shape: readonly number[], steps: readonly number[], start = 0): Generator<number> {
  const at = shape.map(() => 0);
  const total = shape.reduce((a, b) => a * b, 1);
  let from = start;
  for (let i = 0; i < total; i++) {
    yield from;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += steps[axis];
      if (++at[axis] < shape[axis]) break;
      from -= steps[axis] * shape[axis];
      at[axis] = 0;
    }
  }
}
