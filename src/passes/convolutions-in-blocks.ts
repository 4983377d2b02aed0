import { Graph, rewrite } from "../graph/graph.ts";
import { isOpen, known, type Shape } from "../graph/shape.ts";
import { constantData, type Tensor } from "../graph/tensor.ts";
import { blockedConv, fromBlocks, toBlocks } from "../ops/contrib.ts";
import { type ConvAttrs, type InputAttrs, turnedPads } from "../ops/conv.ts";

/** Channels of the blocks whose kernels are faster than a product. */
export const wide = 16;

/** Places of a map up to which a convolution of single places gains by such blocks what bringing its maps there costs. */
const fewPlaces = 196;

/**
 * Convolutions whose weights change, as in training, and their gradients by the input in blocks of `size` channels, the layout of the
 * engine's fastest kernels: it rearranges only constant weights by itself.  Where it pays is in `docs/notes/0004-speed.md`.
 */
export function convolutionsInBlocks(graph: Graph, size: number): Graph {
  const reordered = new Map<Tensor, Tensor>();
  const inBlocks = (x: Tensor): Tensor => {
    const made = reordered.get(x) ?? toBlocks(x, { channelsLast: false });
    reordered.set(x, made);
    return made;
  };
  const convolve = (map: Tensor, kernel: Tensor, bias: Tensor | undefined, attrs: ConvAttrs): Tensor[] => [
    fromBlocks(blockedConv(map, kernel, bias, attrs), { channelsLast: false }),
  ];

  const outputs = rewrite(graph.outputs, ({ op, attrs, outputs: [y] }, inputs) => {
    if (op.name === "Conv" && op.domain === "") {
      const [x, w, bias] = inputs as Tensor[];
      if (attrs.group > 1 || constantData(w) || [x, y].some(isOpenMap)) return undefined;
      if (isStem(w, size)) return convolve(x, stemInBlocks(w), bias, attrs as ConvAttrs);
      return pays(w, y.shape, size)
        ? convolve(inBlocks(x), kernelInBlocks(w, size), bias, attrs as ConvAttrs)
        : undefined;
    }
    if (op.name === "ConvInputGradient") {
      const [w, dy] = inputs as Tensor[];
      const { size: _, ...walk } = attrs as InputAttrs;
      const pads = turnedPads(w.shape.slice(2) as number[], walk);
      if (pads.some((p) => p < 0) || !pays(w, y.shape, size)) return undefined;
      return convolve(inBlocks(dy), turnedKernelInBlocks(w, size), undefined, { ...walk, pads });
    }
    return undefined;
  });
  return new Graph(graph.inputs, outputs);
}

/** Whether height or width are known only while the graph runs. */
export const isOpenMap = ({ shape }: Tensor): boolean => shape.slice(2).some(isOpen);

/** Whether channels fill blocks, and there is more to compute than to reorder.  w: [O, C, K, L], map: what comes out */
function pays({ dtype, shape }: Tensor, map: Shape, size: number): boolean {
  if (dtype !== "float32" || shape.length !== 4) return false;
  const [outC, inC, ...kernel] = shape as number[];
  const [height, width] = map.slice(2) as number[];
  if (outC % size !== 0 || inC % size !== 0) return false;
  return kernel.some((k) => k > 1) || (size >= wide && height * width <= fewPlaces);
}

/** Weights as the kernels read them: for each block of outputs and each of inputs, [K · L, input, output].  [O, C, K, L] */
export function kernelInBlocks(w: Tensor, size: number): Tensor {
  const [outC, inC, ...kernel] = w.shape as number[];
  const places = kernel[0] * kernel[1];
  const outputs = toBlocks(w.reshape([1, outC, inC, places]), { channelsLast: false });
  if (places === 1) return outputs.reshape(w.shape);
  return outputs
    .reshape([outC / size, inC / size, size, places, size])
    .swapAxes(2, 3)
    .reshape(w.shape);
}

/** The same of the kernel that makes dx of dy: its places turned round, its channels exchanged.  [O, C, K, L] -> [C, O, K, L] */
export function turnedKernelInBlocks(w: Tensor, size: number): Tensor {
  const [outC, inC, ...kernel] = w.shape as number[];
  const places = kernel[0] * kernel[1];
  if (places === 1) return toBlocks(w.reshape([1, outC, 1, inC]), { channelsLast: true }).reshape([inC, outC, 1, 1]);
  return toBlocks(w, { channelsLast: false })
    .reshape([outC / size, size, inC / size, places, size])
    .permute(2, 0, 3, 1, 4)
    .reshape([(inC / size) * (outC / size), places, size * size])
    .flip(1)
    .reshape([inC, outC, ...kernel]);
}

/** Whether pictures are read, whose few channels the kernels take as they lie. */
const isStem = ({ dtype, shape }: Tensor, size: number): boolean =>
  dtype === "float32" && shape.length === 4 && known(shape[0]) % size === 0 && known(shape[1]) < size / 2;

/** Weights of a stem as the kernels read them: for each block of outputs, [input, K · L, output].  [O, C, K, L] */
const stemInBlocks = (w: Tensor): Tensor =>
  toBlocks(w.reshape([1, w.shape[0], -1, 1]), { channelsLast: false }).reshape(w.shape);
