import { gradients } from "../../../src/autodiff/gradients.ts";
import { constant, type Tensor } from "../../../src/graph/tensor.ts";
import * as ops from "../../../src/ops/index.ts";
import type { HostTensor } from "../../../src/runtime/runtime.ts";
import { apart, array, at, nd, randn, range, sumOver } from "../../support/arrays.ts";
import { type OpCase, op } from "../../support/cases.ts";

type Reduce = "sum" | "mean" | "max" | "min" | "logSumExp";
const folds: Record<Reduce, (xs: number[]) => number> = {
  sum: (xs) => xs.reduce((a, b) => a + b),
  mean: (xs) => xs.reduce((a, b) => a + b) / xs.length,
  max: (xs) => Math.max(...xs),
  min: (xs) => Math.min(...xs),
  logSumExp: (xs) => Math.log(xs.reduce((sum, x) => sum + Math.exp(x), 0)),
};

/** Gathers what each result reads, then folds it. */
const reduced =
  (fold: (xs: number[]) => number, axes: readonly number[], keepdims: boolean) =>
  (x: HostTensor): HostTensor => {
    const gone = (axis: number) => axes.includes(axis) || axes.includes(axis - x.shape.length);
    const kept = nd(
      x.shape.map((s, axis) => (gone(axis) ? 1 : s)),
      (...i) => {
        const read: number[] = [];
        nd(
          x.shape.map((s, axis) => (gone(axis) ? s : 1)),
          (...k) => {
            read.push(at(x, ...i.map((p, axis) => p + k[axis])));
            return 0;
          },
        );
        return fold(read);
      },
    );
    return keepdims ? kept : { ...kept, shape: x.shape.filter((_, axis) => !gone(axis)) };
  };

const ways: readonly [axes: number[] | undefined, keepdims: boolean][] = [
  [undefined, false],
  [undefined, true],
  [[1], false],
  [[-1], true],
  [[0, -1], false],
  [[2, 0], true],
  [[], false],
];

const ties = array([2, 3], [1, 3, 3, 2, 2, 0]);

export const cases: OpCase[] = [
  ...(Object.keys(folds) as Reduce[]).flatMap((name) =>
    ways.map(([axes, keepdims]) =>
      op(
        `${name}: axes ${axes ? `[${axes}]` : "all"}${keepdims ? ", kept" : ""}`,
        [apart([2, 3, 2])],
        (x) => x[name](axes, keepdims),
        (x) => (axes?.length === 0 ? x : reduced(folds[name], axes ?? range(3), keepdims)(x)),
      ),
    ),
  ),
  op(
    "argMax",
    [apart([3, 4])],
    (x) => ops.argMax(x, { axis: -1, keepdims: false }),
    (x) => nd([3], (i) => range(4).reduce((best, j) => (at(x, i, j) > at(x, i, best) ? j : best), 0), "int64"),
    { wrt: [] },
  ),
  op(
    "argMax: the first of equals, axis kept",
    [ties],
    (x) => ops.argMax(x, { axis: 1, keepdims: true }),
    () => array([2, 1], [1, 0], "int64"),
    { wrt: [] },
  ),
  op(
    "reduceSumSquare",
    [randn([2, 3, 4])],
    (x) => ops.reduceSumSquare(x, { axes: [0, 2], keepdims: false }),
    (x) => nd([3], (c) => sumOver([2, 4], (i, k) => at(x, i, c, k) ** 2)),
  ),
  op(
    "cumSum",
    [randn([2, 4])],
    (x) => ops.cumSum(x, { axis: -1 }),
    (x) => nd([2, 4], (i, j) => folds.sum(range(j + 1).map((k) => at(x, i, k)))),
  ),
  op(
    "cumSum: backwards",
    [randn([3, 2])],
    (x) => ops.cumSum(x, { axis: 0, reverse: true }),
    (x) => nd([3, 2], (i, j) => folds.sum(range(3 - i).map((k) => at(x, i + k, j)))),
  ),
  op(
    "topK: values",
    [apart([2, 5])],
    (x) => ops.topK(x, 3).values,
    (x) =>
      nd(
        [2, 3],
        (i, j) =>
          range(5)
            .map((k) => at(x, i, k))
            .sort((a, b) => b - a)[j],
      ),
  ),
  op(
    "topK: values along the first axis",
    [apart([4, 2])],
    (x) => ops.topK(x, 2, 0).values,
    (x) =>
      nd(
        [2, 2],
        (i, j) =>
          range(4)
            .map((k) => at(x, k, j))
            .sort((a, b) => b - a)[i],
      ),
  ),
  op(
    "topK: places",
    [array([4], [0.1, 0.9, 0.5, 0.7])],
    (x) => ops.topK(x, 3).indices,
    () => array([3], [1, 3, 2], "int64"),
    { wrt: [] },
  ),
];

const slope = (y: Tensor, x: Tensor): Tensor => gradients(y.sum(), [x])[0];
const row = (...values: number[]): Tensor => constant(Float64Array.from(values), [values.length], "float64");

/** Where several elements are extreme, the gradient is shared among them.  [inputs, draw, gradient of the sum] */
export const sharedGradients: readonly [name: string, x: HostTensor, draw: (x: Tensor) => Tensor, dx: number[]][] = [
  ["max", ties, (x) => x.max([1]), [0, 0.5, 0.5, 0.5, 0.5, 0]],
  ["min", ties, (x) => x.min([0]), [1, 0, 0, 0, 1, 1]],
  ["maximum: the first takes it", ties, (x) => ops.maximum(x, x.mul(1)), [1, 1, 1, 1, 1, 1]],
  ["relu at 0", array([2], [0, 1]), ops.relu, [0, 1]],
  ["abs at 0", array([2], [0, -1]), ops.abs, [0, -1]],
  ["x⁰ at 0", array([2], [0, 3]), (x) => x.pow(0), [0, 0]],
  ["x¹ at 0, differentiated", array([2], [0, 3]), (x) => slope(x.pow(1), x), [0, 0]],
  ["a power, known only to a run, of 0", array([3], [0, 0, 0]), (x) => x.pow(x.add(row(0, 1, 2))), [0, 1, 0]],
  ["0 to a power", array([3], [0, 1, 2]), (b) => b.mul(0).pow(b), [0, 0, 0]],
  ["clip at its limits", array([4], [-1, 0, 2, 3]), (x) => ops.clip(x, { min: 0, max: 2 }), [0, 1, 1, 0]],
];
