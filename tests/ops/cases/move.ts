import { constant, type Tensor } from "../../../src/graph/tensor.ts";
import * as ops from "../../../src/ops/index.ts";
import { placeAlong, waitFor } from "../../../src/ops/move.ts";
import { array, at, ints, nd, randn, sumOver } from "../../support/arrays.ts";
import { type OpCase, op } from "../../support/cases.ts";

const fixed = (values: readonly number[]): Tensor => constant(Int32Array.from(values), [values.length], "int32");
/** Where place i of a padded axis of `size` was read. */
const mirrored = (i: number, size: number): number => (i < 0 ? -i : i >= size ? 2 * (size - 1) - i : i);
const nearestOf = (i: number, size: number): number => Math.min(Math.max(i, 0), size - 1);

export const cases: OpCase[] = [
  op(
    "reshape",
    [randn([2, 3, 4])],
    (x) => x.reshape([4, -1]),
    (x) => ({ ...x, shape: [4, 6] }),
  ),
  op(
    "reshape: to one number's shape",
    [randn([1, 1])],
    (x) => x.reshape([]),
    (x) => ({ ...x, shape: [] }),
  ),
  op(
    "permute",
    [randn([2, 3, 4])],
    (x) => x.permute(2, 0, 1),
    (x) => nd([4, 2, 3], (i, j, k) => at(x, j, k, i)),
  ),
  op(
    "swapAxes",
    [randn([2, 3, 4])],
    (x) => x.swapAxes(0, -1),
    (x) => nd([4, 3, 2], (i, j, k) => at(x, k, j, i)),
  ),
  op(
    "mT",
    [randn([2, 3, 4])],
    (x) => x.mT,
    (x) => nd([2, 4, 3], (i, j, k) => at(x, i, k, j)),
  ),
  op(
    "unsqueeze",
    [randn([2, 3])],
    (x) => x.unsqueeze(-1),
    (x) => ({ ...x, shape: [2, 3, 1] }),
  ),
  op(
    "squeeze",
    [randn([2, 1, 3])],
    (x) => x.squeeze(1),
    (x) => ({ ...x, shape: [2, 3] }),
  ),
  op(
    "expandAs",
    [randn([2, 1]), randn([4, 2, 3])],
    (x, like) => x.expandAs(like),
    (x) => nd([4, 2, 3], (_, j) => at(x, j, 0)),
    { wrt: [0] },
  ),
  op(
    "expandBatch",
    [randn([1, 2, 3]), randn([4, 1])],
    ops.expandBatch,
    (x) => nd([4, 2, 3], (_, j, k) => at(x, 0, j, k)),
    { wrt: [0] },
  ),
  op(
    "slice",
    [randn([2, 7])],
    (x) => x.slice(1, 2, 5),
    (x) => nd([2, 3], (i, j) => at(x, i, j + 2)),
  ),
  op(
    "slice: to the end",
    [randn([2, 7])],
    (x) => x.slice(-1, 4),
    (x) => nd([2, 3], (i, j) => at(x, i, j + 4)),
  ),
  op(
    "slice: every third, the last step cut short",
    [randn([2, 7])],
    (x) => x.slice(1, 0, 7, 3),
    (x) => nd([2, 3], (i, j) => at(x, i, 3 * j)),
  ),
  op(
    "slice: every third, some left over",
    [randn([9])],
    (x) => x.slice(0, 1, 7, 3),
    (x) => nd([2], (i) => at(x, 1 + 3 * i)),
  ),
  op(
    "slice: a step beyond the end",
    [randn([5])],
    (x) => x.slice(0, 2, 3, 9),
    (x) => nd([1], () => at(x, 2)),
  ),
  op(
    "pad: zeros",
    [randn([2, 3])],
    (x) => x.pad(1, 2, 1),
    (x) => nd([2, 6], (i, j) => (j < 2 || j > 4 ? 0 : at(x, i, j - 2))),
  ),
  op(
    "pad: a value",
    [randn([2, 3])],
    (x) => x.pad(0, 1, 0, { value: 7 }),
    (x) => nd([3, 3], (i, j) => (i === 0 ? 7 : at(x, i - 1, j))),
  ),
  op(
    "pad: reflected",
    [randn([2, 4])],
    (x) => x.pad(1, 3, 2, { mode: "reflect" }),
    (x) => nd([2, 9], (i, j) => at(x, i, mirrored(j - 3, 4))),
  ),
  op(
    "pad: the edge",
    [randn([3, 2])],
    (x) => x.pad(0, 2, 1, { mode: "edge" }),
    (x) => nd([6, 2], (i, j) => at(x, nearestOf(i - 2, 3), j)),
  ),
  op(
    "padAxes: several axes reflected",
    [randn([3, 4])],
    (x) => ops.padAxes(x, { before: [1, 2], after: [2, 0], mode: "reflect" }),
    (x) => nd([6, 6], (i, j) => at(x, mirrored(i - 1, 3), mirrored(j - 2, 4))),
  ),
  op(
    "padAxes: several axes",
    [randn([2, 2])],
    (x) => ops.padAxes(x, { before: [1, 0], after: [0, 2] }),
    (x) => nd([3, 4], (i, j) => (i < 1 || j > 1 ? 0 : at(x, i - 1, j))),
  ),
  op(
    "padAxes: cut at one end",
    [randn([4, 2])],
    (x) => ops.padAxes(x, { before: [-1, 1], after: [1, -1] }),
    (x) => nd([4, 2], (i, j) => (i > 2 || j < 1 ? 0 : at(x, i + 1, j - 1))),
  ),
  op(
    "flip",
    [randn([2, 3])],
    (x) => x.flip(-1),
    (x) => nd([2, 3], (i, j) => at(x, i, 2 - j)),
  ),
  op(
    "roll",
    [randn([2, 5])],
    (x) => ops.roll(x, 2, 1),
    (x) => nd([2, 5], (i, j) => at(x, i, (j + 3) % 5)),
  ),
  op(
    "roll: backwards, more than once around",
    [randn([5])],
    (x) => ops.roll(x, -7, 0),
    (x) => nd([5], (i) => at(x, (i + 7) % 5)),
  ),
  op(
    "concat",
    [randn([2, 1]), randn([2, 3]), randn([2, 2])],
    (...xs) => ops.concat(xs, -1),
    (...xs) => nd([2, 6], (i, j) => (j < 1 ? at(xs[0], i, j) : j < 4 ? at(xs[1], i, j - 1) : at(xs[2], i, j - 4))),
  ),
  op(
    "concat: one tensor twice",
    [randn([2])],
    (x) => ops.concat([x, x], 0),
    (x) => nd([4], (i) => at(x, i % 2)),
  ),
  op(
    "stack",
    [randn([2, 3]), randn([2, 3])],
    (a, b) => ops.stack([a, b], -1),
    (a, b) => nd([2, 3, 2], (i, j, k) => at(k ? b : a, i, j)),
  ),
  op(
    "split: one part is used",
    [randn([2, 6])],
    (x) => ops.split(x, 1, 3)[1],
    (x) => nd([2, 2], (i, j) => at(x, i, j + 2)),
  ),
  op(
    "split: unequal parts, two used",
    [randn([6, 2])],
    (x) => {
      const [a, , c] = ops.split(x, 0, [2, 1, 3]);
      return a.mul(c.slice(0, 1, 3));
    },
    (x) => nd([2, 2], (i, j) => at(x, i, j) * at(x, i + 4, j)),
  ),
  op(
    "gather: rows, one repeated",
    [randn([4, 2]), ints([3], [2, 0, 2])],
    (x, i) => ops.gather(x, i, { axis: 0 }),
    (x, i) => nd([3, 2], (k, j) => at(x, at(i, k), j)),
  ),
  op(
    "gather: a table of places on a middle axis",
    [randn([2, 4, 3]), ints([2, 2], [3, 3, 0, 1])],
    (x, i) => ops.gather(x, i, { axis: -2 }),
    (x, i) => nd([2, 2, 2, 3], (n, a, b, c) => at(x, n, at(i, a, b), c)),
  ),
  op(
    "gather: constant places",
    [randn([2, 4])],
    (x) => ops.gather(x, fixed([1, 1, 3]), { axis: 1 }),
    (x) => nd([2, 3], (i, k) => at(x, i, [1, 1, 3][k])),
  ),
  op(
    "gather: one place, the axis goes",
    [randn([2, 4]), ints([], [2])],
    (x, i) => ops.gather(x, i, { axis: 1 }),
    (x) => nd([2], (i) => at(x, i, 2)),
  ),
  op(
    "gather: places from the end, in int64",
    [randn([4]), array([2], [-1, -4], "int64")],
    (x, i) => ops.gather(x, i, { axis: 0 }),
    (x) => nd([2], (k) => at(x, k ? 0 : 3)),
  ),
  op(
    "gatherElements: one place repeated",
    [randn([2, 4]), ints([2, 3], [0, 0, 3, 2, 1, 1])],
    (x, i) => ops.gatherElements(x, i, { axis: -1 }),
    (x, i) => nd([2, 3], (a, k) => at(x, a, at(i, a, k))),
  ),
  op(
    "gatherElements: fewer rows",
    [randn([3, 4]), ints([2, 2], [0, 2, 1, 1])],
    (x, i) => ops.gatherElements(x, i, { axis: 0 }),
    (x, i) => nd([2, 2], (a, k) => at(x, at(i, a, k), k)),
  ),
  op(
    "scatterElementsAdd: places repeated",
    [randn([2, 4]), ints([2, 3], [0, 0, 3, 2, 1, 1]), randn([2, 3])],
    (x, i, u) => ops.scatterElementsAdd(x, i, u, { axis: 1 }),
    (x, i, u) => nd([2, 4], (a, b) => at(x, a, b) + sumOver([3], (k) => (at(i, a, k) === b ? at(u, a, k) : 0))),
  ),
  op(
    "scatterNdAdd: rows repeated",
    [randn([4, 2]), array([3, 1], [1, 3, 1], "int64"), randn([3, 2])],
    ops.scatterNdAdd,
    (x, i, u) => nd([4, 2], (a, b) => at(x, a, b) + sumOver([3], (k) => (at(i, k, 0) === a ? at(u, k, b) : 0))),
  ),
  op(
    "permuteAlong",
    [randn([2, 4, 2])],
    (x) => ops.permuteAlong(x, [2, 0, 3, 1], 1),
    (x) => nd([2, 4, 2], (n, i, c) => at(x, n, [2, 0, 3, 1][i], c)),
  ),
  op(
    "placeAlong",
    [randn([2, 3])],
    (x) => placeAlong(x, 1, 7, 2, 2),
    (x) => nd([2, 7], (i, j) => (j >= 2 && j % 2 === 0 ? at(x, i, j / 2 - 1) : 0)),
  ),
  op(
    "waitFor",
    [randn([2, 3])],
    (x) => waitFor(x, constant(Float32Array.of(Number.NaN), [1], "float32")),
    (x) => x,
  ),
  op("zerosLike", [randn([2, 3])], ops.zerosLike, () => nd([2, 3], () => 0), { wrt: [] }),
  op(
    "stopGradient",
    [randn([3])],
    (x) => ops.stopGradient(x),
    (x) => x,
    { wrt: [] },
  ),
  op(
    "withGradient: a rule that happens to be right",
    [randn([3]), randn([3])],
    ops.withGradient(
      (a, b) => a.mul(b),
      (dy, a, b) => [dy.mul(b), dy.mul(a)],
    ),
    (a, b) => nd([3], (i) => at(a, i) * at(b, i)),
  ),
];
