import {
  adaptiveAveragePool,
  averagePool,
  globalAveragePool,
  maxPool,
  type PoolOptions,
} from "../../../src/ops/index.ts";
import type { HostTensor } from "../../../src/runtime/runtime.ts";
import { apart, at, nd, randn, range, sumOver } from "../../support/arrays.ts";
import { float32, type OpCase, op } from "../../support/cases.ts";

/** What each window reads, by PyTorch's rules; undefined for padding. */
function windows(x: HostTensor, { kernel, stride = kernel, padding = 0, ceilMode }: PoolOptions) {
  const map = x.shape.slice(2);
  const each = (v: number | readonly number[]): readonly number[] => (typeof v === "number" ? map.map(() => v) : v);
  const [k, s] = [each(kernel), each(stride)];
  const p = typeof padding === "number" ? map.map(() => padding) : padding;
  const end = (i: number): number => p[p.length > map.length ? i + map.length : i];
  const sizes = map.map((size, i) => {
    const steps = (size + p[i] + end(i) - k[i]) / s[i];
    const count = (ceilMode ? Math.ceil(steps) : Math.floor(steps)) + 1;
    return ceilMode && (count - 1) * s[i] >= size + p[i] ? count - 1 : count;
  });
  const read = (n: number, c: number, ...at_: number[]): { values: number[]; counted: number } => {
    const values: number[] = [];
    let counted = 0;
    sumOver(k, (...offset) => {
      const place = at_.map((o, i) => o * s[i] - p[i] + offset[i]);
      if (place.every((q, i) => q < map[i] + end(i))) counted++;
      if (place.every((q, i) => q >= 0 && q < map[i])) values.push(at(x, n, c, ...place));
      return 0;
    });
    return { values, counted };
  };
  return { shape: [x.shape[0], x.shape[1], ...sizes], read };
}

const largest = (x: HostTensor, options: PoolOptions): HostTensor => {
  const { shape, read } = windows(x, options);
  return nd(shape, (n, c, ...p) => Math.max(...read(n, c, ...p).values));
};
const mean = (
  x: HostTensor,
  { countPadding = true, ...options }: PoolOptions & { countPadding?: boolean },
): HostTensor => {
  const { shape, read } = windows(x, options);
  return nd(shape, (n, c, ...p) => {
    const { values, counted } = read(n, c, ...p);
    return values.reduce((a, b) => a + b, 0) / (countPadding ? counted : values.length);
  });
};

/** Short, so that no step changes which element is the largest; the gradient goes back by ConvTranspose, in float32. */
const smallStep = { dtype: "float32", step: 3e-3 } as const;

const ways: readonly [what: string, shape: number[], options: PoolOptions][] = [
  ["windows side by side", [2, 3, 4, 6], { kernel: 2 }],
  ["pixels left over", [1, 2, 5, 7], { kernel: 2 }],
  ["the last window cut short", [1, 2, 5, 7], { kernel: 2, ceilMode: true }],
  ["overlapping, padded", [2, 2, 6, 6], { kernel: 3, stride: 2, padding: 1 }],
  ["overlapping, padded, cut short", [1, 2, 6, 5], { kernel: 3, stride: 2, padding: 1, ceilMode: true }],
  [
    "a window that would start in the padding is left out",
    [1, 1, 5, 5],
    { kernel: 2, stride: 3, padding: 1, ceilMode: true },
  ],
  ["a stride longer than the window", [1, 2, 7, 8], { kernel: 2, stride: 3 }],
  ["side by side, padded", [1, 2, 6, 5], { kernel: 3, padding: 1, ceilMode: true }],
  ["an even number of places, overlapping", [1, 2, 6, 5], { kernel: [2, 3], stride: [1, 2] }],
  ["stride 1", [1, 2, 4, 4], { kernel: 3, stride: 1, padding: 1 }],
  ["sides that differ", [1, 2, 4, 6], { kernel: [1, 3], stride: [1, 2], padding: [0, 1] }],
  ["one axis", [2, 2, 7], { kernel: 3, stride: 2, padding: 1 }],
  ["three axes", [1, 2, 4, 4, 5], { kernel: [1, 2, 2], stride: [1, 2, 2] }],
  ["three axes, overlapping", [1, 1, 4, 5, 4], { kernel: 3, stride: 2, padding: 1 }],
];

/** From ⌊iS/S'⌋ to ⌈(i+1)S/S'⌉. */
const spanned = (i: number, from: number, to: number): number[] =>
  range(from).filter((k) => k >= Math.floor((i * from) / to) && k < Math.ceil(((i + 1) * from) / to));

export const cases: OpCase[] = [
  ...ways.map(([what, shape, options]) =>
    op(
      `maxPool: ${what}`,
      [apart(shape)],
      (x) => maxPool(x, options),
      (x) => largest(x, options),
      smallStep,
    ),
  ),
  ...ways.flatMap(([what, shape, options]) =>
    [true, false].map((countPadding) =>
      op(
        `averagePool: ${what}${countPadding ? "" : ", padding not counted"}`,
        [randn(shape)],
        (x) => averagePool(x, { ...options, countPadding }),
        (x) => mean(x, { ...options, countPadding }),
        float32,
      ),
    ),
  ),
  op(
    "globalAveragePool",
    [randn([2, 3, 4, 5])],
    (x) => globalAveragePool(x),
    (x) => mean(x, { kernel: [4, 5] }),
    float32,
  ),
  op(
    "adaptiveAveragePool: divides",
    [randn([1, 2, 4, 6])],
    (x) => adaptiveAveragePool(x, [2, 2]),
    (x) => mean(x, { kernel: [2, 3] }),
    float32,
  ),
  op(
    "adaptiveAveragePool: does not",
    [randn([1, 2, 5, 4])],
    (x) => adaptiveAveragePool(x, [3, 6]),
    (x) =>
      nd([1, 2, 3, 6], (n, c, i, j) => {
        const [rows, columns] = [spanned(i, 5, 3), spanned(j, 4, 6)];
        return (
          rows.flatMap((h) => columns.map((w) => at(x, n, c, h, w))).reduce((a, b) => a + b) /
          (rows.length * columns.length)
        );
      }),
  ),
];
