import * as ops from "../../../src/ops/index.ts";
import type { HostTensor } from "../../../src/runtime/runtime.ts";
import { at, nd, positive, randn, range, sumOver } from "../../support/arrays.ts";
import { float32, type OpCase, op } from "../../support/cases.ts";

const EPS = 1e-3;

/** (x - mean) / √(variance + ε) over the places that share `key`. */
function normalised(x: HostTensor, key: (...i: number[]) => unknown, { centred = true } = {}): HostTensor {
  const groups = new Map<unknown, number[]>();
  nd(x.shape, (...i) => {
    const k = String(key(...i));
    groups.set(k, [...(groups.get(k) ?? []), at(x, ...i)]);
    return 0;
  });
  return nd(x.shape, (...i) => {
    const all = groups.get(String(key(...i))) as number[];
    const mean = centred ? all.reduce((a, b) => a + b) / all.length : 0;
    const variance = all.reduce((sum, v) => sum + (v - mean) ** 2, 0) / all.length;
    return (at(x, ...i) - mean) / Math.sqrt(variance + EPS);
  });
}

const softmax = (x: HostTensor, axis: number): HostTensor =>
  nd(x.shape, (...i) => Math.exp(at(x, ...i)) / sumOver([x.shape[axis]], (k) => Math.exp(at(x, ...i.with(axis, k)))));

/** Scales and shifts by channel. */
const affine = (x: HostTensor, scale: HostTensor, bias: HostTensor): HostTensor =>
  nd(x.shape, (...i) => at(x, ...i) * at(scale, i[1]) + at(bias, i[1]));

/** LayerNormalization works in float64 but hands its statistics to the gradient in float32. */
const statistics = { tolerance: 2e-6 } as const;

export const cases: OpCase[] = [
  op(
    "softmax",
    [randn([2, 5])],
    (x) => ops.softmax(x),
    (x) => softmax(x, 1),
  ),
  op(
    "softmax: a middle axis",
    [randn([2, 3, 4])],
    (x) => ops.softmax(x, { axis: -2 }),
    (x) => softmax(x, 1),
  ),
  ...[
    { of: "fewer values than weights", values: [2, 5, 2] },
    { of: "more values than weights", values: [2, 5, 6] },
    { of: "values that all share", values: [1, 5, 2] },
  ].map(({ of, values }) =>
    op(
      `softmax: the weights of a mean, ${of}`,
      [randn([2, 3, 5]), randn(values)],
      (x, v) => ops.softmax(x).matmul(v),
      (x, v) => {
        const weights = softmax(x, 2);
        const shared = (i: number): number => (values[0] === 1 ? 0 : i);
        return nd([2, 3, values[2]], (i, q, j) => sumOver([5], (k) => at(weights, i, q, k) * at(v, shared(i), k, j)));
      },
    ),
  ),
  op(
    "logSoftmax",
    [randn([2, 5])],
    (x) => ops.logSoftmax(x),
    (x) => nd([2, 5], (...i) => Math.log(at(softmax(x, 1), ...i))),
  ),
  op(
    "logSoftmax: the first axis",
    [randn([3, 2])],
    (x) => ops.logSoftmax(x, { axis: 0 }),
    (x) => nd([3, 2], (...i) => Math.log(at(softmax(x, 0), ...i))),
  ),
  op(
    "layerNorm",
    [randn([2, 3, 5]), randn([5]), randn([5])],
    (x, s, b) => ops.layerNorm(x, s, b, EPS),
    (x, s, b) => {
      const y = normalised(x, (n, l) => [n, l]);
      return nd(x.shape, (n, l, c) => at(y, n, l, c) * at(s, c) + at(b, c));
    },
    statistics,
  ),
  op(
    "layerNorm: two axes, no bias",
    [randn([3, 2, 4]), randn([2, 4])],
    (x, s) => ops.layerNorm(x, s, undefined, EPS),
    (x, s) => {
      const y = normalised(x, (n) => n);
      return nd(x.shape, (n, i, j) => at(y, n, i, j) * at(s, i, j));
    },
    statistics,
  ),
  op(
    "layerNorm: one vector",
    [randn([6]), randn([6]), randn([6])],
    (x, s, b) => ops.layerNorm(x, s, b, EPS),
    (x, s, b) => {
      const y = normalised(x, () => 0);
      return nd(x.shape, (i) => at(y, i) * at(s, i) + at(b, i));
    },
    statistics,
  ),
  ...[
    [4, 3, 2, 2],
    [4, 3],
    [2, 3, 5],
  ].map((shape) =>
    op(
      `batchNorm: [${shape}], given statistics`,
      [randn(shape), randn([3]), randn([3]), randn([3]), positive([3])],
      (x, s, b, m, v) => ops.batchNorm(x, s, b, m, v, { epsilon: EPS }),
      (x, s, b, m, v) =>
        nd(shape, (...i) => ((at(x, ...i) - at(m, i[1])) / Math.sqrt(at(v, i[1]) + EPS)) * at(s, i[1]) + at(b, i[1])),
    ),
  ),
  ...[
    [4, 3, 3, 2],
    [3, 3, 5],
    [5, 3],
  ].map((shape) =>
    op(
      `batchNormTraining: [${shape}]`,
      [randn(shape), randn([3]), randn([3])],
      (x, s, b) => ops.batchNormTraining(x, s, b, EPS).y,
      (x, s, b) =>
        affine(
          normalised(x, (_, c) => c),
          s,
          b,
        ),
    ),
  ),
  ...[
    [2, 3, 3, 4],
    [2, 3, 5],
    [1, 2, 2, 3, 2],
  ].map((shape) =>
    op(
      `instanceNorm: [${shape}]`,
      [randn(shape), randn([shape[1]]), randn([shape[1]])],
      (x, s, b) => ops.instanceNorm(x, s, b, { epsilon: EPS }),
      (x, s, b) =>
        affine(
          normalised(x, (n, c) => [n, c]),
          s,
          b,
        ),
      float32,
    ),
  ),
  ...[1, 2, 4].map((groups) =>
    op(
      `groupNorm: ${groups} groups`,
      [randn([2, 4, 3, 2]), randn([4]), randn([4])],
      (x, s, b) => ops.groupNorm(x, groups, s, b, EPS),
      (x, s, b) =>
        affine(
          normalised(x, (n, c) => [n, Math.floor((c * groups) / 4)]),
          s,
          b,
        ),
      float32,
    ),
  ),
  op(
    "rmsNorm",
    [randn([2, 3, 5]), randn([5])],
    (x, s) => ops.rmsNorm(x, s, EPS),
    (x, s) => {
      const y = normalised(x, (n, l) => [n, l], { centred: false });
      return nd(x.shape, (n, l, c) => at(y, n, l, c) * at(s, c));
    },
  ),
  op(
    "unitNorm",
    [randn([2, 3, 5])],
    (x) => ops.unitNorm(x),
    (x) => {
      const length = (n: number, l: number) => Math.hypot(...range(5).map((c) => at(x, n, l, c)));
      return nd(x.shape, (n, l, c) => at(x, n, l, c) / length(n, l));
    },
  ),
  op(
    "softmax: large numbers do not overflow",
    [nd([1, 4], (_, i) => 1000 + i)],
    (x) => ops.softmax(x),
    () => {
      const total = range(4).reduce((sum, i) => sum + Math.exp(i - 3), 0);
      return nd([1, 4], (_, i) => Math.exp(i - 3) / total);
    },
  ),
  op(
    "logSoftmax: large numbers do not overflow",
    [nd([1, 3], (_, i) => -2000 * i)],
    (x) => ops.logSoftmax(x),
    () => nd([1, 3], (_, i) => -2000 * i),
  ),
];
