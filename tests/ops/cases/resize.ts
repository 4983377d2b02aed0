import { type ResizeMode, type ResizeOptions, resize } from "../../../src/ops/index.ts";
import type { HostTensor } from "../../../src/runtime/runtime.ts";
import { at, nd, randn, range, sumOver } from "../../support/arrays.ts";
import { float32, type OpCase, op } from "../../support/cases.ts";

const keys = (d: number): number => {
  const a = -0.75;
  const x = Math.abs(d);
  if (x <= 1) return (a + 2) * x ** 3 - (a + 3) * x ** 2 + 1;
  return x < 2 ? a * x ** 3 - 5 * a * x ** 2 + 8 * a * x - 4 * a : 0;
};

/** How much pixel k counts in place i: PyTorch's rules, pixels outside read at the edge. */
function weight(k: number, i: number, from: number, to: number, mode: ResizeMode, alignCorners: boolean): number {
  if (mode === "nearest") return Number(k === Math.floor((i * from) / to));
  if (mode === "nearest-exact") return Number(k === Math.floor(((i + 0.5) * from) / to));
  const centre = alignCorners ? (to > 1 ? (i * (from - 1)) / (to - 1) : 0) : ((i + 0.5) * from) / to - 0.5;
  const kernel = mode === "linear" ? (d: number) => Math.max(0, 1 - Math.abs(d)) : keys;
  return range(from + 8)
    .map((q) => q - 4)
    .reduce((sum, q) => sum + (Math.min(Math.max(q, 0), from - 1) === k ? kernel(q - centre) : 0), 0);
}

function naive(x: HostTensor, { size, mode = "linear", alignCorners = false }: ResizeOptions): HostTensor {
  const map = x.shape.slice(2);
  return nd([...x.shape.slice(0, 2), ...size], (n, c, ...p) =>
    sumOver(
      map,
      (...q) => at(x, n, c, ...q) * q.reduce((w, k, i) => w * weight(k, p[i], map[i], size[i], mode, alignCorners), 1),
    ),
  );
}

const ways: readonly [map: number[], size: number[]][] = [
  [
    [3, 4],
    [6, 8],
  ],
  [
    [6, 9],
    [2, 3],
  ],
  [
    [5, 4],
    [7, 3],
  ],
  [
    [3, 3],
    [3, 7],
  ],
  [
    [4, 3],
    [1, 1],
  ],
  [[14], [16]],
  [[5], [8]],
  [[30], [9]],
  [
    [8, 12],
    [4, 3],
  ],
  [
    [2, 3, 3],
    [4, 5, 3],
  ],
];
const modes: readonly [ResizeMode, boolean][] = [
  ["nearest", false],
  ["nearest-exact", false],
  ["linear", false],
  ["linear", true],
  ["cubic", false],
  ["cubic", true],
];

const among = modes.flatMap(([mode, alignCorners]) =>
  ways.map(([map, size]) => {
    const options = { size, mode, alignCorners };
    const name = `resize: ${mode}${alignCorners ? " by corners" : ""}, ${map.join("×")} to ${size.join("×")}`;
    return op(
      name,
      [randn([2, 2, ...map])],
      (x) => resize(x, options),
      (x) => naive(x, options),
      float32,
    );
  }),
);

/** [N, C, H, W] -> [N, H, W, C] */
const last = (x: HostTensor): HostTensor => {
  const [n, c, ...map] = x.shape;
  return nd([n, ...map, c], (i, h, w, k) => at(x, i, k, h, w));
};
/** [N, H, W, C] -> [N, C, H, W] */
const second = (x: HostTensor): HostTensor => {
  const [n, height, width, c] = x.shape;
  return nd([n, c, height, width], (i, k, h, w) => at(x, i, h, w, k));
};

/** Between two changes of layout, which the engine moves past it. */
const channelsLast = modes.flatMap(([mode, alignCorners]) =>
  [
    [7, 9],
    [3, 2],
    [10, 8],
  ].map((size) =>
    op(
      `resize: ${mode}${alignCorners ? " by corners" : ""}, channels last, to ${size.join("×")}`,
      [randn([1, 5, 4, 3])],
      (x) => resize(x.permute(0, 3, 1, 2), { size, mode, alignCorners }).permute(0, 2, 3, 1),
      (x) => last(naive(second(x), { size, mode, alignCorners })),
      float32,
    ),
  ),
);

export const cases: OpCase[] = [...among, ...channelsLast];
