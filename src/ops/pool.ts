import { dataOf } from "../graph/dtype.ts";
import { known, type Shape, staticSize } from "../graph/shape.ts";
import { constant, type OnnxForm, scalar, type Tensor } from "../graph/tensor.ts";
import { cast, equal } from "./compare.ts";
import { channelsOf, convSize, convTransposeOp, eachAxis } from "./conv.ts";
import { defineOp } from "./define.ts";

interface PoolAttrs {
  kernel: readonly number[];
  strides: readonly number[];
  /** Starts, then ends. */
  pads: readonly number[];
  ceilMode?: boolean;
}

function poolShape(x: Tensor, { kernel, strides, pads, ceilMode }: PoolAttrs): Shape {
  const spatial = kernel.length;
  const sizes = kernel.map((k, i) => {
    const size = known(x.shape[i + 2], "a pooled axis");
    const floor = convSize(size, k, strides[i], pads[i] + pads[i + spatial], 1);
    const remains = size + pads[i] + pads[i + spatial] - ((floor - 1) * strides[i] + k);
    // A window that would start inside the padding at the end is left out, as in PyTorch.
    return ceilMode && remains > 0 && floor * strides[i] < size + pads[i] ? floor + 1 : floor;
  });
  return [x.shape[0], x.shape[1], ...sizes];
}

const form = ({ kernel, strides, pads, ceilMode }: PoolAttrs): OnnxForm => ({
  attributes: { kernel_shape: kernel, strides, pads, ceil_mode: ceilMode ? 1 : 0 },
});

/** Puts what each place of a window contributes back where it was read.  [N, C·K, ...S'] -> [N, C, ...S] */
function unpool(taps: Tensor, weights: Tensor, x: Tensor, { kernel, strides, pads }: PoolAttrs): Tensor {
  const spatial = kernel.length;
  const outputPadding = kernel.map(
    (k, i) => known(x.shape[i + 2]) + pads[i] + pads[i + spatial] - ((known(taps.shape[i + 2]) - 1) * strides[i] + k),
  );
  // ConvTranspose takes no negative padding: what a ceiling reached beyond the map is cut off afterwards.
  const full = convTransposeOp(taps, weights, undefined, {
    strides,
    pads,
    dilations: kernel.map(() => 1),
    group: channelsOf(x),
    outputPadding: outputPadding.map((p) => Math.max(0, p)),
  });
  return outputPadding.reduce((out, p, i) => (p < 0 ? out.slice(i + 2, 0, known(x.shape[i + 2])) : out), full);
}

/** The largest of each window.  [N, C, ...S] -> [N, C, ...S'] */
export const maxPoolOp = defineOp<["x"], PoolAttrs>({
  onnx: "MaxPool",
  inputs: ["x"],
  infer: ({ x }, attrs) => ({ dtype: x.dtype, shape: poolShape(x, attrs) }),
  form,
  // The first place of a window that holds its maximum takes the gradient.  WebGPU's MaxPool gives no places, so they are found
  // by comparing each shifted view of x with y.
  vjp: ({ x }, dy, { y, attrs }) => {
    const { kernel, strides, pads } = attrs;
    const spatial = kernel.length;
    const sizes = kernel.map((_, i) => known(y.shape[i + 2]));
    let padded = x;
    kernel.forEach((k, i) => {
      const reach = (sizes[i] - 1) * strides[i] + k;
      const after = Math.max(pads[i + spatial], reach - known(x.shape[i + 2]) - pads[i]);
      padded = padded.pad(i + 2, pads[i], after, { value: -3e38 });
    });
    const places = staticSize(kernel);
    const taken: Tensor[] = [];
    let free: Tensor | undefined;
    for (let place = 0; place < places; place++) {
      let view = padded;
      let rest = place;
      for (let i = spatial - 1; i >= 0; i--) {
        const k = rest % kernel[i];
        rest = Math.floor(rest / kernel[i]);
        view = view.slice(i + 2, k, k + (sizes[i] - 1) * strides[i] + 1, strides[i]);
      }
      const hit = cast(equal(view, y), { to: x.dtype });
      taken.push((free ? hit.mul(free) : hit).mul(dy).unsqueeze(2));
      const miss = scalar(1, x.dtype).sub(hit);
      free = free ? free.mul(miss) : miss;
    }
    const channels = channelsOf(x);
    const taps = taken[0].concat(taken.slice(1), 2).reshape([x.shape[0], channels * places, ...sizes]);
    const identity = new Float32Array(channels * places * places);
    for (let c = 0; c < channels * places; c++) identity[c * places + (c % places)] = 1;
    const weights = constant(dataOf(x.dtype, identity), [channels * places, 1, ...kernel], x.dtype);
    return { x: unpool(taps, weights, x, attrs) };
  },
});

interface AverageAttrs extends PoolAttrs {
  /** Whether padding counts in the average. */
  countPadding: boolean;
}

/** The mean of each window.  [N, C, ...S] -> [N, C, ...S'] */
export const averagePoolOp = defineOp<["x"], AverageAttrs>({
  onnx: "AveragePool",
  inputs: ["x"],
  infer: ({ x }, attrs) => ({ dtype: x.dtype, shape: poolShape(x, attrs) }),
  form: (attrs) => ({ attributes: { ...form(attrs).attributes, count_include_pad: attrs.countPadding ? 1 : 0 } }),
  vjp: ({ x }, dy, { y, attrs }) => {
    const { kernel } = attrs;
    const counts = constant(dataOf(x.dtype, windowSizes(x.shape, y.shape, attrs)), known2(y.shape), x.dtype);
    const channels = channelsOf(x);
    const ones = constant(
      dataOf(x.dtype, new Float32Array(channels * staticSize(kernel)).fill(1)),
      [channels, 1, ...kernel],
      x.dtype,
    );
    return { x: unpool(dy.div(counts), ones, x, attrs) };
  },
});
const known2 = (shape: Shape): number[] => [1, 1, ...shape.slice(2).map((d) => known(d))];

/** How many elements each window averages. */
function windowSizes(x: Shape, y: Shape, { kernel, strides, pads, countPadding }: AverageAttrs): Float64Array {
  const spatial = kernel.length;
  let sizes = [1];
  kernel.forEach((k, i) => {
    const size = known(x[i + 2]);
    const along = Array.from({ length: known(y[i + 2]) }, (_, o) => {
      const start = o * strides[i] - pads[i];
      const end = Math.min(start + k, size + pads[i + spatial]);
      return countPadding ? end - start : Math.min(end, size) - Math.max(start, 0);
    });
    sizes = sizes.flatMap((a) => along.map((b) => a * b));
  });
  return Float64Array.from(sizes);
}

export interface PoolOptions {
  kernel: number | readonly number[];
  /** By default the kernel's size. */
  stride?: number | readonly number[];
  padding?: number | readonly number[];
  ceilMode?: boolean;
}

function normalPool(x: Tensor, { kernel, stride = kernel, padding = 0, ceilMode = false }: PoolOptions): PoolAttrs {
  const spatial = x.rank - 2;
  const pads = eachAxis(padding, spatial);
  return {
    kernel: eachAxis(kernel, spatial),
    strides: eachAxis(stride, spatial),
    pads: pads.length === spatial ? [...pads, ...pads] : pads,
    ceilMode,
  };
}

/** The largest of each window.  [N, C, ...S] -> [N, C, ...S'] */
export const maxPool = (x: Tensor, options: PoolOptions): Tensor => maxPoolOp(x, normalPool(x, options));

/** The mean of each window; padding counts unless told otherwise, as in PyTorch.  [N, C, ...S] -> [N, C, ...S'] */
export const averagePool = (x: Tensor, options: PoolOptions & { countPadding?: boolean }): Tensor =>
  averagePoolOp(x, { ...normalPool(x, options), countPadding: options.countPadding ?? true });
