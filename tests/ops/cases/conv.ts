import { type ConvOptions, conv, convTranspose } from "../../../src/ops/index.ts";
import type { HostTensor } from "../../../src/runtime/runtime.ts";
import { at, nd, randn, sumOver } from "../../support/arrays.ts";
import { float32, type OpCase, op } from "../../support/cases.ts";

type Options = ConvOptions & { outputPadding?: number | readonly number[] };

/** One number for each axis, and pads as starts, then ends. */
function spelled(spatial: number, { stride = 1, padding = 0, dilation = 1, groups = 1, outputPadding = 0 }: Options) {
  const each = (v: number | readonly number[]): readonly number[] =>
    typeof v === "number" ? new Array<number>(spatial).fill(v) : v;
  const pads = each(padding);
  return {
    strides: each(stride),
    pads: pads.length > spatial ? pads : [...pads, ...pads],
    dilations: each(dilation),
    groups,
    extra: each(outputPadding),
  };
}

/** y[n, o, p] = Σ x[n, c, p·stride + k·dilation - pad] w[o, c, k], over the channels of o's group. */
function naiveConv(x: HostTensor, w: HostTensor, bias: HostTensor | undefined, options: Options): HostTensor {
  const kernel = w.shape.slice(2);
  const { strides, pads, dilations, groups } = spelled(kernel.length, options);
  const map = x.shape.slice(2);
  const sizes = map.map(
    (s, i) => Math.floor((s + pads[i] + pads[i + map.length] - dilations[i] * (kernel[i] - 1) - 1) / strides[i]) + 1,
  );
  const [outC, inC] = w.shape;
  return nd([x.shape[0], outC, ...sizes], (n, o, ...p) => {
    const first = Math.floor(o / (outC / groups)) * inC;
    const sum = sumOver([inC, ...kernel], (c, ...k) => {
      const read = p.map((place, i) => place * strides[i] + k[i] * dilations[i] - pads[i]);
      return read.some((r, i) => r < 0 || r >= map[i]) ? 0 : at(x, n, first + c, ...read) * at(w, o, c, ...k);
    });
    return sum + (bias ? at(bias, o) : 0);
  });
}

/** y[n, o, p·stride + k·dilation - pad] += x[n, c, p] w[c, o, k]: each pixel stamps its kernel. */
function naiveTransposed(x: HostTensor, w: HostTensor, bias: HostTensor | undefined, options: Options): HostTensor {
  const kernel = w.shape.slice(2);
  const { strides, pads, dilations, groups, extra } = spelled(kernel.length, options);
  const map = x.shape.slice(2);
  const sizes = map.map(
    (s, i) => (s - 1) * strides[i] + dilations[i] * (kernel[i] - 1) + 1 + extra[i] - pads[i] - pads[i + map.length],
  );
  const [inC, outC] = w.shape;
  return nd([x.shape[0], outC * groups, ...sizes], (n, o, ...q) => {
    const group = Math.floor(o / outC);
    const sum = sumOver([inC / groups, ...kernel, ...map], (c, ...rest) => {
      const [k, p] = [rest.slice(0, kernel.length), rest.slice(kernel.length)];
      const hit = q.every((place, i) => place === p[i] * strides[i] + k[i] * dilations[i] - pads[i]);
      const channel = group * (inC / groups) + c;
      return hit ? at(x, n, channel, ...p) * at(w, channel, o % outC, ...k) : 0;
    });
    return sum + (bias ? at(bias, o) : 0);
  });
}

const convolution = (what: string, x: number[], w: number[], options: Options = {}): OpCase =>
  op(
    `conv: ${what}`,
    [randn(x), randn(w), randn([w[0]])],
    (x, w, b) => conv(x, w, b, options),
    (x, w, b) => naiveConv(x, w, b, options),
    float32,
  );

const transposed = (what: string, x: number[], w: number[], options: Options = {}): OpCase =>
  op(
    `convTranspose: ${what}`,
    [randn(x), randn(w), randn([w[1] * (options.groups ?? 1)])],
    (x, w, b) => convTranspose(x, w, b, options),
    (x, w, b) => naiveTransposed(x, w, b, options),
    float32,
  );

export const cases: OpCase[] = [
  convolution("3 × 3", [2, 3, 5, 6], [4, 3, 3, 3], { padding: 1 }),
  convolution("1 × 1", [2, 3, 4, 4], [5, 3, 1, 1]),
  convolution("1 × 1 with a stride", [1, 2, 5, 5], [3, 2, 1, 1], { stride: 2 }),
  convolution("1 × 1 with padding", [1, 2, 3, 3], [3, 2, 1, 1], { padding: 1 }),
  convolution("stride 2, a row left over", [2, 2, 6, 7], [3, 2, 3, 3], { stride: 2, padding: 1 }),
  convolution("stride 4, kernel 7", [1, 2, 13, 12], [2, 2, 7, 7], { stride: 4, padding: 2 }),
  convolution("patches", [2, 3, 8, 8], [4, 3, 4, 4], { stride: 4 }),
  convolution("patches, pixels left over", [1, 2, 7, 6], [3, 2, 2, 3], { stride: [2, 3] }),
  convolution("a stride longer than the kernel", [1, 2, 8, 8], [2, 2, 2, 2], { stride: 3 }),
  convolution("dilated", [1, 2, 7, 7], [3, 2, 3, 3], { dilation: 2, padding: 2 }),
  convolution("dilated, with a stride", [1, 2, 9, 8], [3, 2, 3, 3], { dilation: 2, stride: 2, padding: 1 }),
  convolution("dilated as far as the stride", [1, 2, 7, 6], [3, 2, 2, 2], { dilation: 2, stride: 2 }),
  convolution("groups", [2, 4, 5, 5], [6, 2, 3, 3], { groups: 2, padding: 1 }),
  convolution("groups with a stride", [2, 4, 6, 6], [4, 2, 3, 3], { groups: 2, stride: 2, padding: 1 }),
  convolution("groups of patches", [1, 4, 4, 4], [4, 2, 2, 2], { groups: 2, stride: 2 }),
  convolution("depthwise", [2, 3, 5, 5], [3, 1, 3, 3], { groups: 3, padding: 1 }),
  convolution("depthwise, stride 2", [2, 3, 6, 6], [3, 1, 3, 3], { groups: 3, padding: 1, stride: 2 }),
  convolution("depthwise, two outputs a channel", [1, 2, 5, 5], [4, 1, 3, 3], { groups: 2, padding: 1 }),
  convolution("two outputs a channel, stride 2", [1, 3, 6, 5], [6, 1, 3, 3], { groups: 3, padding: 1, stride: 2 }),
  convolution("one long and one short side", [1, 2, 6, 6], [3, 2, 1, 5], { padding: [0, 2] }),
  convolution("padding that differs at each end", [1, 2, 5, 5], [2, 2, 3, 2], { padding: [1, 0, 2, 1] }),
  convolution("padding wider than the kernel", [1, 2, 3, 3], [2, 2, 2, 2], { padding: 2 }),
  convolution("one axis", [2, 3, 8], [4, 3, 3], { padding: 1, stride: 2 }),
  convolution("one axis, depthwise, dilated", [1, 3, 8], [3, 1, 3], { groups: 3, dilation: 2, padding: 2 }),
  convolution("three axes", [1, 2, 4, 4, 5], [3, 2, 3, 3, 3], { padding: 1 }),
  convolution("three axes with a stride", [1, 2, 5, 6, 5], [2, 2, 3, 3, 3], { padding: 1, stride: [1, 2, 2] }),
  convolution("three axes, patches", [1, 3, 4, 4, 4], [2, 3, 2, 4, 4], { stride: [2, 4, 4] }),
  convolution("three axes, depthwise", [1, 2, 3, 4, 4], [2, 1, 3, 3, 3], { groups: 2, padding: 1 }),
  op(
    "conv: no bias",
    [randn([1, 2, 4, 4]), randn([3, 2, 3, 3])],
    (x, w) => conv(x, w),
    (x, w) => naiveConv(x, w, undefined, {}),
    float32,
  ),
  transposed("stride 2", [2, 3, 3, 4], [3, 2, 3, 3], { stride: 2, padding: 1 }),
  transposed("output padding", [1, 2, 3, 3], [2, 3, 3, 3], { stride: 2, padding: 1, outputPadding: 1 }),
  transposed("groups", [2, 4, 3, 3], [4, 3, 3, 3], { stride: 2, padding: 1, outputPadding: [1, 0], groups: 2 }),
  transposed("depthwise", [1, 3, 3, 3], [3, 1, 2, 2], { stride: 2, groups: 3 }),
  transposed("patches", [1, 2, 3, 3], [2, 3, 2, 2], { stride: 2 }),
  transposed("dilated", [1, 2, 3, 3], [2, 2, 3, 3], { dilation: 2, padding: 1 }),
  transposed("dilated as far as the stride", [1, 2, 3, 3], [2, 3, 2, 2], { dilation: 2, stride: 2 }),
  transposed("one axis", [2, 2, 5], [2, 3, 4], { stride: 2, padding: 1 }),
  transposed("three axes", [1, 2, 2, 3, 3], [2, 2, 2, 3, 3], { stride: [1, 2, 2] }),
];
