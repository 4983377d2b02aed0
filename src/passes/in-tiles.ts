import { Graph, readersOf, redraw } from "../graph/graph.ts";
import { lower } from "../graph/onnx/write.ts";
import { bindShape, type Dim, divDim, isOpen, known, OpenDim, type Shape, sameDim } from "../graph/shape.ts";
import { Body, constantData, input, type Node, type Tensor, withScope } from "../graph/tensor.ts";
import { blocked } from "../ops/contrib.ts";
import { scan } from "../ops/scan.ts";
import { engineBlocks } from "./engine-blocks.ts";
import { sizeInBytes, storageOf } from "./memory.ts";

/** Operations that work on each value alone. */
const onEachValue = new Set(
  (
    "Add Sub Mul Div Pow Max Min Neg Abs Exp Log Sqrt Reciprocal Erf Sin Cos Floor Ceil Cast Where Equal Greater Less " +
    "Gelu Relu LeakyRelu Clip Sigmoid Tanh Softplus HardSigmoid HardSwish"
  ).split(" "),
);

const sums = new Set(["ReduceSum", "ReduceMean", "ReduceSumSquare"]);

/** Maps that are so many times as large as a tile do not lie in the cache that all cores share. */
const large = 3;

/** Of how many images a map is judged where their number is open. */
const images = 8;

/**
 * Chains of operations on large maps, tile by tile: all of them for the first rows, then for the next, so that what one hands to
 * another stays in the cache.  `bytes` is what a map has in a tile.  Results are the same.  For processors
 * (`docs/notes/0004-speed.md`).
 */
export function inTiles(graph: Graph, bytes: number): Graph {
  const lowered = lower(graph);
  const readers = readersOf(lowered.nodes);
  const chains = findChains(lowered, bytes);
  if (chains.size === 0) return graph;
  const now = new Map<Tensor, Tensor>();
  const current = (x: Tensor | undefined): Tensor | undefined => x && (now.get(x) ?? x);
  const become = ({ outputs }: Node, made: readonly Tensor[]): void =>
    outputs.forEach((y, i) => void now.set(y, made[i]));

  for (const node of lowered.nodes) {
    const chain = chains.get(node);
    if (!chain) become(node, redraw(node, node.inputs.map(current)));
    else if (node === chain.nodes.at(-1)) {
      const { maps, reshapes } = leaving(chain, readers);
      const made = withScope(chain.nodes[0].scope, () => drawTiled(chain, maps, current));
      maps.forEach((y, i) => void now.set(y, made[i]));
      for (const reshape of reshapes) become(reshape, redraw(reshape, reshape.inputs.map(current)));
    }
  }
  return new Graph(
    lowered.inputs,
    [...lowered.outputs].map(([name, y]) => [name, current(y)!]),
  );
}

/** Operations that run together, in order, and the number of tiles. */
interface Chain {
  nodes: Node[];
  tiles: Dim;
}

/** What is read outside: results, each of which is written once, and reshapes, which cost nothing there, but a copy within. */
function leaving(
  { nodes }: Chain,
  readers: ReadonlyMap<Tensor, readonly Node[]>,
): { maps: Tensor[]; reshapes: Node[] } {
  const members = new Set(nodes);
  const reshapes = new Set<Node>();
  const isNeeded = (y: Tensor): boolean => readers.get(y)?.some((r) => !members.has(r) || reshapes.has(r)) ?? false;
  for (const node of nodes.toReversed()) if (!computes(node) && isNeeded(node.outputs[0])) reshapes.add(node);
  const maps = nodes.filter(computes).flatMap(({ outputs }) => outputs.filter(isNeeded));
  return { maps, reshapes: [...reshapes].reverse() };
}

/** What some results of a chain become where it runs tile by tile. */
function drawTiled(
  { nodes, tiles }: Chain,
  maps: readonly Tensor[],
  current: (x: Tensor) => Tensor | undefined,
): Tensor[] {
  const tileShape = ({ shape }: Tensor): number[] => {
    const axis = firstAxis(shape);
    return shape.map((d, i) => known(i === axis ? divDim(d, tiles)! : d));
  };
  // Behind a transpose, axes of length 1 are added within: outside the engine would draw it through them, and find it no fast way.
  const sliceShape = (x: Tensor): number[] => {
    const shape = tileShape(x);
    return x.node.op.name === "Transpose" ? shape.slice(Math.max(0, firstAxis(shape))) : shape;
  };
  const [slices, captured] = [new Map<Tensor, Tensor>(), new Map<Tensor, Tensor>()];
  /** What a tile reads, and what it makes. */
  const [read, inside] = [new Map<Tensor, Tensor>(), new Map<Tensor, Tensor>()];
  const rowsOf = (x: Tensor): Tensor => {
    const slice = input(sliceShape(x), x.dtype);
    slices.set(x, slice);
    read.set(x, slice.reshape(tileShape(x)));
    return read.get(x)!;
  };
  const wholeOf = (x: Tensor): Tensor => {
    captured.set(x, input(x.shape, x.dtype));
    return captured.get(x)!;
  };
  for (const node of nodes) {
    const taken = takes(node)!;
    const inputs = node.inputs.map((x, i) => {
      if (!x) return x;
      if (taken[i] === "rows") return inside.get(x) ?? read.get(x) ?? rowsOf(x);
      return constantData(x) ? x : (captured.get(x) ?? wholeOf(x));
    });
    const made = withScope(node.scope, () =>
      node.op.name === "Reshape" ? [inputs[0]!.reshape(tileShape(node.outputs[0]))] : redraw(node, inputs),
    );
    node.outputs.forEach((y, i) => void inside.set(y, made[i]));
  }
  const body = new Body(
    [...slices.values()],
    [...captured.values()],
    maps.map((y) => inside.get(y)!),
  );
  const cut = [...slices.keys()].map((x) => current(x)!.reshape([tiles, ...sliceShape(x)]));
  const joined = scan([...cut, ...[...captured.keys()].map((x) => current(x)!)], { body });
  return joined.map((y, i) => y.reshape(maps[i].shape));
}

/** A chain that may still grow. */
interface Growing {
  nodes: Node[];
  /** What a number of tiles has to divide: for as many images as there may be, of each. */
  rows: number;
  /** The axis that is cut, where its size is not known. */
  open?: string;
  /** Bytes of its largest map, or of an image's. */
  largest: number;
}

/**
 * Chains of operations that read one another.  One grows until something outside reads it: then all that it needs is drawn before its
 * last operation, and all that needs it behind.
 */
function findChains(graph: Graph, bytes: number): Map<Node, Chain> {
  const outputs = new Set(graph.outputs.values());
  const chainOf = new Map<Node, Growing>();
  const closed = new Set<Growing>();
  const tilesOf = ({ rows, largest }: Growing): number => nearestDivisor(rows, largest / bytes);
  const isLarge = (x: Tensor): boolean => sizeInBytes(x) * (x.shape.some(isOpen) ? images : 1) >= large * bytes;
  const inBlocks = engineBlocks();

  for (const node of graph.nodes) {
    const read = new Set(node.inputs.flatMap((x) => (x && chainOf.get(x.node)) ?? []));
    // What the graph gives is written by one operation into the memory that waits for it.
    const taken = node.outputs.some((y) => outputs.has(y) || inBlocks(y)) ? undefined : takes(node);
    if (taken) {
      const maps = [node.outputs[0], ...node.inputs.filter((_, i) => taken[i] === "rows")] as Tensor[];
      const cut = maps.map(({ shape }) => shape[firstAxis(shape)]);
      let chain: Growing = {
        nodes: [node],
        rows: bindShape(cut, 1).reduce(gcd),
        open: cut.find(isOpen)?.name,
        largest: Math.max(...maps.map(sizeInBytes)),
      };
      const isWhole = (other: Growing): boolean =>
        node.inputs.some((x, i) => x && taken[i] === "whole" && chainOf.get(x.node) === other);
      for (const before of read) {
        if (closed.has(before) || isWhole(before)) continue;
        const both = {
          ...chain,
          nodes: [...before.nodes, ...chain.nodes],
          rows: gcd(before.rows, chain.rows),
          largest: Math.max(before.largest, chain.largest),
        };
        if (tilesOf(both) > 1) chain = both;
      }
      const begins = computes(node) && maps.some(isLarge) && tilesOf(chain) > 1;
      if (chain.nodes.length > 1 || begins) for (const member of chain.nodes) chainOf.set(member, chain);
    }
    for (const before of read) if (before !== chainOf.get(node)) closed.add(before);
  }
  /** Whether a large map is read while it lies in the cache. */
  const saves = ({ nodes }: Growing): boolean => {
    const seen = new Set<Tensor>();
    return nodes.filter(computes).some(({ inputs, outputs }) => {
      const again = inputs.some((x) => x && seen.has(storageOf(x)));
      for (const x of [...inputs, ...outputs]) if (x && isLarge(x)) seen.add(storageOf(x));
      return again;
    });
  };
  const found = [...new Set(chainOf.values())].filter(saves);
  return new Map(
    found.flatMap((chain) => {
      const tiles = tilesOf(chain);
      const done = {
        nodes: chain.nodes.sort((a, b) => a.id - b.id),
        tiles: chain.open === undefined ? tiles : new OpenDim(chain.open, tiles),
      };
      return done.nodes.map((node): [Node, Chain] => [node, done]);
    }),
  );
}

const computes = ({ op }: Node): boolean => op.name !== "Reshape";

/**
 * How a node takes its inputs where its result is made of some rows after others, along the first axis that is longer than 1: the
 * same rows, or the whole.  undefined: it cannot be.
 */
function takes({ op, attrs, inputs, outputs }: Node): ("rows" | "whole")[] | undefined {
  const { shape } = outputs[0];
  const axis = firstAxis(shape);
  if (axis < 0 || inputs.length === 0 || [...inputs, outputs[0]].some((x) => x && !isCuttable(x.shape)))
    return undefined;
  const [x, y] = inputs as Tensor[];
  const hasRows = (x: Tensor): boolean => firstAxis(x.shape) === axis && sameDim(x.shape[axis], shape[axis]);
  // Maps of images in blocks of channels, and what a convolution with constant weights makes of them.
  if (op.domain === blocked && axis === 0 && hasRows(x)) {
    if (op.name === "ReorderInput" || op.name === "ReorderOutput") return ["rows"];
    if (op.name === "Conv" && constantData(y)) return inputs.map((_, i) => (i === 0 ? "rows" : "whole"));
  }
  if (op.domain !== "") return undefined;
  if (onEachValue.has(op.name))
    return inputs.map((x) => (x && hasSize(x.shape[axis - shape.length + x.rank], shape[axis]) ? "rows" : "whole"));
  if (op.name === "Reshape") return ["rows"];
  if (op.name === "Softmax") return attrs.axis > axis ? ["rows"] : undefined;
  if (op.name === "LayerNormalization")
    return attrs.axis > axis ? inputs.map((_, i) => (i === 0 ? "rows" : "whole")) : undefined;
  if (sums.has(op.name)) return hasRows(x) && attrs.axes.every((a: number) => a > axis) ? ["rows"] : undefined;
  // A number for each map.
  if (op.name === "BatchNormalization") return axis === 1 ? inputs.map(() => "rows") : undefined;
  // One number for each row, a weighted mean.
  if (op.name === "MatMul" && y.rank === 2 && y.shape[1] === 1)
    return hasRows(x) && axis < x.rank - 1 ? ["rows", "whole"] : undefined;
  return undefined;
}

const hasSize = (d: Dim | undefined, size: Dim): boolean => d !== undefined && sameDim(d, size);

/** The first axis that is longer than 1. */
const firstAxis = (shape: Shape): number => shape.findIndex((d) => isOpen(d) || d > 1);

/** Whether no axis but the one that is cut has an unknown size. */
const isCuttable = (shape: Shape): boolean => shape.every((d, i) => !isOpen(d) || i === firstAxis(shape));

const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));

/** Of the divisors of n the one with the smallest factor between it and `wanted`. */
function nearestDivisor(n: number, wanted: number): number {
  let best = 1;
  const distance = (d: number): number => Math.abs(Math.log(d / wanted));
  for (let d = 2; d <= Math.min(n, 2 * wanted); d++) if (n % d === 0 && distance(d) < distance(best)) best = d;
  return best;
}
