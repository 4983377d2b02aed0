import { Graph, rewrite } from "../graph/graph.ts";
import { known } from "../graph/shape.ts";
import type { Node, Tensor } from "../graph/tensor.ts";
import { blockedConv, fromBlocks, toBlocks } from "../ops/contrib.ts";
import { cutToKernel, type KernelAttrs, placesSeen } from "../ops/conv.ts";
import { concat, padAxes } from "../ops/move.ts";

/**
 * Gradients of a convolution's kernel as convolutions themselves, in blocks of `size` channels: images and channels change places, dy
 * is the kernel, stride and dilation are exchanged.  The engine's kernels read fewer than `size` channels as they lie, so images come
 * in groups of half as many; and for each row of the result they read all of dy, so large maps come in groups of rows, too.  Where it
 * is faster than a product for each place of the kernel is in `docs/notes/0004-speed.md`.
 */
export function kernelGradientsInBlocks(graph: Graph, size: number): Graph {
  const outputs = rewrite(graph.outputs, (node, inputs) =>
    node.op.name === "ConvKernelGradient" && pays(node, size)
      ? [drawn(inputs as Tensor[], node.attrs, size)]
      : undefined,
  );
  return new Graph(graph.inputs, outputs);
}

/** The products are faster for maps of so many places, unless x has few channels or a stride would have to be sliced. */
const isMedium = (places: number): boolean => places > 196 && places < 3136;
const few = 32;

function pays({ inputs: [x, dy], attrs }: Node, size: number): boolean {
  const [batch, channels, height, width] = dy!.shape as number[];
  if (dy!.dtype !== "float32" || channels % size !== 0 || !(batch === size / 2 || batch % size === 0)) return false;
  const { strides } = attrs as KernelAttrs;
  return strides.some((s) => s > 1) || !isMedium(height * width) || known(x!.shape[1]) <= few;
}

/** Channels that the kernels sum for at once, and bytes of dy that these may read again and again. */
const atOnce = { channels: 64, bytes: 1e6 };

/** Into how many parts of as many rows dy is cut, so that each stays in the cache: 1 where two would do, or none divide it well. */
function partsOf([batch, channels, height, width]: readonly number[], size: number): number {
  const bytes = 4 * (size / 2) * Math.min(channels, atOnce.channels) * height * width;
  const least = Math.ceil(bytes / atOnce.bytes);
  // Channels of x, an image each in each part, are to fill blocks.
  const isOne = (parts: number): boolean => height % parts === 0 && (parts * batch) % size === 0;
  if (least > 2) for (let parts = least; 2 * parts <= height; parts++) if (isOne(parts)) return parts;
  return 1;
}

function drawn([x, dy]: readonly Tensor[], { kernel, strides, pads, dilations }: KernelAttrs, size: number): Tensor {
  const [batch, outC, height, width] = dy.shape as number[];
  const channels = known(x.shape[1]);
  const images = size / 2;
  const parts = partsOf([batch, outC, height, width], size);
  const rows = height / parts;
  const groups = (parts * batch) / images;
  // Images lie outside of blocks, [N, O / size, H · W · size]; as channels of a kernel they lie within.
  const filter = toBlocks(dy, { channelsLast: false })
    .reshape([batch / images, images, outC / size, parts, rows * width * size])
    .permute(3, 0, 2, 1, 4)
    .reshape([groups * outC, images, rows, width]);
  const padded = padAxes(x.swapAxes(0, 1), { before: [0, 0, ...pads.slice(0, 2)], after: [0, 0, ...pads.slice(2)] });
  const [step, seen] = [rows * strides[0], placesSeen(rows, kernel[0], strides[0], dilations[0])];
  const read = (part: number): Tensor => padded.slice(2, part * step, part * step + seen);
  const map =
    parts === 1
      ? padded
      : concat(
          Array.from({ length: parts }, (_, i) => read(i)),
          1,
        ); // [C, parts · N, H, W]
  const attrs = { strides: dilations, pads: [0, 0, 0, 0], dilations: strides, group: groups };
  // As it lies, channels of x first and blocks within, it is cut, summed and turned in long pieces.
  const made = blockedConv(map, filter, undefined, attrs);
  const [high, wide] = made.shape.slice(2) as number[];
  const lying = made.reshape([channels, groups * (outC / size), high, wide * size]);
  const cut = cutToKernel(lying, [kernel[0], kernel[1] * size]);
  const sum = groups === 1 ? cut : cut.reshape([channels, groups, -1]).sum([1]);
  const outer = sum.reshape([channels, outC / size, -1]).swapAxes(0, 1); // [O / size, C, K · L · size]
  const result = outer.reshape([1, outC, channels, kernel[0] * kernel[1]]);
  return fromBlocks(result, { channelsLast: false }).reshape([outC, channels, ...kernel]);
}
