import { Graph, redraw, rewrite } from "../graph/graph.ts";
import { type Dim, isOpen, known, type Shape, sameShape, sizeOf, staticSize } from "../graph/shape.ts";
import { constant, constantData, type Node, type Tensor } from "../graph/tensor.ts";
import { blockedConv, fromBlocks, toBlocks } from "../ops/contrib.ts";
import { kernelInBlocks, turnedKernelInBlocks, wide } from "./convolutions-in-blocks.ts";
import { valuesOf } from "./fold.ts";

/** Operations that work on each value alone, in whatever order values lie; of zeros and biases they make finite numbers. */
const onEachValue = new Set(
  "Add Sub Mul Gelu Relu Sigmoid Tanh HardSigmoid HardSwish LeakyRelu Softplus Erf Exp Abs Neg".split(" "),
);

/** Fewer rows than these are not worth the reordering: of rows and, where weights change, in every run of weights. */
const leastRows = { constant: 64, changing: 256 };

const singlePlaces = { strides: [1, 1], pads: [0, 0, 0, 0], dilations: [1, 1], group: 1 };

/**
 * Products of rows with weights that follow one another, with nothing between them but what works on each value alone, as convolutions
 * of single places in blocks of `size` channels: the two layers of an MLP, and in training the gradients of their inputs and weights.
 * On x64 the engine's kernels for these are faster than its `Gemm`; bringing rows into blocks and back costs more than one product
 * alone gains (`docs/notes/0004-speed.md`).
 */
export function productsInBlocks(graph: Graph, size: number): Graph {
  const { chained, sums } = findChains(graph, size);
  const layout = sums.size > 0 ? oneMap(size) : mapsByRows;
  /** The same values in blocks, for rows that have been there. */
  const maps = new Map<Tensor, Tensor>();
  const filters = { plain: new Map<Tensor, Tensor>(), turned: new Map<Tensor, Tensor>() };

  const mapOf = (x: Tensor): Tensor => {
    const rows = whereRows(x);
    const map = maps.get(rows) ?? toBlocks(layout.placed(rows), { channelsLast: true });
    maps.set(rows, map);
    return map;
  };
  const rowsOf = (map: Tensor, { shape }: Tensor): Tensor => {
    const y = layout.rows(fromBlocks(map, { channelsLast: true }), shape);
    maps.set(whereRows(y), map);
    return y;
  };
  const product = ({ x, weight, bias, turned }: Product): Tensor => {
    const made = turned ? filters.turned : filters.plain;
    const filter = made.get(weight) ?? filterOf(weight, turned, size);
    made.set(weight, filter);
    return blockedConv(mapOf(x), filter, bias, singlePlaces);
  };
  // A convolution sums over channels; here these are the rows.  Of the factor that lies in blocks the map is a filter as it is.
  const rowSum = ({ a, b }: RowSum, lies: "a" | "b"): Tensor => {
    const [other, lying] = lies === "b" ? [a, mapOf(b)] : [b, mapOf(a)];
    const [rows, channels] = other.shape as number[];
    const places = channels % size === 0 ? [channels / size, size] : [channels, 1];
    const map = toBlocks(other.reshape([1, rows, ...places]), { channelsLast: false });
    const filter = lying.reshape([lying.shape[1], -1, 1, 1]);
    return fromBlocks(blockedConv(map, filter, undefined, singlePlaces), { channelsLast: lies === "b" });
  };

  const onEach = (node: Node, inputs: readonly Tensor[]): Tensor | undefined => {
    const read = inputs.map((x) => (isNumber(x) ? x : mapOf(x)));
    const [first, ...others] = read.filter((x) => !isNumber(x));
    return others.every(({ shape }) => sameShape(shape, first.shape)) ? redraw(node, read)[0] : undefined;
  };

  const outputs = rewrite(graph.outputs, (node, inputs) => {
    const [y] = node.outputs;
    const lies = sums.get(node);
    if (lies) return [rowSum(rowSumOf(node, inputs)!, lies).reshape(y.shape)];
    if (!chained.has(node)) return undefined;
    const found = productOf(node, inputs);
    const map = found ? product(found) : onEach(node, inputs as Tensor[]);
    return map && [rowsOf(map, y)];
  });
  return new Graph(graph.inputs, outputs);
}

/** Rows times weights, x Wᵀ + b or, turned, x W.  x: [R, C], weight: [O, C] or, turned, [C, O], bias: [O] -> [R, O] */
interface Product {
  x: Tensor;
  weight: Tensor;
  bias?: Tensor;
  turned: boolean;
}

function productOf({ op, attrs, inputs }: Node, [x, weight, bias] = inputs): Product | undefined {
  const { alpha = 1, beta = 1, transA = false, transB = false } = attrs;
  if (op.name !== "Gemm" || op.domain !== "" || alpha !== 1 || beta !== 1 || transA) return undefined;
  return { x: x!, weight: weight!, bias, turned: !transB };
}

/** Weights as the kernels read them: in blocks of outputs one channel after the other, its outputs side by side.  -> [O, C, 1, 1] */
function filterOf(weight: Tensor, turned: boolean, size: number): Tensor {
  const values = valuesOf(weight);
  if (!values) {
    const kernel = weight.reshape([...weight.shape, 1, 1]);
    return turned ? turnedKernelInBlocks(kernel, size) : kernelInBlocks(kernel, size);
  }
  // The engine would reorder constants in every run.
  const [length, width] = weight.shape as number[];
  const [outputs, channels] = turned ? [width, length] : [length, width];
  const filter = new Float32Array(values.length);
  let at = 0;
  for (let from = 0; from < outputs; from += size)
    for (let c = 0; c < channels; c++)
      for (let o = from; o < from + size; o++) filter[at++] = values[turned ? c * width + o : o * width + c];
  return constant(filter, [outputs, channels, 1, 1], "float32");
}

/** Aᵀ B, a sum over all rows: a weight's gradient or, where A is a column of ones, a bias's.  a: [R, C], b: [R, D] */
interface RowSum {
  a: Tensor;
  b: Tensor;
}

function rowSumOf({ op, attrs, inputs }: Node, [a, b, c] = inputs): RowSum | undefined {
  if (op.domain !== "") return undefined;
  if (op.name === "MatMul" && constantData(a!) && a!.rank === 2 && a!.shape[0] === 1 && b!.rank === 2)
    return { a: a!.reshape([-1, 1]), b: b! };
  const { alpha = 1, transA = false, transB = false } = attrs;
  return op.name === "Gemm" && alpha === 1 && transA && !transB && !c ? { a: a!, b: b! } : undefined;
}

interface Chains {
  /** Products whose results are read where they lie in blocks, those that read them there, and what works on values in between. */
  chained: Set<Node>;
  /** Sums over rows of which a factor lies there anyway, and which one. */
  sums: Map<Node, "a" | "b">;
}

function findChains(graph: Graph, size: number): Chains {
  const isFixed = [...graph.inputs.values()].every(({ shape }) => !shape.some(isOpen));
  /** Whether weights may change: in narrow blocks they gain less than reordering them takes. */
  const changes = isFixed && size >= wide;
  const lying = new Map<Node, boolean>();
  const mayLie = (x: Tensor): boolean => {
    const { node } = whereRows(x);
    const may =
      lying.get(node) ?? (isWorthwhile(node, size, changes) || (isElementwise(node) && mapsOf(node).every(mayLie)));
    lying.set(node, may);
    return may;
  };
  const chained = new Set<Node>();
  const add = (x: Tensor): void => {
    const { node } = whereRows(x);
    if (chained.has(node)) return;
    chained.add(node);
    if (isElementwise(node)) mapsOf(node).forEach(add);
  };
  for (const node of graph.nodes)
    if (isWorthwhile(node, size, changes) && mayLie(node.inputs[0]!)) {
      add(node.inputs[0]!);
      chained.add(node);
    }
  const lies = (x: Tensor): boolean => chained.has(whereRows(x).node);
  const sums = new Map<Node, "a" | "b">();
  for (const node of changes ? graph.nodes : []) {
    const sum = rowSumOf(node);
    if (!sum || !canBeChannels(sum.b.shape[0])) continue;
    if (lies(sum.b)) sums.set(node, "b");
    else if (lies(sum.a)) sums.set(node, "a");
  }
  return { chained, sums };
}

/** Whether as many rows can be what a convolution sums over: the engine reorders channels by fours. */
const canBeChannels = (rows: Dim): boolean => known(rows) % 4 === 0;

/** Whether a node is a product of enough rows with weights that fill blocks, constant ones or, as in training, such as change. */
function isWorthwhile(node: Node, size: number, changes: boolean): boolean {
  const product = productOf(node);
  if (!product || node.outputs[0].dtype !== "float32") return false;
  const { x, weight, bias } = product;
  // A convolution has a bias for each channel, where a product repeats one number.
  const [rows, channels] = node.outputs[0].shape;
  if (!weight.shape.every((d) => !isOpen(d) && d % size === 0) || (bias && !sameShape(bias.shape, [channels])))
    return false;
  if (!constantData(weight)) return changes && known(rows) >= leastRows.changing && canBeChannels(rows);
  return isOpen(rows) ? !isOpen(whereRows(x).shape.at(-2)!) : rows >= leastRows.constant;
}

const isNumber = ({ shape }: Tensor): boolean => shape.length <= 4 && shape.every((d) => d === 1);

/** What an operation on each value reads besides single numbers. */
const mapsOf = ({ inputs }: Node): Tensor[] => (inputs as Tensor[]).filter((x) => !isNumber(x));

function isElementwise(node: Node): boolean {
  if (!onEachValue.has(node.op.name) || node.op.domain !== "") return false;
  const read = mapsOf(node);
  return read.length > 0 && read.every(({ shape }) => sameShape(shape, node.outputs[0].shape));
}

/** What `x` was before it got another shape, as long as its last axis stayed. */
function whereRows(x: Tensor): Tensor {
  let rows = x;
  while (rows.node.op.name === "Reshape" && rows.node.inputs[0]!.shape.at(-1) === x.shape.at(-1))
    rows = rows.node.inputs[0]!;
  return rows;
}

/** How rows lie as places of maps. */
interface Layout {
  /** [...B, C] -> [N, H, W, C] */
  placed(rows: Tensor): Tensor;
  /** The way back. */
  rows(map: Tensor, shape: Shape): Tensor;
}

/** Places that are enough: the kernels take six at once and what is left one by one, and of more what they read leaves the cache. */
const enough = 96;

/** Maps of as few places as are enough and divide those of one row of the first axis; where a later axis is open, of the last one's. */
const mapsByRows: Layout = {
  placed: (rows) => {
    const between = rows.shape.slice(1, -1);
    const places = between.length > 0 && !between.some(isOpen) ? divisorFor(staticSize(between)) : rows.shape.at(-2)!;
    return rows.reshape([-1, 1, places, rows.shape.at(-1)!]);
  },
  rows: (map, shape) => map.reshape(shape),
};

/** The least divisor that is enough, or all. */
function divisorFor(places: number): number {
  for (let d = enough; 2 * d <= places; d++) if (places % d === 0) return d;
  return places;
}

/** One map of all rows, so that a convolution can sum over them: completed to blocks, as channels are. */
const oneMap = (size: number): Layout => ({
  placed: (rows) => {
    const channels = rows.shape.at(-1)!;
    const count = known(sizeOf(rows.shape.slice(0, -1)));
    const over = count % size;
    const whole = over === 0 ? rows : rows.reshape([count, channels]).pad(0, 0, size - over);
    return whole.reshape([1, -1, size, channels]);
  },
  rows: (map, shape) => {
    const flat = map.reshape([-1, shape.at(-1)!]);
    const count = known(sizeOf(shape.slice(0, -1)));
    return (flat.shape[0] === count ? flat : flat.slice(0, 0, count)).reshape(shape);
  },
});
