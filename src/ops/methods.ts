import { known, normalAxis, type Shape, sameShape } from "../graph/shape.ts";
import { scalar, Tensor } from "../graph/tensor.ts";
import { explained } from "./define.ts";
import * as elementwise from "./elementwise.ts";
import { matmul } from "./linalg.ts";
import * as move from "./move.ts";
import * as reduce from "./reduce.ts";

// Arithmetic as methods.  Numbers become constants of the tensor's own dtype; axes may be negative.

declare module "../graph/tensor.ts" {
  interface Tensor {
    add(y: Tensor | number): Tensor;
    sub(y: Tensor | number): Tensor;
    mul(y: Tensor | number): Tensor;
    div(y: Tensor | number): Tensor;
    pow(y: Tensor | number): Tensor;
    neg(): Tensor;
    exp(): Tensor;
    log(): Tensor;
    sqrt(): Tensor;
    reciprocal(): Tensor;
    erf(): Tensor;
    square(): Tensor;
    matmul(y: Tensor): Tensor;
    /** The last two axes exchanged. */
    readonly mT: Tensor;
    sum(axes?: readonly number[], keepdims?: boolean): Tensor;
    mean(axes?: readonly number[], keepdims?: boolean): Tensor;
    max(axes?: readonly number[], keepdims?: boolean): Tensor;
    min(axes?: readonly number[], keepdims?: boolean): Tensor;
    logSumExp(axes?: readonly number[], keepdims?: boolean): Tensor;
    /** One axis may be -1: what is left. */
    reshape(shape: Shape): Tensor;
    permute(...order: number[]): Tensor;
    swapAxes(a: number, b: number): Tensor;
    unsqueeze(axis: number): Tensor;
    squeeze(axis: number): Tensor;
    expandAs(like: Tensor): Tensor;
    /** Elements start … end-1 of an axis, every `step`-th. */
    slice(axis: number, start: number, end?: number, step?: number): Tensor;
    pad(
      axis: number,
      before: number,
      after: number,
      options?: { mode?: "constant" | "reflect" | "edge"; value?: number },
    ): Tensor;
    /** An axis in reverse order. */
    flip(axis: number): Tensor;
    concat(others: readonly Tensor[], axis: number): Tensor;
    /** Zeros of `like`'s shape with this tensor's elements added at `indices` along an axis. */
    scatterInto(like: Tensor, indices: Tensor, axis: number): Tensor;
  }
}

const lift = (y: Tensor | number, like: Tensor): Tensor => (typeof y === "number" ? scalar(y, like.dtype) : y);

const binary = {
  add: elementwise.add,
  sub: elementwise.sub,
  mul: elementwise.mul,
  div: elementwise.div,
  pow: elementwise.pow,
};
for (const [name, op] of Object.entries(binary))
  define(name, function (this: Tensor, y: Tensor | number) {
    return op(this, lift(y, this));
  });

const { neg, exp, log, sqrt, reciprocal, erf, square } = elementwise;
for (const [name, op] of Object.entries({ neg, exp, log, sqrt, reciprocal, erf, square }))
  define(name, function (this: Tensor) {
    return op(this);
  });

const reductions = {
  sum: reduce.reduceSum,
  mean: reduce.reduceMean,
  max: reduce.reduceMax,
  min: reduce.reduceMin,
  logSumExp: reduce.reduceLogSumExp,
};
for (const [name, op] of Object.entries(reductions))
  define(name, function (this: Tensor, axes?: readonly number[], keepdims = false) {
    const all = axes ?? this.shape.map((_, i) => i);
    return all.length === 0 ? this : op(this, { axes: all.map((a) => normalAxis(a, this.rank)), keepdims });
  });

function define(name: string, draw: (this: Tensor, ...args: never[]) => Tensor): void {
  const value = function (this: Tensor, ...args: never[]): Tensor {
    return explained(name, [this], ["x"], () => draw.apply(this, args));
  };
  Object.defineProperty(Tensor.prototype, name, { value, configurable: true });
}

define("matmul", function (this: Tensor, y: Tensor) {
  return matmul(this, y);
});
Object.defineProperty(Tensor.prototype, "mT", {
  get(this: Tensor) {
    return this.swapAxes(-2, -1);
  },
});
define("reshape", function (this: Tensor, shape: Shape) {
  return sameShape(shape, this.shape) ? this : move.reshape(this, shape);
});
define("permute", function (this: Tensor, ...order: number[]) {
  if (order.length === this.rank && order.every((p, i) => p === i)) return this;
  const { op, attrs, inputs } = this.node;
  const undoes = op.name === "Transpose" && order.every((p, i) => attrs.perm[p] === i);
  return undoes && order.length === this.rank ? inputs[0]! : move.permute(this, { perm: order });
});
define("swapAxes", function (this: Tensor, a: number, b: number) {
  const [i, j] = [normalAxis(a, this.rank), normalAxis(b, this.rank)];
  return this.permute(...this.shape.map((_, k) => (k === i ? j : k === j ? i : k)));
});
define("unsqueeze", function (this: Tensor, axis: number) {
  const a = normalAxis(axis, this.rank + 1);
  return this.reshape([...this.shape.slice(0, a), 1, ...this.shape.slice(a)]);
});
define("squeeze", function (this: Tensor, axis: number) {
  const a = normalAxis(axis, this.rank);
  return this.reshape(this.shape.filter((_, i) => i !== a));
});
define("expandAs", function (this: Tensor, like: Tensor) {
  return sameShape(this.shape, like.shape) ? this : move.expandLike(this, like);
});
define("slice", function (this: Tensor, axis: number, start: number, end?: number, step = 1) {
  const a = normalAxis(axis, this.rank);
  if (end === undefined && start === 0 && step === 1) return this;
  const size = known(this.shape[a], "a sliced axis");
  const last = end ?? size;
  if (start === 0 && last === size && step === 1) return this;
  return move.sliceAxes(this, { starts: [start], ends: [last], axes: [a], steps: [step] });
});
define("pad", function (this: Tensor, axis: number, before: number, after: number, options = {}) {
  const a = normalAxis(axis, this.rank);
  if (before === 0 && after === 0) return this;
  const at = (n: number): number[] => this.shape.map((_, i) => (i === a ? n : 0));
  return move.padAxes(this, { before: at(before), after: at(after), ...options });
});
define("flip", function (this: Tensor, axis: number) {
  const size = known(this.shape[normalAxis(axis, this.rank)], "a turned axis");
  return move.permuteAlong(
    this,
    Int32Array.from({ length: size }, (_, i) => size - 1 - i),
    axis,
  );
});
define("concat", function (this: Tensor, others: readonly Tensor[], axis: number) {
  return move.concat([this, ...others], axis);
});
define("scatterInto", function (this: Tensor, like: Tensor, indices: Tensor, axis: number) {
  return move.scatterElementsAdd(move.zerosLike(like), indices, this, { axis: normalAxis(axis, like.rank) });
});
