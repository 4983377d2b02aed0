import { Graph, rewrite } from "../graph/graph.ts";
import { known } from "../graph/shape.ts";
import type { Node, Tensor } from "../graph/tensor.ts";
import { blockedConv, fromBlocks, toBlocks } from "../ops/contrib.ts";
import { cutToKernel, type KernelAttrs } from "../ops/conv.ts";
import { padAxes } from "../ops/move.ts";

/**
 * Gradients of a convolution's kernel as convolutions themselves, in blocks of `size` channels: images and channels change places, dy
 * is the kernel, stride and dilation are exchanged.  The engine's kernels read fewer than `size` channels as they lie, so images come
 * in groups of half as many.  Where it is faster than a product for each place of the kernel is in `docs/notes/0004-speed.md`.
 */
export function kernelGradientsInBlocks(graph: Graph, size: number): Graph {
  const outputs = rewrite(graph.outputs, (node, inputs) =>
    node.op.name === "ConvKernelGradient" && pays(node, size)
      ? [drawn(inputs as Tensor[], node.attrs, size)]
      : undefined,
  );
  return new Graph(graph.inputs, outputs);
}

/** Up to so many places of dy, or channels of x, it is faster than a product for each place of the kernel. */
const most = { places: 196, channels: 32 };

function pays({ inputs: [x, dy], attrs }: Node, size: number): boolean {
  const [batch, channels, height, width] = dy!.shape as number[];
  if (dy!.dtype !== "float32" || channels % size !== 0 || !(batch === size / 2 || batch % size === 0)) return false;
  const { strides } = attrs as KernelAttrs;
  return strides.some((s) => s > 1) || height * width <= most.places || known(x!.shape[1]) <= most.channels;
}

function drawn([x, dy]: readonly Tensor[], { kernel, strides, pads, dilations }: KernelAttrs, size: number): Tensor {
  const [batch, outC, height, width] = dy.shape as number[];
  const channels = known(x.shape[1]);
  const images = size / 2;
  const groups = batch / images;
  // Images lie outside of blocks, [N, O / size, H · W · size]; as channels of a kernel they lie within.
  const filter = toBlocks(dy, { channelsLast: false })
    .reshape([groups, images, outC / size, height * width * size])
    .permute(0, 2, 1, 3)
    .reshape([groups * outC, images, height, width]);
  const padded = padAxes(x.swapAxes(0, 1), { before: [0, 0, ...pads.slice(0, 2)], after: [0, 0, ...pads.slice(2)] });
  const attrs = { strides: dilations, pads: [0, 0, 0, 0], dilations: strides, group: groups };
  // As it lies, channels of x first and blocks within, it is cut, summed and turned in long pieces.
  const made = blockedConv(padded, filter, undefined, attrs);
  const [rows, columns] = made.shape.slice(2) as number[];
  const lying = made.reshape([channels, groups * (outC / size), rows, columns * size]);
  const cut = cutToKernel(lying, [kernel[0], kernel[1] * size]);
  const sum = groups === 1 ? cut : cut.reshape([channels, groups, -1]).sum([1]);
  const outer = sum.reshape([channels, outC / size, -1]).swapAxes(0, 1); // [O / size, C, K · L · size]
  const map = outer.reshape([1, outC, channels, kernel[0] * kernel[1]]);
  return fromBlocks(map, { channelsLast: false }).reshape([outC, channels, ...kernel]);
}
