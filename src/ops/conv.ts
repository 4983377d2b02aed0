import { ShapeError, UsageError } from "../base/errors.ts";
import {
  type Dim,
  isCount,
  isOpen,
  known,
  type Shape,
  sameShape,
  showShape,
  sizeForOne,
  staticSize,
} from "../graph/shape.ts";
import type { OnnxForm, Tensor } from "../graph/tensor.ts";
import { defineOp, sameDtype } from "./define.ts";
import { columnSums } from "./linalg.ts";
import { padAxes } from "./move.ts";
import { spreadOver, takePlaces } from "./resize.ts";

/** How a kernel walks over the spatial axes; one number for each of them. `pads` has the starts, then the ends. */
export interface ConvAttrs {
  strides: readonly number[];
  pads: readonly number[];
  dilations: readonly number[];
  group: number;
}

interface TransposedAttrs extends ConvAttrs {
  outputPadding: readonly number[];
}

const form = ({ strides, pads, dilations, group }: ConvAttrs): OnnxForm => ({
  attributes: { strides, pads, dilations, group },
});

/** How many places a kernel of size k takes on an axis. */
export const convSize = (size: number, k: number, stride: number, pads: number, dilation: number): number =>
  Math.floor((size + pads - dilation * (k - 1) - 1) / stride) + 1;

/** How many places of an axis a kernel of size k sees in so many steps, from the first to the last. */
export const placesSeen = (steps: number, k: number, stride: number, dilation: number): number =>
  (steps - 1) * stride + dilation * (k - 1) + 1;

interface Window {
  kernel?: readonly number[];
  strides: readonly number[];
  pads: readonly number[];
  dilations?: readonly number[];
  outputPadding?: readonly number[];
}

/** A window has whole numbers, as many as there are axes, and none that no window could have. */
export function checkWindow(spatial: number, { kernel, strides, pads, dilations, outputPadding }: Window): void {
  const check = (what: string, given: readonly number[] | undefined, least: number, ends = 1): void => {
    if (!given || (given.length === ends * spatial && given.every((n) => Number.isInteger(n) && n >= least))) return;
    throw new ShapeError({
      message: `the ${what} is [${given.join(", ")}] for ${spatial} axes`,
      help: `give a whole number of ${least} or more, or one for each axis${ends > 1 ? ", or for all starts, then all ends" : ""}`,
    });
  };
  check("kernel", kernel, 1);
  check("stride", strides, 1);
  check("padding", pads, 0, 2);
  check("dilation", dilations, 1);
  check("output padding", outputPadding, 0);
}

/** What holds for both directions: axes, windows, dtypes, and a bias for each of the channels that come out. */
function checkConv(x: Tensor, w: Tensor, bias: Tensor | undefined, outC: number, attrs: ConvAttrs): void {
  const spatial = w.rank - 2;
  if (spatial < 1 || x.rank !== w.rank)
    throw new ShapeError(`a ${spatial}-D convolution reads [N, C, ...${spatial} axes] and weights of as many`);
  checkWindow(spatial, attrs);
  if (!isCount(attrs.group)) throw new ShapeError(`there are no ${attrs.group} groups`);
  sameDtype(x, w);
  sameDtype(x, bias);
  if (bias && !sameShape(bias.shape, [outC]))
    throw new ShapeError(`${outC} channels come out, the bias has ${showShape(bias.shape)}`);
}

function convShape(x: Tensor, w: Tensor, bias: Tensor | undefined, attrs: ConvAttrs): Shape {
  const { strides, pads, dilations, group } = attrs;
  const spatial = strides.length;
  const [outC, inC] = w.shape.map((d) => known(d, "an axis of the weights"));
  checkConv(x, w, bias, outC, attrs);
  if (x.shape[1] !== inC * group)
    throw new ShapeError({
      message: `${x.shape[1]} channels came, the weights read ${inC * group} (${group} groups of ${inC})`,
      help: "the weights are [O, C / groups, ...K] for a map [N, C, ...S]",
    });
  if (outC % group !== 0) throw new ShapeError(`${outC} output channels do not divide into ${group} groups`);
  const sizes = strides.map((stride, i) => {
    const [k, padding] = [known(w.shape[i + 2]), pads[i] + pads[i + spatial]];
    if (k === 1 && stride === 1 && padding === 0) return x.shape[i + 2]; // which may be open
    const size = known(x.shape[i + 2], "a spatial axis");
    const out = convSize(size, k, stride, padding, dilations[i]);
    if (out < 1) throw new ShapeError(`a map of ${size} is too small for the kernel`);
    return out;
  });
  return [x.shape[0], outC, ...sizes];
}

/** Multiply-adds of a convolution over one image: each result reads a kernel of its group. */
const convCost = (w: Tensor, map: Shape): number =>
  sizeForOne(w.shape) * sizeForOne(map.slice(2)) * sizeForOne([map[0]]);

/** Convolution, 1-D to 3-D.  x: [N, C, ...S], w: [O, C / group, ...K], bias: [O] -> [N, O, ...S'] */
export const convOp = defineOp<["x", "w", "bias?"], ConvAttrs>({
  onnx: "Conv",
  inputs: ["x", "w", "bias?"],
  infer: ({ x, w, bias }, attrs) => ({ dtype: x.dtype, shape: convShape(x, w, bias, attrs) }),
  vjp: ({ x, w, bias }, dy, { attrs }) => ({
    x: inputGradient(w, dy, { ...attrs, size: sidesOf(x) }),
    w: kernelGradient(x, w, dy, attrs),
    bias: bias ? dy.sum([0, ...attrs.strides.map((_, i) => i + 2)], false) : null,
  }),
  form,
  cost: ([, w], [y]) => convCost(w!, y.shape),
});

/** The adjoint of a convolution.  x: [N, C, ...S], w: [C, O / group, ...K], bias: [O] -> [N, O, ...S'] */
export const convTransposeOp = defineOp<["x", "w", "bias?"], TransposedAttrs>({
  onnx: "ConvTranspose",
  inputs: ["x", "w", "bias?"],
  infer: ({ x, w, bias }, attrs) => {
    const { strides, pads, dilations, group, outputPadding } = attrs;
    checkConv(x, w, bias, known(w.shape[1]) * group, attrs);
    if (x.shape[1] !== w.shape[0]) throw new ShapeError(`${x.shape[1]} channels came, the weights read ${w.shape[0]}`);
    if (known(w.shape[0]) % group !== 0)
      throw new ShapeError(`${w.shape[0]} channels do not divide into ${group} groups`);
    const sizes = strides.map((stride, i) => {
      // Where a kernel is dilated there could be more; the engine takes none of it.
      if (outputPadding[i] >= stride)
        throw new ShapeError({
          message: `an output padding of ${outputPadding[i]} is not less than the stride, ${stride}`,
          help: "take it from the padding at the ends, or pad the result",
        });
      const full = placesSeen(known(x.shape[i + 2], "a spatial axis"), known(w.shape[i + 2]), stride, dilations[i]);
      const size = full + outputPadding[i] - pads[i] - pads[i + strides.length];
      if (size < 1) throw new ShapeError(`the padding leaves nothing of a map of ${full}`);
      return size;
    });
    return { dtype: x.dtype, shape: [x.shape[0], known(w.shape[1]) * group, ...sizes] };
  },
  // It is the adjoint in x of a convolution with the same weights, so the two exchange roles.
  vjp: ({ x, w, bias }, dy, { attrs }) => ({
    x: convOp(dy, w, undefined, convAttrs(attrs)),
    w: kernelGradient(dy, w, x, convAttrs(attrs)),
    bias: bias ? dy.sum([0, ...attrs.strides.map((_, i) => i + 2)], false) : null,
  }),
  form: (attrs) => ({ attributes: { ...form(attrs).attributes, output_padding: attrs.outputPadding } }),
  cost: ([x, w]) => convCost(w!, x!.shape),
});

const convAttrs = ({ strides, pads, dilations, group }: ConvAttrs): ConvAttrs => ({ strides, pads, dilations, group });

/** Whether the patches that a kernel reads neither overlap nor leave a gap. */
const areSideBySide = (kernel: readonly number[], { strides, pads, dilations }: ConvAttrs): boolean =>
  kernel.every((k, i) => k === strides[i] && (k === 1 || dilations[i] === 1)) && pads.every((p) => p === 0);

/** Whether each result is made of one place of the map alone. */
const areSinglePlaces = (kernel: readonly number[], pads: readonly number[]): boolean =>
  kernel.every((k) => k === 1) && pads.every((p) => p === 0);

/** A map's own axes.  [N, C, ...S] -> S */
const sidesOf = (map: Tensor): number[] => map.shape.slice(2).map((d) => known(d, "a spatial axis"));

/** How a kernel walks, and the sizes of the map that it walks over. */
export interface InputAttrs extends ConvAttrs {
  size: readonly number[];
}

/** dx of a convolution.  [O, C / G, ...K], [N, O, ...S'] -> [N, C, ...S] */
function inputGradient(w: Tensor, dy: Tensor, attrs: InputAttrs): Tensor {
  const inMaps = attrs.group === 1 && attrs.size.length === 2 && attrs.strides.every((s) => s === 1);
  return (inMaps ? mapInputGradient : drawnInputGradient)(w, dy, attrs);
}

/**
 * dx of a convolution of maps that takes every step and is not in groups, as one operation: `passes/convolutions-in-blocks.ts` knows a
 * faster way on some processors.  It is linear in both, as `mapKernelGradient` is.
 */
export const mapInputGradient = defineOp<["w", "dy"], InputAttrs>({
  onnx: "ConvInputGradient",
  domain: "oriel",
  inputs: ["w", "dy"],
  infer: ({ w, dy }, { size }) => ({ dtype: dy.dtype, shape: [dy.shape[0], w.shape[1], ...size] }),
  vjp: ({ w, dy }, dx, { attrs: { size: _, ...attrs } }) => ({
    w: kernelGradient(dx, w, dy, attrs),
    dy: convOp(dx, w, undefined, attrs),
  }),
  lower: ({ w, dy }, attrs) => drawnInputGradient(w, dy, attrs),
  cost: ([w, dy]) => convCost(w!, dy!.shape),
});

function drawnInputGradient(w: Tensor, dy: Tensor, { size, ...attrs }: InputAttrs): Tensor {
  const { strides, pads, dilations, group } = attrs;
  const spatial = strides.length;
  const kernel = strides.map((_, i) => known(w.shape[i + 2]));
  if (strides.every((s) => s === 1)) return flippedConv(w, dy, kernel, attrs);
  if (areSideBySide(kernel, attrs) && group === 1) return unpatch(size, w, dy, kernel);
  const everyStep = { ...attrs, strides: strides.map(() => 1) };
  // The places between them were not seen.
  if (areSinglePlaces(kernel, pads)) {
    const seen = inputGradient(w, dy, { ...everyStep, size: sidesOf(dy) });
    return spreadOver(seen, { times: strides, size });
  }
  // WebGPU has no 3-D ConvTranspose, and miscounts in groups that read an even number of channels and make one.
  const miscounted = group > 1 && known(w.shape[1]) === 1 && (known(w.shape[0]) / group) % 2 === 0;
  if (spatial === 3 || miscounted) {
    // Zeros where a stride stepped over; those behind the last place may reach past the end.
    const places = size.map((s, i) => s + pads[i] + pads[i + spatial] - dilations[i] * (kernel[i] - 1));
    return flippedConv(w, spreadOver(dy, { times: strides, size: places }), kernel, everyStep);
  }
  // What the strides stepped over at the end, the transposed convolution must be told.
  const outputPadding = strides.map((stride, i) => {
    return size[i] + pads[i] + pads[i + spatial] - placesSeen(known(dy.shape[i + 2]), kernel[i], stride, dilations[i]);
  });
  return convTransposeOp(dy, w, undefined, { ...attrs, outputPadding });
}

/** With stride 1, the input's gradient is a convolution with the kernel turned around: measured faster than ConvTranspose. */
function flippedConv(w: Tensor, dy: Tensor, kernel: number[], { strides, pads, dilations, group }: ConvAttrs): Tensor {
  const spatial = kernel.length;
  const [outC, inC] = [known(w.shape[0]), known(w.shape[1])];
  let turned = w;
  kernel.forEach((k, i) => {
    if (k > 1) turned = turned.flip(i + 2);
  });
  const swapped =
    group === 1
      ? turned.swapAxes(0, 1)
      : inC === 1 && outC === group
        ? turned
        : turned
            .reshape([group, outC / group, inC, ...kernel])
            .swapAxes(1, 2)
            .reshape([group * inC, outC / group, ...kernel]);
  const around = turnedPads(kernel, { pads, dilations });
  // Where the padding was wider than the kernel reaches, the outermost places saw nothing but padding.
  const seen = kernel.reduce((d, _, i) => {
    const [before, after] = [around[i], around[i + spatial]].map((p) => Math.min(0, p));
    return d.slice(i + 2, -before, known(d.shape[i + 2]) + after);
  }, dy);
  return convOp(seen, swapped, undefined, { strides, pads: around.map((p) => Math.max(0, p)), dilations, group });
}

/** The padding of a kernel that is turned round and takes every step: as far as it reaches, without what padded the map.  Starts, then ends. */
export const turnedPads = (
  kernel: readonly number[],
  { pads, dilations }: Partial<ConvAttrs> & Pick<ConvAttrs, "pads">,
): number[] => pads.map((p, i) => (dilations?.[i % kernel.length] ?? 1) * (kernel[i % kernel.length] - 1) - p);

/** [N, C, ...S] -> [N, ...S, C] */
const channelsLast = (map: Tensor): Tensor => map.permute(0, ...map.shape.slice(2).map((_, i) => i + 2), 1);

/** [N, ...S, C] -> [N, C, ...S] */
const channelsFirst = (x: Tensor): Tensor => x.permute(0, x.rank - 1, ...x.shape.slice(2).map((_, i) => i + 1));

/** dx where patches do not overlap: one product, then patches back to their places. */
function unpatch(size: readonly number[], w: Tensor, dy: Tensor, kernel: readonly number[]): Tensor {
  const [sizes, outC, inC] = [sidesOf(dy), known(w.shape[0]), known(w.shape[1])];
  const weights = w.reshape([outC, inC, -1]).mT.reshape([outC, -1]); // channels last, too
  const patches = channelsLast(dy).reshape([-1, outC]).matmul(weights); // [N · P, O] [O, K · C]
  const map = channelsFirst(joinPatches(patches, { batch: dy.shape[0], sizes, kernel }));
  // Pixels beyond the last patch were never read.
  return sizes.reduce((out, s, i) => out.pad(i + 2, 0, size[i] - s * kernel[i]), map);
}

/** dw of a convolution.  [N, C, ...S], [N, O, ...S'] -> [O, C / group, ...K] */
function kernelGradient(x: Tensor, w: Tensor, dy: Tensor, given: ConvAttrs): Tensor {
  const { strides, group } = given;
  const kernel = strides.map((_, i) => known(w.shape[i + 2]));
  const attrs = { ...given, pads: padsRead(sidesOf(x), sidesOf(dy), kernel, given) };
  if (strides.some((s) => s > 1) && areSinglePlaces(kernel, attrs.pads))
    return kernelGradient(takePlaces(x, { times: strides }), w, dy, { ...attrs, strides: strides.map(() => 1) });
  const [outC, inC] = [known(w.shape[0]), known(w.shape[1])];
  const batch = x.shape[0];
  if (inC === 1 && outC === group && !isOpen(batch)) return depthwiseKernelGradient(x, w, dy, attrs);
  if (areSideBySide(kernel, attrs) && group === 1) {
    // A product for each image makes N matrices to be summed; one for all images first has to bring x and dy in order.
    const positions = areaOf(dy);
    const cheaper = (isOpen(batch) ? 1 : batch) * outC * inC > 2 * positions * (outC + inC);
    if (cheaper || positions === 1 || kernel.some((k) => k > 1)) return patchKernelGradient(x, w, dy, kernel);
  }
  const inMaps = group === 1 && !isOpen(batch) && kernel.length === 2 && kernel.some((k) => k > 1);
  return (inMaps ? mapKernelGradient : denseKernelGradient)(x, dy, { ...attrs, kernel });
}

/**
 * The padding without what strides stepped over at the end.  A gradient that is a convolution with dy as its kernel would find places
 * beyond the kernel there: 4 × 4 for a 3 × 3 kernel that halves an even map.
 */
function padsRead(
  size: readonly number[],
  steps: readonly number[],
  kernel: readonly number[],
  { strides, pads, dilations }: ConvAttrs,
): number[] {
  const spatial = kernel.length;
  return pads.map((pad, at) => {
    if (at < spatial) return pad;
    const i = at - spatial;
    return Math.max(0, placesSeen(steps[i], kernel[i], strides[i], dilations[i]) - size[i] - pads[i]);
  });
}

/** How many places a map has.  [N, C, ...S] */
const areaOf = (map: Tensor): number => staticSize(map.shape.slice(2));

/** The maps of all images side by side; only whole maps move.  [N, C, ...S] -> [C, N · P] */
const beside = (map: Tensor): Tensor =>
  map
    .reshape([map.shape[0], map.shape[1], areaOf(map)])
    .permute(1, 0, 2)
    .reshape([map.shape[1], -1]);

/** dw where patches do not overlap: one product. */
function patchKernelGradient(x: Tensor, w: Tensor, dy: Tensor, kernel: readonly number[]): Tensor {
  if (kernel.every((k) => k === 1)) return beside(dy).matmul(beside(x).mT).reshape(w.shape); // [O, N · P] [N · P, C]
  const [sizes, outC, inC] = [sidesOf(dy), known(w.shape[0]), known(w.shape[1])];
  const read = sizes.reduce((out, s, i) => out.slice(i + 2, 0, s * kernel[i]), x);
  const patches = cutPatches(channelsLast(read), { sizes, kernel });
  const dw = channelsLast(dy).reshape([-1, outC]).mT.matmul(patches); // [O, N · P] [N · P, K · C]
  return dw.reshape([outC, -1, inC]).mT.reshape(w.shape);
}

// Between maps and patches, all with their channels last, rows of k · C numbers move, ten times as fast as single ones.  The last side
// of a patch is one axis with its channels, since the engine would otherwise make one order of this and of what brings channels there.

interface Patches {
  sizes: readonly number[];
  kernel: readonly number[];
}

/** [N, s₁ · k₁, s₂ · k₂, C] -> [N · P, K · C] */
function cutPatches(map: Tensor, { sizes, kernel }: Patches): Tensor {
  const [n, channels] = [sizes.length, known(map.shape[map.rank - 1])];
  const order = [0, ...sizes.map((_, i) => 1 + 2 * i), ...sizes.map((_, i) => 2 + 2 * i)];
  return map
    .reshape([map.shape[0], ...sizes.flatMap((s, i) => [s, kernel[i] * (i === n - 1 ? channels : 1)])])
    .permute(...order)
    .reshape([-1, kernel.reduce((a, b) => a * b, channels)]);
}

/** [N · P, K · C] -> [N, s₁ · k₁, s₂ · k₂, C] */
function joinPatches(patches: Tensor, { batch, sizes, kernel }: Patches & { batch: Dim }): Tensor {
  const [n, area] = [sizes.length, kernel.reduce((a, b) => a * b, 1)];
  const channels = known(patches.shape[1]) / area;
  const order = [0, ...sizes.flatMap((_, i) => [1 + i, 1 + n + i])];
  return patches
    .reshape([batch, ...sizes, ...kernel.with(n - 1, kernel[n - 1] * channels)])
    .permute(...order)
    .reshape([batch, ...sizes.map((s, i) => s * kernel[i]), channels]);
}

/** How a kernel walks, and its size on each axis. */
export interface KernelAttrs extends ConvAttrs {
  kernel: readonly number[];
}

/**
 * dw of a convolution of maps that is not in groups, as one operation: `passes/kernel-gradients-in-blocks.ts` knows a faster way on some
 * processors.  It is linear in both, so its gradients are the convolution and its adjoint with dw in the kernel's place.
 */
export const mapKernelGradient = defineOp<["x", "dy"], KernelAttrs>({
  onnx: "ConvKernelGradient",
  domain: "oriel",
  inputs: ["x", "dy"],
  infer: ({ x, dy }, { kernel }) => ({ dtype: x.dtype, shape: [dy.shape[1], x.shape[1], ...kernel] }),
  vjp: ({ x, dy }, dw, { attrs: { kernel: _, ...attrs } }) => ({
    x: inputGradient(dw, dy, { ...attrs, size: sidesOf(x) }),
    dy: convOp(x, dw, undefined, attrs),
  }),
  lower: ({ x, dy }, attrs) => denseKernelGradient(x, dy, attrs),
  cost: ([, dy], [dw]) => convCost(dw, dy!.shape),
});

/** dw of a convolution that is not depthwise. */
function denseKernelGradient(x: Tensor, dy: Tensor, attrs: KernelAttrs): Tensor {
  const isFew = attrs.group === 1 && known(x.shape[1]) <= stemChannels && !isOpen(x.shape[0]);
  return (isFew ? exchangedKernelGradient : tapsOfKernel)(x, dy, attrs);
}

/** The places of a kernel or window, the last axis fastest. */
export const kernelPlaces = (kernel: readonly number[]): number[][] =>
  kernel.reduce<number[][]>((all, k) => all.flatMap((p) => Array.from({ length: k }, (_, i) => [...p, i])), [[]]);

/** What a place of a kernel reads, at each of its steps, of a map that is padded already.  [N, C, ...S] -> [N, C, ...sizes] */
export const readPlace = (
  map: Tensor,
  place: readonly number[],
  {
    sizes,
    strides,
    dilations,
  }: { sizes: readonly number[]; strides: readonly number[]; dilations?: readonly number[] },
): Tensor =>
  place.reduce((seen, k, i) => {
    const start = k * (dilations?.[i] ?? 1);
    return seen.slice(i + 2, start, start + (sizes[i] - 1) * strides[i] + 1, strides[i]);
  }, map);

/** dw as a product of dy with the slice of x that it read, for each place of the kernel. */
function tapsOfKernel(x: Tensor, dy: Tensor, { kernel, strides, pads, dilations, group }: KernelAttrs): Tensor {
  const spatial = kernel.length;
  const sizes = strides.map((_, i) => known(dy.shape[i + 2]));
  const [batch, channels, outC] = [x.shape[0], known(x.shape[1]), known(dy.shape[1])];
  const positions = areaOf(dy);
  const padded = pads.some((p) => p > 0)
    ? padAxes(x, { before: [0, 0, ...pads.slice(0, spatial)], after: [0, 0, ...pads.slice(spatial)] })
    : x;
  const read = (map: Tensor, place: readonly number[]): Tensor => readPlace(map, place, { sizes, strides, dilations });
  const places = kernelPlaces(kernel);
  const shape = [outC, channels / group, ...kernel];
  // Small maps of all images side by side: larger products, and no sum over images.
  if (group === 1 && !isOpen(batch) && positions <= 256) {
    const [swapped, dyRows] = [padded.swapAxes(0, 1), beside(dy)];
    const tap = (place: readonly number[]): Tensor => dyRows.matmul(read(swapped, place).reshape([channels, -1]).mT);
    return stackLast(places.map(tap)).reshape(shape);
  }
  const groups = (map: Tensor, each: number): Tensor =>
    group === 1 ? map.reshape([batch, each, positions]) : map.reshape([batch, group, each, positions]);
  const dyGroups = groups(dy, outC / group);
  const taps = places.map(
    (place) => columnSums(dyGroups.matmul(groups(read(padded, place), channels / group).mT).reshape([batch, -1])), // [O · C / G]
  );
  return stackLast(taps).reshape(shape);
}

/** Up to as many channels, those of pictures, a kernel's gradient is one convolution. */
const stemChannels = 4;

/**
 * dw where there are few channels, as in a stem: a convolution in which images and channels have changed places and dy is the kernel,
 * with stride and dilation exchanged.  49 slices of 3 channels at 224² and their products take 99 ms, this takes 27.
 */
function exchangedKernelGradient(x: Tensor, dy: Tensor, { kernel, strides, pads, dilations }: KernelAttrs): Tensor {
  const attrs = { strides: dilations, pads, dilations: strides, group: 1 };
  const made = convOp(x.swapAxes(0, 1), dy.swapAxes(0, 1), undefined, attrs); // [C, O, ...K]
  return cutToKernel(made, kernel).swapAxes(0, 1);
}

/** Pixels, not padding, that the stride stepped over at the end make places beyond the kernel. */
export const cutToKernel = (made: Tensor, kernel: readonly number[]): Tensor =>
  kernel.reduce((y, size, i) => y.slice(i + 2, 0, size), made);

/**
 * dw of a depthwise convolution, one convolution itself: each channel of each image is a group, dy is the kernel, with stride and
 * dilation exchanged.  Measured against other forms in `docs/notes/0005-depthwise.md`.
 */
function depthwiseKernelGradient(
  x: Tensor,
  w: Tensor,
  dy: Tensor,
  { strides, pads, dilations, group }: ConvAttrs,
): Tensor {
  const batch = known(x.shape[0], "the batch");
  const maps = x.reshape([1, batch * group, ...x.shape.slice(2)]);
  const kernels = dy.reshape([batch * group, 1, ...dy.shape.slice(2)]);
  const made = convOp(maps, kernels, undefined, { strides: dilations, pads, dilations: strides, group: batch * group });
  // [1, N · C, ...K]
  return cutToKernel(
    made,
    w.shape.slice(2).map((d) => known(d)),
  )
    .reshape([batch, ...w.shape])
    .sum([0]);
}

/** Puts the kernel's places last, where the weights have them. */
const stackLast = (taps: readonly Tensor[]): Tensor =>
  taps.length === 1 ? taps[0] : concatLast(taps.map((tap) => tap.unsqueeze(-1)));
const concatLast = (xs: readonly Tensor[]): Tensor => xs[0].concat(xs.slice(1), -1);

/** A size for each spatial axis from one number or a list. */
export function eachAxis(value: number | readonly number[], spatial: number): number[] {
  if (typeof value === "number") return Array.from({ length: spatial }, () => value);
  if (!Array.isArray(value))
    throw new UsageError(`a kernel, stride, padding or dilation is a number or a list of them, not ${value}`);
  return [...value];
}

export interface ConvOptions {
  stride?: number | readonly number[];
  /** The same at both ends, or starts then ends. */
  padding?: number | readonly number[];
  dilation?: number | readonly number[];
  groups?: number;
}

/** TensorFlow's padding for a map of ⌈S / stride⌉: what is odd goes to the end.  Starts, then ends. */
export function samePadding(
  size: readonly number[],
  kernel: number | readonly number[],
  stride: number | readonly number[] = 1,
): number[] {
  const sides = eachAxis(kernel, size.length);
  const missing = eachAxis(stride, size.length).map((by, i) =>
    Math.max(0, (Math.ceil(size[i] / by) - 1) * by + sides[i] - size[i]),
  );
  return [...missing.map((m) => m >> 1), ...missing.map((m) => m - (m >> 1))];
}

export function normalConv(
  spatial: number,
  { stride = 1, padding = 0, dilation = 1, groups = 1 }: ConvOptions,
): ConvAttrs {
  const pads = eachAxis(padding, spatial);
  return {
    strides: eachAxis(stride, spatial),
    pads: pads.length === spatial ? [...pads, ...pads] : pads,
    dilations: eachAxis(dilation, spatial),
    group: groups,
  };
}

/** Convolution over as many axes as the weights have.  x: [N, C, ...S], w: [O, C / groups, ...K], bias: [O] -> [N, O, ...S'] */
export function conv(x: Tensor, w: Tensor, bias?: Tensor, options: ConvOptions = {}): Tensor {
  return convOp(x, w, bias, normalConv(w.rank - 2, options));
}

/** Transposed convolution.  x: [N, C, ...S], w: [C, O / groups, ...K], bias: [O] -> [N, O, ...S'] */
export function convTranspose(
  x: Tensor,
  w: Tensor,
  bias?: Tensor,
  { outputPadding = 0, ...options }: ConvOptions & { outputPadding?: number | readonly number[] } = {},
): Tensor {
  const spatial = w.rank - 2;
  return convTransposeOp(x, w, bias, {
    ...normalConv(spatial, options),
    outputPadding: eachAxis(outputPadding, spatial),
  });
}

/** The number of channels, known. */
export const channelsOf = (x: Tensor): number => known(x.shape[1] as Dim, "the channel axis");
