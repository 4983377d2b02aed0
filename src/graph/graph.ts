import { internal, OrielError } from "../base/errors.ts";
import { constantOp, leaf, Node, type Tensor, withScope } from "./tensor.ts";

/**
 * A function of tensors: named inputs, named outputs, and whatever lies between them.  A parameter is an input like any
 * other until `bind` gives it values.  Immutable: passes return new graphs.
 */
export class Graph {
  readonly inputs: ReadonlyMap<string, Tensor>;
  readonly outputs: ReadonlyMap<string, Tensor>;
  #nodes?: readonly Node[];

  constructor(inputs: Iterable<readonly [string, Tensor]>, outputs: Iterable<readonly [string, Tensor]>) {
    this.inputs = byName(inputs, "inputs");
    this.outputs = byName(outputs, "outputs");
  }

  /** Every node that the outputs need, each after those it reads. */
  get nodes(): readonly Node[] {
    this.#nodes ??= sortNodes(this.outputs.values());
    return this.#nodes;
  }

  /** The graph with some inputs replaced by other tensors: constants, or what another graph computes. */
  bind(values: ReadonlyMap<string, Tensor>): Graph {
    const replaced = new Map<Tensor, Tensor>();
    const inputs: [string, Tensor][] = [];
    for (const [name, tensor] of this.inputs) {
      const value = values.get(name);
      if (value) replaced.set(tensor, value);
      else inputs.push([name, tensor]);
    }
    return new Graph(inputs, substitute(this.outputs, replaced));
  }
}

function byName(pairs: Iterable<readonly [string, Tensor]>, what: string): Map<string, Tensor> {
  const named = new Map<string, Tensor>();
  for (const [name, tensor] of pairs) {
    const first = named.get(name) ?? tensor;
    if (first !== tensor)
      throw new OrielError("graph", {
        message: `two ${what} of the graph are called ${name}`,
        details: [`${first}`, `${tensor}`],
        help: "give each a name of its own",
      });
    named.set(name, tensor);
  }
  return named;
}

/** The nodes that `outputs` need, each after those it reads, in the order in which they were drawn where that is free. */
export function sortNodes(outputs: Iterable<Tensor | undefined>): Node[] {
  const found = new Set<Node>();
  const stack: Node[] = [];
  const add = (tensor: Tensor | undefined): void => {
    if (tensor && !found.has(tensor.node)) {
      found.add(tensor.node);
      stack.push(tensor.node);
    }
  };
  for (const tensor of outputs) add(tensor);
  for (let node = stack.pop(); node; node = stack.pop()) for (const tensor of node.inputs) add(tensor);
  // A node is always made after those it reads.
  return [...found].sort((a, b) => a.id - b.id);
}

/** Draws `node` again on other inputs.  Types are inferred anew. */
export function redraw(node: Node, inputs: readonly (Tensor | undefined)[]): readonly Tensor[] {
  if (node.op === leaf || node.op === constantOp) return node.outputs;
  return new Node(node.op, inputs, node.attrs, node.op.infer(inputs, node.attrs), node.scope).outputs;
}

/**
 * Rebuilds what `outputs` need, in order.  `visit` sees each node with its inputs already replaced, and returns what stands in
 * for its outputs, or undefined to leave it as it is, which `asItIs` draws.  Behind the first change every node is drawn anew, so that
 * the order of drawing, by which the engine orders what it runs and so its memory, stays what it was.
 */
export function rewrite<K>(
  outputs: Iterable<readonly [K, Tensor]>,
  visit: (
    node: Node,
    inputs: readonly (Tensor | undefined)[],
    asItIs: () => readonly Tensor[],
  ) => readonly Tensor[] | undefined,
): [K, Tensor][] {
  const named = [...outputs];
  const now = new Map<Tensor, Tensor>();
  const current = (x: Tensor | undefined): Tensor | undefined => x && (now.get(x) ?? x);
  let changed = false;
  for (const node of sortNodes(named.map(([, tensor]) => tensor))) {
    const inputs = node.inputs.map(current);
    const asItIs = (): readonly Tensor[] => (changed ? redraw(node, inputs) : node.outputs);
    const made = withScope(node.scope, () => visit(node, inputs, asItIs)) ?? asItIs();
    changed ||= made !== node.outputs;
    if (made.length > node.outputs.length) throw internal(`a rewrite of ${node.op.name} made too many outputs`);
    if (made !== node.outputs) made.forEach((tensor, i) => void now.set(node.outputs[i], tensor));
  }
  return named.map(([key, tensor]) => [key, current(tensor) as Tensor]);
}

/** `outputs` with some tensors replaced by others. */
export function substitute<K>(
  outputs: Iterable<readonly [K, Tensor]>,
  replaced: ReadonlyMap<Tensor, Tensor>,
): [K, Tensor][] {
  return rewrite(outputs, (node) =>
    node.outputs.some((t) => replaced.has(t)) ? node.outputs.map((t) => replaced.get(t) ?? t) : undefined,
  );
}

/** How often each tensor is read, outputs of the graph counted once each. */
export function countUses(graph: Graph): Map<Tensor, number> {
  const uses = new Map<Tensor, number>();
  const count = (tensor: Tensor | undefined): void => {
    if (tensor) uses.set(tensor, (uses.get(tensor) ?? 0) + 1);
  };
  for (const node of graph.nodes) node.inputs.forEach(count);
  for (const tensor of graph.outputs.values()) count(tensor);
  return uses;
}

/** The nodes that read each tensor. */
export function readersOf(nodes: Iterable<Node>): Map<Tensor, Node[]> {
  const readers = new Map<Tensor, Node[]>();
  for (const node of nodes)
    for (const x of new Set(node.inputs)) {
      if (!x) continue;
      const list = readers.get(x);
      if (list) list.push(node);
      else readers.set(x, [node]);
    }
  return readers;
}

/** Throws where the graph reads an input that it does not name, or gives one name to an input and to something else. */
export function validate(graph: Graph): void {
  const twice = [...graph.outputs].filter(([name, y]) => graph.inputs.has(name) && graph.inputs.get(name) !== y);
  if (twice.length > 0)
    throw new OrielError("graph", {
      message: `${twice.length} names stand for an input and for another output`,
      details: twice.slice(0, 8).map(([name, y]) => `${name}: ${graph.inputs.get(name)} comes in, ${y} goes out`),
      help: "name the output otherwise",
    });
  const named = new Set([...graph.inputs.values()].map((t) => t.node));
  const strangers = graph.nodes.filter((node) => node.op === leaf && !named.has(node));
  if (strangers.length > 0)
    throw new OrielError("graph", {
      message:
        strangers.length === 1
          ? "the graph reads a tensor that is none of its inputs"
          : `the graph reads ${strangers.length} tensors that are none of its inputs`,
      details: strangers.slice(0, 8).map(({ outputs: [x] }) => `${x}, ${readingOf(x, graph)}`),
      help: "name every input; a module finds its layers in public fields and lists, not in #private fields or plain objects",
    });
}

/** Which operation reads a tensor first, and where. */
function readingOf(x: Tensor, graph: Graph): string {
  const reader = graph.nodes.find((node) => node.inputs.includes(x));
  return reader ? `read by ${reader.op.name} at ${reader.scope || "the top"}` : "an output";
}
