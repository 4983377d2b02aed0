import type { Tensor } from "../../../src/graph/tensor.ts";
import * as ops from "../../../src/ops/index.ts";
import type { HostTensor } from "../../../src/runtime/runtime.ts";
import { at, nd, randn, sumOver } from "../../support/arrays.ts";
import { type OpCase, op } from "../../support/cases.ts";

const products: readonly [a: number[], b: number[], y: number[]][] = [
  [
    [2, 3],
    [3, 4],
    [2, 4],
  ],
  [
    [5, 2, 3],
    [3, 4],
    [5, 2, 4],
  ],
  [
    [2, 3],
    [5, 3, 4],
    [5, 2, 4],
  ],
  [
    [2, 5, 2, 3],
    [2, 5, 3, 4],
    [2, 5, 2, 4],
  ],
  [
    [2, 1, 2, 3],
    [5, 3, 4],
    [2, 5, 2, 4],
  ],
];
const matmul =
  (shape: readonly number[], inner: number) =>
  (a: HostTensor, b: HostTensor): HostTensor =>
    nd(shape, (...i) => sumOver([inner], (k) => at(a, ...i.with(-1, k)) * at(b, ...i.with(-2, k))));

const both = [false, true];
const gemms = both.flatMap((transA) =>
  both.map((transB) =>
    op(
      `gemm: ${transA ? "aᵀ" : "a"} ${transB ? "bᵀ" : "b"}, scaled`,
      [randn(transA ? [3, 2] : [2, 3]), randn(transB ? [4, 3] : [3, 4]), randn([4])],
      (a, b, c) => ops.gemm(a, b, c, { alpha: 0.5, beta: 2, transA, transB }),
      (a, b, c) =>
        nd([2, 4], (i, j) => {
          const sum = sumOver([3], (k) => (transA ? at(a, k, i) : at(a, i, k)) * (transB ? at(b, j, k) : at(b, k, j)));
          return 0.5 * sum + 2 * at(c, j);
        }),
    ),
  ),
);

const attention = (q: Tensor, k: Tensor): Tensor => ops.einsum("n h q d, n h k d -> n h q k", q, k);

export const cases: OpCase[] = [
  ...products.map(([a, b, y]) =>
    op(`matmul: [${a}] by [${b}]`, [randn(a), randn(b)], (a, b) => ops.matmul(a, b), matmul(y, 3)),
  ),
  ...gemms,
  op("gemm: no c", [randn([2, 3]), randn([3, 4])], (a, b) => ops.gemm(a, b, undefined), matmul([2, 4], 3)),
  op(
    "linear: three axes",
    [randn([2, 3, 4]), randn([5, 4]), randn([5])],
    (x, w, b) => ops.linear(x, w, b),
    (x, w, b) => nd([2, 3, 5], (i, j, o) => sumOver([4], (k) => at(x, i, j, k) * at(w, o, k)) + at(b, o)),
  ),
  op(
    "columnSums",
    [randn([2, 3, 4])],
    (x) => ops.columnSums(x),
    (x) => nd([4], (c) => sumOver([2, 3], (i, j) => at(x, i, j, c))),
  ),
  op("einsum: attention", [randn([2, 2, 3, 4]), randn([2, 2, 5, 4])], attention, (q, k) =>
    nd([2, 2, 3, 5], (n, h, i, j) => sumOver([4], (d) => at(q, n, h, i, d) * at(k, n, h, j, d))),
  ),
  op(
    "einsum: three tensors, an axis of one alone",
    [randn([2, 3]), randn([3, 4]), randn([4, 5])],
    (a, b, c) => ops.einsum("ij,jk,kl->ki", a, b, c),
    (a, b, c) => nd([4, 2], (k, i) => sumOver([3, 5], (j, l) => at(a, i, j) * at(b, j, k) * at(c, k, l))),
  ),
  op(
    "einsum: one tensor turned",
    [randn([2, 3, 4])],
    (x) => ops.einsum("abc->ca", x),
    (x) => nd([4, 2], (c, a) => sumOver([3], (b) => at(x, a, b, c))),
  ),
  ...[0, 1, 2, -1].map((axis) =>
    op(
      `along: axis ${axis}`,
      [randn([3, 3, 3]), randn([2, 3])],
      (x, m) => ops.along(x, axis, m),
      (x, m) => {
        const a = (axis + 3) % 3;
        return nd([3, 3, 3].with(a, 2), (...i) => sumOver([3], (k) => at(m, i[a], k) * at(x, ...i.with(a, k))));
      },
    ),
  ),
];
