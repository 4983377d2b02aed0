import { bytesOf } from "../graph/dtype.ts";
import { type Graph, readersOf } from "../graph/graph.ts";
import { lower } from "../graph/onnx/write.ts";
import { sizeForOne } from "../graph/shape.ts";
import { constantOp, leaf, type Node, type Tensor } from "../graph/tensor.ts";

/** What a run of a graph takes of memory, in bytes.  An open batch counts once. */
export interface MemoryUse {
  /** The most that lies in memory at one time: all that is fed, constants, outputs, and what lies between. */
  peak: number;
  /** What is fed and constants, which lie there all the time. */
  held: number;
  /** The node that is running then. */
  at?: Node;
}

/**
 * Estimates what ONNX Runtime's processor needs for a graph: every tensor lives from the node that makes it to the last one that
 * reads it, in the order in which the engine runs them.  `docs/notes/0008-memory.md` says how good that is, and what it leaves out.
 */
export const memoryUse = (graph: Graph): MemoryUse => timeline(lower(graph)).use;

/**
 * The nodes of a graph in the order in which ONNX Runtime runs them, one after another: backwards from those that nothing reads,
 * the last drawn first, and of what a node reads the last drawn first too.
 */
export function executionOrder({ nodes }: Graph): Node[] {
  const real = nodes.filter(isComputed);
  const read = new Set(real.flatMap(({ inputs }) => inputs.map((x) => x?.node)));
  const order: Node[] = [];
  const seen = new Set<Node>();
  const stack: { node: Node; done: boolean }[] = [];
  const visit = (node: Node): void => {
    if (!seen.has(node)) stack.push({ node, done: false });
  };
  for (const node of real) if (!read.has(node)) visit(node);
  for (let top = stack.pop(); top; top = stack.pop()) {
    const { node, done } = top;
    if (done) order.push(node);
    else if (!seen.has(node)) {
      seen.add(node);
      stack.push({ node, done: true });
      const before = node.inputs.flatMap((x) => (x && isComputed(x.node) ? [x.node] : []));
      for (const earlier of before.sort((a, b) => a.id - b.id)) visit(earlier);
    }
  }
  return order;
}

const isComputed = ({ op }: Node): boolean => op !== leaf && op !== constantOp;

/** Operators whose output is their first input's memory under another shape. */
export const views: ReadonlySet<string> = new Set(["Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"]);

/** The tensor that has the memory of `x`. */
export function storageOf(x: Tensor): Tensor {
  let y = x;
  while (views.has(y.node.op.name)) y = y.node.inputs[0]!;
  return y;
}

/** A matrix that is turned for products alone is read as it lies: the engine makes FusedMatMul of the two. */
function isTurned({ op, attrs, inputs: [x] }: Node, readers: readonly Node[]): boolean {
  if (op.name !== "Transpose" || !readers.every((r) => r.op.name === "MatMul")) return false;
  const last = x!.rank - 1;
  return attrs.perm.every((p: number, i: number) => p === (i === last ? last - 1 : i === last - 1 ? last : i));
}

/** Operators that write over an input of the same size that nothing reads any more. */
const overwriting = new Set(
  "Add Sub Mul Div Neg Abs Reciprocal Floor Ceil Sqrt Exp Log Relu LeakyRelu Sigmoid Tanh Clip".split(" "),
);

export const sizeInBytes = ({ shape, dtype }: Tensor): number => sizeForOne(shape) * bytesOf(dtype);

/** A piece of memory, from the node that first writes into it to the one that last reads it. */
interface Buffer {
  bytes: number;
  from: number;
  to: number;
  /** Reads still to come of the tensors that lie in it. */
  reads: number;
}

/** The order of a graph that has been lowered, and what lies in memory while each node runs. */
export function timeline(graph: Graph): { order: readonly Node[]; bytes: readonly number[]; use: MemoryUse } {
  const order = executionOrder(graph);
  const readers = readersOf(order);
  const outputs = new Set(graph.outputs.values());
  const fixed = new Set<Tensor>(graph.inputs.values());
  for (const { op, outputs } of graph.nodes) if (op === constantOp) fixed.add(outputs[0]);
  let held = 0;
  for (const x of fixed) held += sizeInBytes(x);

  // The engine settles before it runs which tensors share memory.  A buffer that is free and will serve again is kept meanwhile.
  const buffers: Buffer[] = [];
  const lying = new Map<Tensor, Buffer>();
  const free = new Map<string, Buffer[]>();
  const kindOf = (x: Tensor): string => `${x.dtype} ${x.shape}`;
  const readsOf = (y: Tensor): number => (readers.get(y)?.length ?? 0) + (outputs.has(y) ? 1 : 0);
  const bufferFor = (node: Node, y: Tensor, step: number): Buffer => {
    const [x] = node.inputs;
    if (!outputs.has(y)) {
      const own = x && lying.get(x);
      if (own && (views.has(node.op.name) || isTurned(node, readers.get(y) ?? []))) return own;
      if (overwriting.has(node.op.name))
        for (const a of node.inputs) {
          const old = a && lying.get(a);
          if (old?.reads === 1 && kindOf(a!) === kindOf(y)) return old;
        }
      const again = free.get(kindOf(y))?.pop();
      if (again) return again;
    }
    const made = { bytes: sizeInBytes(y), from: step, to: step, reads: 0 };
    buffers.push(made);
    return made;
  };
  order.forEach((node, step) => {
    const done = (x: Tensor, reads: number): void => {
      const buffer = lying.get(x);
      if (!buffer) return;
      buffer.to = step;
      buffer.reads -= reads;
      if (buffer.reads > 0) return;
      const pool = free.get(kindOf(x));
      if (pool) pool.push(buffer);
      else free.set(kindOf(x), [buffer]);
    };
    for (const y of node.outputs) {
      const isView = views.has(node.op.name) || isTurned(node, readers.get(y) ?? []);
      if (isView && node.inputs[0] && fixed.has(node.inputs[0]) && !outputs.has(y)) {
        fixed.add(y);
        continue;
      }
      const buffer = bufferFor(node, y, step);
      buffer.reads += readsOf(y);
      lying.set(y, buffer);
    }
    for (const x of new Set(node.inputs)) if (x) done(x, 1);
    for (const y of node.outputs) if (readsOf(y) === 0) done(y, 0);
  });
  for (const y of outputs) if (lying.has(y)) lying.get(y)!.to = order.length - 1;

  const change = new Float64Array(order.length + 1);
  for (const { bytes, from, to } of buffers) {
    change[from] += bytes;
    change[to + 1] -= bytes;
  }
  let [live, peak] = [held, held];
  let at: Node | undefined;
  const bytes = order.map((node, step) => {
    live += change[step];
    if (live > peak) [peak, at] = [live, node];
    return live;
  });
  return { order, bytes, use: { peak, held, at } };
}
