import type { DType } from "../../../src/graph/dtype.ts";
import { constant } from "../../../src/graph/tensor.ts";
import * as ops from "../../../src/ops/index.ts";
import type { HostTensor } from "../../../src/runtime/runtime.ts";
import { array, at, ints, nd, randn } from "../../support/arrays.ts";
import { type OpCase, op } from "../../support/cases.ts";
import type { Drawing } from "../../support/check.ts";

const few = array([2, 3], [1, 2, 3, 3, 2, 1]);
const row = array([3], [1, 2, 2]);
const flags = array([2, 1], [1, 0], "bool");

const comparison = (name: string, draw: Drawing, holds: (a: number, b: number) => boolean): OpCase =>
  op(name, [few, row], draw, (a, b) => nd([2, 3], (...i) => Number(holds(at(a, ...i), at(b, ...i))), "bool"), {
    wrt: [],
  });

const casts: readonly [from: HostTensor, to: DType][] = [
  [array([4], [-1.5, 0, 0.5, 2.9]), "int32"],
  [array([3], [0, 0.5, -2]), "bool"],
  [ints([3], [-1, 0, 7]), "float32"],
  [array([2], [1, 0], "bool"), "float32"],
  [array([2], [3, 200], "uint8"), "float32"],
  [array([2], [3, 200]), "uint8"],
];
const converted = (x: number, to: DType): number =>
  to === "bool" ? Number(x !== 0) : to.startsWith("float") ? x : Math.trunc(x);

export const cases: OpCase[] = [
  comparison("equal", ops.equal, (a, b) => a === b),
  comparison("greater", ops.greater, (a, b) => a > b),
  comparison("greaterOrEqual", ops.greaterOrEqual, (a, b) => a >= b),
  comparison("less", ops.less, (a, b) => a < b),
  comparison("lessOrEqual", ops.lessOrEqual, (a, b) => a <= b),
  op("and", [flags, array([2], [1, 0], "bool")], ops.and, (a, b) =>
    nd([2, 2], (i, j) => at(a, i, j) * at(b, i, j), "bool"),
  ),
  op("not", [flags], ops.not, (a) => nd([2, 1], (...i) => 1 - at(a, ...i), "bool")),
  ...casts.map(([x, to]) =>
    op(
      `cast: ${x.dtype} to ${to}`,
      [x],
      (x) => ops.cast(x, { to }),
      (x) => nd(x.shape, (i) => converted(at(x, i), to), to),
      { wrt: [] },
    ),
  ),
  op(
    "cast: a gradient passes between float types",
    [array([3], [0.5, -2, 7])],
    (x) => ops.cast(ops.cast(x, { to: "float32" }), { to: x.dtype }),
    (x) => x,
    {
      dtype: "float64",
      tolerance: 1e-3,
    },
  ),
  op("where: everything broadcasts", [flags, randn([3]), randn([4, 1, 1])], ops.where, (c, a, b) =>
    nd([4, 2, 3], (n, i, j) => (at(c, i, 0) ? at(a, j) : at(b, n, 0, 0))),
  ),
  op(
    "oneHot",
    [ints([2, 2], [0, 2, 1, 0])],
    (labels) => ops.oneHot(labels, 3),
    (labels) => nd([2, 2, 3], (i, j, k) => Number(at(labels, i, j) === k), "float32"),
  ),
  op(
    "where: a constant condition",
    [randn([2])],
    (x) => ops.where(constant(Uint8Array.of(1, 0), [2], "bool"), x, x.mul(2)),
    (x) => nd([2], (i) => at(x, i) * (i + 1)),
  ),
];
