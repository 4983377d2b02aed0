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
  const { held, buffers } = new Allocation(graph, order);
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

/** What memory the engine gives to each tensor, which it settles before it runs. */
class Allocation {
  /** Bytes of what is fed and of constants. */
  readonly held: number;
  readonly buffers: Buffer[] = [];
  readonly #fixed: Set<Tensor>;
  readonly #outputs: ReadonlySet<Tensor>;
  readonly #readers: ReadonlyMap<Tensor, readonly Node[]>;
  readonly #lying = new Map<Tensor, Buffer>();
  /** Buffers that nobody reads any more, by dtype and shape: one that will serve again is kept meanwhile. */
  readonly #free = new Map<string, Buffer[]>();

  constructor(graph: Graph, order: readonly Node[]) {
    const constants = graph.nodes.flatMap(({ op, outputs }) => (op === constantOp ? outputs : []));
    this.#fixed = new Set([...graph.inputs.values(), ...constants]);
    this.#outputs = new Set(graph.outputs.values());
    this.#readers = readersOf(order);
    this.held = [...this.#fixed].reduce((sum, x) => sum + sizeInBytes(x), 0);
    for (const [step, node] of order.entries()) this.#place(node, step);
    for (const y of this.#outputs) if (this.#lying.has(y)) this.#lying.get(y)!.to = order.length - 1;
  }

  #place(node: Node, step: number): void {
    const [x] = node.inputs;
    for (const y of node.outputs) {
      if (x && this.#fixed.has(x) && this.#isView(node, y)) this.#fixed.add(y);
      else {
        const buffer = this.#bufferFor(node, y, step);
        buffer.reads += this.#readsOf(y);
        this.#lying.set(y, buffer);
      }
    }
    for (const read of new Set(node.inputs)) if (read) this.#done(read, 1, step);
    for (const y of node.outputs) if (this.#readsOf(y) === 0) this.#done(y, 0, step);
  }

  #bufferFor(node: Node, y: Tensor, step: number): Buffer {
    const over = this.#outputs.has(y) ? undefined : (this.#inputTakenBy(node, y) ?? this.#free.get(kindOf(y))?.pop());
    if (over) return over;
    const made = { bytes: sizeInBytes(y), from: step, to: step, reads: 0 };
    this.buffers.push(made);
    return made;
  }

  /** The memory of an input that a result lies in, too, or is written over. */
  #inputTakenBy(node: Node, y: Tensor): Buffer | undefined {
    const [x] = node.inputs;
    if (x && this.#isView(node, y) && this.#lying.has(x)) return this.#lying.get(x);
    if (!overwriting.has(node.op.name)) return undefined;
    const read = node.inputs.find((a) => a && this.#lying.get(a)?.reads === 1 && kindOf(a) === kindOf(y));
    return read && this.#lying.get(read);
  }

  /** Whether a result is its node's first input under another shape. */
  #isView(node: Node, y: Tensor): boolean {
    return !this.#outputs.has(y) && (views.has(node.op.name) || isTurned(node, this.#readers.get(y) ?? []));
  }

  #readsOf(y: Tensor): number {
    return (this.#readers.get(y)?.length ?? 0) + (this.#outputs.has(y) ? 1 : 0);
  }

  /** Counts reads of a tensor off; memory that nobody reads any more is free. */
  #done(x: Tensor, reads: number, step: number): void {
    const buffer = this.#lying.get(x);
    if (!buffer) return;
    buffer.to = step;
    buffer.reads -= reads;
    if (buffer.reads > 0) return;
    const pool = this.#free.get(kindOf(x));
    if (pool) pool.push(buffer);
    else this.#free.set(kindOf(x), [buffer]);
  }
}

const kindOf = (x: Tensor): string => `${x.dtype} ${x.shape}`;
