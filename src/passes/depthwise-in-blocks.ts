import { Graph, rewrite } from "../graph/graph.ts";
import { isOpen, known } from "../graph/shape.ts";
import { constant, constantData, type Node, type Tensor } from "../graph/tensor.ts";
import { blockedConv, enlargeBlocks, fromBlocks, toBlocks } from "../ops/contrib.ts";
import type { ConvAttrs } from "../ops/conv.ts";
import { columnSums } from "../ops/linalg.ts";
import { concat } from "../ops/move.ts";
import { isOpenMap } from "./convolutions-in-blocks.ts";
import { firstOfEach } from "./places-by-resampling.ts";

/** The largest block of channels of any processor that has them: what it divides, the others' 8 divides too. */
const block = 16;

/**
 * Depthwise convolutions whose weights change, as in training, in the layout of the engine's fastest kernels: the engine itself
 * rearranges only those with constant weights.  For ONNX Runtime on x64 processors; what it draws is for this machine, not for a file.
 */
export function depthwiseInBlocks(graph: Graph): Graph {
  const blocks = new Blocks();
  const outputs = rewrite(graph.outputs, (node, inputs) => {
    const [x, w] = inputs as Tensor[];
    if (isTranspose(node, "0,2,3,1")) {
      const last = blocks.toLast(x);
      return last && [last];
    }
    // A bias's gradient: the map need not be turned round to be summed.
    if (isMapSum(node)) {
      const sums = sumsOfRows(x);
      return sums && [sums];
    }
    if (!isDepthwise(node, x, w)) return undefined;
    const count = imagesToFill(x);
    return count === undefined ? undefined : [blocks.convolve(node, inputs as Tensor[], count)];
  });
  return new Graph(graph.inputs, outputs);
}

/** A depthwise convolution or its adjoint: what it makes, and of what. */
interface Convolution {
  y: Tensor;
  x: Tensor;
  w: Tensor;
  bias?: Tensor;
  attrs: ConvAttrs;
}

/** What of a graph is in blocks. */
class Blocks {
  /** Tensors in blocks, by the padding around them: each is reordered once for all that read it. */
  readonly #reordered = new Map<Tensor, Map<string, Tensor>>();
  /** What convolutions made, and the same in blocks. */
  readonly #blocksOf = new Map<Tensor, Tensor>();
  readonly #masks = new Map<string, Tensor>();

  /** The same result, `count` images side by side where one has too few channels to fill blocks. */
  convolve({ op, attrs, outputs: [y] }: Node, [x, w, bias]: readonly Tensor[], count: number): Tensor {
    const draw = (c: Convolution): Tensor => (op.name === "Conv" ? this.#forward(c) : this.#adjoint(c));
    if (count === 1) return draw({ y, x, w, bias, attrs: attrs as ConvAttrs });
    const beside = (t: Tensor): Tensor =>
      t.reshape([known(t.shape[0]) / count, count * known(t.shape[1]), ...t.shape.slice(2)]);
    const repeat = (t: Tensor): Tensor => concat(new Array<Tensor>(count).fill(t), 0);
    const together = {
      y: beside(y),
      x: beside(x),
      w: repeat(w),
      bias: bias && repeat(bias),
      attrs: { ...(attrs as ConvAttrs), group: count * attrs.group },
    };
    return draw(together).reshape(y.shape);
  }

  #forward({ y, x, w, bias, attrs }: Convolution): Tensor {
    // At the border the kernels make one place at a time: where most places are border, there is to be none.
    const border = known(w.shape[3]) > known(y.shape[3]);
    const kernel = this.#reorder(mapOf(w), none).reshape(w.shape);
    const blocks = border
      ? blockedConv(this.#reorder(x, attrs.pads), kernel, bias, { ...attrs, pads: none })
      : blockedConv(this.#reorder(x, none), kernel, bias, attrs);
    const z = fromBlocks(blocks, { channelsLast: false });
    this.#blocksOf.set(z, blocks);
    return z;
  }

  /** The convolution of the map with zeros where strides stepped over, with the kernel turned round. */
  #adjoint({ y, x, w, bias, attrs }: Convolution): Tensor {
    const { strides, dilations, group } = attrs;
    const kernel = this.#reorder(mapOf(w.flip(2).flip(3)), none).reshape(w.shape);
    const pads = adjointPads(y, x, w, attrs);
    const apart = this.#spreadOut(this.#reorder(x, none), strides);
    const blocks = blockedConv(apart, kernel, bias, { strides: [1, 1], pads, dilations, group });
    return fromBlocks(blocks, { channelsLast: false });
  }

  /** Zeros between the places of a map in blocks: each place is repeated, and its repetitions are masked. */
  #spreadOut(x: Tensor, strides: readonly number[]): Tensor {
    const y = enlargeBlocks(x, { times: strides });
    const [height, width] = y.shape.slice(2).map((d) => known(d));
    const key = `${y.shape.slice(2)}:${strides}`;
    const mask =
      this.#masks.get(key) ?? toBlocks(firstOfEach(strides, [height, width], block), { channelsLast: false });
    this.#masks.set(key, mask);
    const places = block * height * width;
    return y
      .reshape([-1, places])
      .mul(mask.reshape([1, places]))
      .reshape(y.shape);
  }

  /** A map with its channels last, straight from blocks where it has been in them.  [N, H, W, C] */
  toLast(x: Tensor): Tensor | undefined {
    const view = fillsBlocks(x) ? viewed(x) : undefined;
    const blocks = this.#blocksOf.get(x) ?? (view && this.#blocksOf.get(view)?.reshape(x.shape));
    return blocks && fromBlocks(blocks, { channelsLast: true });
  }

  /** A map in blocks, with as many zeros around it. */
  #reorder(x: Tensor, pads: readonly number[]): Tensor {
    const own = this.#reordered.get(x) ?? new Map<string, Tensor>();
    this.#reordered.set(x, own);
    const blocks = own.get(pads.join()) ?? this.#drawBlocks(x, pads);
    own.set(pads.join(), blocks);
    return blocks;
  }

  #drawBlocks(x: Tensor, pads: readonly number[]): Tensor {
    const from = viewed(x);
    if (from) {
      const y = this.#reorder(from, pads);
      return y.reshape([...x.shape.slice(0, 2), ...y.shape.slice(2)]);
    }
    if (pads.some((p) => p > 0)) {
      // A convolution with single ones puts zeros there in all threads: `Pad` uses one.
      const group = known(x.shape[1]);
      const ones = constant(new Float32Array(group).fill(1), [group, 1, 1, 1], "float32");
      return blockedConv(this.#reorder(x, none), ones, undefined, { strides: [1, 1], pads, dilations: [1, 1], group });
    }
    const last = lastBefore(x);
    return toBlocks(last ?? x, { channelsLast: last !== undefined });
  }
}

const isTranspose = ({ op, attrs }: Node, perm: string): boolean =>
  op.name === "Transpose" && (attrs.perm as number[]).join() === perm;

/** A sum over maps of a known number of places: open axes cannot all be merged to rows. */
function isMapSum({ op, attrs, inputs: [x] }: Node): boolean {
  if (op.name !== "ReduceSum" || x!.rank !== 4 || x!.shape.some(isOpen)) return false;
  return (attrs.axes as number[]).join() === "0,2,3" && !attrs.keepdims;
}

/** The sums of a map's channels, where they came last just before, or did in more images of fewer channels.  [C] */
function sumsOfRows(x: Tensor): Tensor | undefined {
  const map = viewed(x) ?? x;
  const last = lastBefore(map);
  return last && columnSums(map === x ? last : last.sum([1, 2]).reshape(x.shape.slice(0, 2)));
}

/** What a map was made of by bringing its channels forward.  [N, C, H, W], of [N, H, W, C] */
const lastBefore = ({ node }: Tensor): Tensor | undefined =>
  isTranspose(node, "0,3,1,2") ? node.inputs[0] : undefined;

/** A convolution over maps, or its adjoint, each channel by a kernel of its own, which the engine would not do as well. */
function isDepthwise({ op, attrs, outputs: [y] }: Node, x: Tensor, w: Tensor): boolean {
  if (!op.name.startsWith("Conv") || op.domain !== "" || w.rank !== 4 || isOpenMap(x)) return false;
  // With constant weights it brings maps into blocks itself, but transposes twice where rows of heads are seen as images.
  const heads = viewed(x);
  if (w.dtype !== "float32" || (constantData(w) && !(heads && lastBefore(heads)))) return false;
  const [outC, inC, ...kernel] = w.shape;
  if (inC !== 1 || outC !== attrs.group || kernel.every((k) => k === 1)) return false;
  return op.name === "Conv" || adjointPads(y, x, w, attrs as ConvAttrs).every((p) => p >= 0);
}

/** The padding with which a convolution over the map whose places lie apart makes what its adjoint does.  Starts, then ends. */
function adjointPads(y: Tensor, x: Tensor, w: Tensor, { strides, pads, dilations }: ConvAttrs): number[] {
  const reach = strides.map((_, i) => dilations[i] * (known(w.shape[i + 2]) - 1));
  const before = reach.map((r, i) => r - pads[i]);
  const after = reach.map((r, i) => known(y.shape[i + 2]) + r - strides[i] * known(x.shape[i + 2]) - before[i]);
  return [...before, ...after];
}

/** How many images have, together, channels that fill blocks; undefined where no number of them does. */
function imagesToFill(x: Tensor): number | undefined {
  const [batch, channels] = [x.shape[0], known(x.shape[1])];
  if (channels % block === 0) return 1;
  if (isOpen(batch)) return undefined;
  for (let count = 2; count <= block; count++)
    if (batch % count === 0 && (count * channels) % block === 0) return count;
  return undefined;
}

const none = [0, 0, 0, 0];

/** Depthwise kernels as a map of as many channels.  [C, 1, K, L] -> [1, C, K, L], or the map that they were made of */
function mapOf(w: Tensor): Tensor {
  const from = viewed(w);
  return from ?? w.reshape([1, w.shape[0], ...w.shape.slice(2)]);
}

const fillsBlocks = ({ shape: [, channels] }: Tensor): boolean => !isOpen(channels) && channels % block === 0;

/** The map that a reshape took for another number of images: its blocks lie in the same order. */
function viewed(x: Tensor): Tensor | undefined {
  const [from] = x.node.inputs;
  const same = x.node.op.name === "Reshape" && from?.rank === 4 && fillsBlocks(from);
  return same && from.shape[2] === x.shape[2] && from.shape[3] === x.shape[3] ? from : undefined;
}
