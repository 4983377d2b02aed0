import { Graph, redraw, rewrite } from "../graph/graph.ts";
import { isOpen, sameShape } from "../graph/shape.ts";
import { constant, type Node, type Tensor } from "../graph/tensor.ts";
import { blockedConv, fromBlocks, toBlocks } from "../ops/contrib.ts";
import { valuesOf } from "./fold.ts";

const activations = new Set("Gelu Relu Sigmoid Tanh HardSigmoid LeakyRelu Softplus Erf Exp Abs Neg".split(" "));

/** Whether a node works on each value alone, in whatever order values lie. */
const isElementwise = ({ op }: Node): boolean => activations.has(op.name) && op.domain === "";

/** Fewer rows than these are not worth the reordering. */
const fewest = 64;

/**
 * Products of rows with constant weights that follow one another, with at most activations between them, as convolutions of single
 * places in blocks of `size` channels: the two layers of an MLP.  On x64 the engine's kernels for these are faster than its `Gemm`,
 * which first fills its whole result with the bias; bringing rows into blocks and back costs more than one product alone gains
 * (`docs/notes/0004-speed.md`).
 */
export function productsInBlocks(graph: Graph, size: number): Graph {
  const chained = new Set<Node>();
  for (const node of graph.nodes) {
    const before = weighs(node, size) && producer(node.inputs[0]!);
    if (before && weighs(before, size)) chained.add(node).add(before);
  }
  /** The same values in blocks, for rows that have been there. */
  const blocked = new Map<Tensor, Tensor>();
  const filters = new Map<Tensor, Tensor>();

  const inBlocks = (x: Tensor): Tensor | undefined => {
    const rows = whereRows(x);
    const found = blocked.get(rows);
    if (found) return found;
    const [width, channels] = rows.shape.slice(-2);
    if (isOpen(width)) return undefined;
    const made = toBlocks(rows.reshape([-1, 1, width, channels]), { channelsLast: true });
    blocked.set(rows, made);
    return made;
  };

  const product = (node: Node, [x, w, bias]: readonly Tensor[]): Tensor | undefined => {
    const map = inBlocks(x);
    if (!map) return undefined;
    const filter = filters.get(w) ?? blockedFilter(w, size);
    filters.set(w, filter);
    const z = blockedConv(map, filter, bias, { strides: [1, 1], pads: [0, 0, 0, 0], dilations: [1, 1], group: 1 });
    const y = fromBlocks(z, { channelsLast: true }).reshape(node.outputs[0].shape);
    blocked.set(whereRows(y), z);
    return y;
  };

  const outputs = rewrite(graph.outputs, (node, inputs) => {
    const [x] = inputs as Tensor[];
    if (isElementwise(node)) {
      const map = blocked.get(whereRows(x));
      if (!map) return undefined;
      // Both are drawn; what nobody reads is in no graph.
      const [y] = redraw(node, inputs);
      blocked.set(y, redraw(node, [map, ...inputs.slice(1)])[0]);
      return [y];
    }
    const y = chained.has(node) ? product(node, inputs as Tensor[]) : undefined;
    return y && [y];
  });
  return new Graph(graph.inputs, outputs);
}

/** Whether a node is x Wᵀ + b as `linear` draws it, with constants whose channels fill blocks, for enough rows. */
function weighs({ op, attrs, inputs: [x, w, bias] }: Node, size: number): boolean {
  const { alpha = 1, beta = 1, transA = false, transB = false } = attrs;
  if (op.name !== "Gemm" || op.domain !== "" || alpha !== 1 || beta !== 1 || transA || !transB) return false;
  const [rows] = x!.shape;
  const fill = w!.shape.every((d) => (d as number) % size === 0);
  // A convolution has a bias for each channel, where a product repeats one number.
  const biased = !bias || sameShape(bias.shape, w!.shape.slice(0, 1));
  return valuesOf(w) !== undefined && biased && fill && (isOpen(rows) || rows >= fewest);
}

/** The node that made what `x` is made of by activations and changes of shape. */
function producer(x: Tensor): Node {
  const { node } = whereRows(x);
  return isElementwise(node) ? producer(node.inputs[0]!) : node;
}

/** What `x` was before it got another shape, as long as its last axis stayed. */
function whereRows(x: Tensor): Tensor {
  let rows = x;
  while (rows.node.op.name === "Reshape" && rows.node.inputs[0]!.shape.at(-1) === x.shape.at(-1))
    rows = rows.node.inputs[0]!;
  return rows;
}

/** Weights in blocks of outputs, in these of channels, in these one channel after the other with its outputs side by side.  [O, C] -> [O, C, 1, 1] */
function blockedFilter(w: Tensor, size: number): Tensor {
  const values = valuesOf(w)!;
  const [outputs, channels] = w.shape as number[];
  const filter = new Float32Array(values.length);
  let at = 0;
  for (let o = 0; o < outputs; o += size)
    for (let c = 0; c < channels; c++) for (let i = 0; i < size; i++) filter[at++] = values[(o + i) * channels + c];
  return constant(filter, [outputs, channels, 1, 1], "float32");
}
