import { OrielError, UsageError } from "../base/errors.ts";
import { Graph, readersOf } from "../graph/graph.ts";
import { dropIdentities } from "../graph/onnx/write.ts";
import { isOpen } from "../graph/shape.ts";
import { constantOp, leaf, Node, type Tensor, withScope } from "../graph/tensor.ts";
import { waitFor } from "../ops/move.ts";
import { memoryUse, sizeInBytes, storageOf, timeline, views } from "./memory.ts";

export interface RecomputeOptions {
  /** Bytes that a run may take, as `memoryUse` counts them: what is fed, what lies between, outputs. */
  budget: number;
  /** The output whose gradients the graph computes. */
  loss?: string;
}

/**
 * A training step that fits into a budget of memory: what of the forward pass would be kept for the backward pass, and does not fit, is
 * computed a second time when its gradient arrives.  Same operations on the same numbers, so the same results.
 *
 * What takes little is repeated first: activations, norms, softmax, gathers, and attention's scores.  Where that does not do, whole
 * segments of the forward pass are kept only where one ends and the next begins: Chen et al., "Training Deep Nets with Sublinear
 * Memory Cost" (2016), algorithm 3; and of the segmentations that fit, the one with the fewest multiply-adds.
 *
 * Differentiate before it: a gradient drawn later would not see the repetitions.  A runtime's own passes come behind it, and the
 * estimate does not know them.  Throws where the budget cannot be met.
 */
export function recompute(graph: Graph, { budget, loss = "loss" }: RecomputeOptions): Graph {
  if (!graph.outputs.has(loss))
    throw new UsageError({
      message: `the graph has no output "${loss}"`,
      help: `name the loss; it gives ${[...graph.outputs.keys()].slice(0, 8).join(", ")}`,
    });
  const plain = dropIdentities(graph);
  const use = memoryUse(plain);
  if (use.peak <= budget) return graph;
  const step = new Step(plain, loss);
  let least = use.peak;
  const fits = (groups: readonly Group[]): Graph | undefined => {
    const made = redrawn(step, groups);
    const { peak } = memoryUse(made);
    least = Math.min(least, peak);
    return peak <= budget ? made : undefined;
  };

  const light = lightGroups(step, [], new Set());
  const found = fewest(light.length, (count) => fits(light.slice(0, count)));
  if (found) return found.made;
  let best: { made: Graph; macs: number } | undefined;
  for (const parts of partCounts) {
    const segments = segmentsOf(step, parts);
    // The last one would be made again as soon as it is made.
    const heavy = segments.slice(0, -1).sort((a, b) => a.macs / a.bytes - b.macs / b.bytes);
    const repeated = (count: number): Group[] => {
      const chosen = heavy.slice(0, count);
      return [...chosen, ...lightGroups(step, chosen, pinnedBy(chosen))];
    };
    const enough = fewest(heavy.length, (count) => fits(repeated(count)));
    const macs = heavy.slice(0, enough?.count).reduce((sum, group) => sum + group.macs, 0);
    if (enough && (!best || macs < best.macs)) best = { made: enough.made, macs };
    if (segments.length < parts / 2) break; // no finer ones are to be had
  }
  if (best) return best.made;
  throw new OrielError("memory", {
    message: `a step needs at least ${megabytes(least, budget)} of memory, the budget is ${megabytes(budget, least)}`,
    details: [
      `${megabytes(use.peak)} without recomputation, of which ${megabytes(use.held)} are the weights, what the optimizer keeps, and the batch`,
    ],
    help: "give more, or cut the batch: smaller, or in more parts (accumulate)",
  });
}

/** Bytes in words: whole megabytes where they are told apart from `other`, else with so many digits that they are. */
function megabytes(bytes: number, other = 0): string {
  if (bytes < 1e6) return `${Math.ceil(bytes / 1e3)} kB`;
  const digits = [0, 1, 2, 3, 4, 5].find((n) => Math.abs(bytes - other) * 10 ** n >= 1e6) ?? 6;
  return `${(Math.ceil((bytes * 10 ** digits) / 1e6) / 10 ** digits).toFixed(digits)} MB`;
}

/** Into how many segments the forward pass is cut. */
const partCounts = [2, 3, 4, 6, 8, 12, 16, 24, 32, 48];

/** The smallest number from 1 to `most` with which `attempt` succeeds, given that more never does worse. */
function fewest(
  most: number,
  attempt: (count: number) => Graph | undefined,
): { count: number; made: Graph } | undefined {
  let found: { count: number; made: Graph } | undefined;
  let [low, high] = [1, most];
  for (let count = most; low <= high; count = (low + high) >> 1) {
    const made = attempt(count);
    if (made) {
      found = { count, made };
      high = count - 1;
    } else if (count === most) return undefined;
    else low = count + 1;
  }
  return found;
}

/** What is given up and made again together, from the same moment on. */
interface Group {
  /** Tensors that are no longer kept. */
  dropped: ReadonlySet<Tensor>;
  /** Whether a tensor is read as it was, rather than made again, where `gone` is given up. */
  stays(x: Tensor, gone: ReadonlySet<Tensor>): boolean;
  bytes: number;
  /** Multiply-adds that are done twice. */
  macs: number;
  /** Operations, of any kind, for each byte. */
  price: number;
}

/** A training step, told apart into the forward pass and what reads it later. */
class Step {
  readonly graph: Graph;
  readonly order: readonly Node[];
  readonly place: ReadonlyMap<Node, number>;
  /** In the order in which they were drawn. */
  readonly forward: readonly Node[];
  readonly isForward: ReadonlySet<Node>;
  readonly readers: ReadonlyMap<Tensor, readonly Node[]>;
  /** Readers of a tensor outside the forward pass, its views' readers included. */
  readonly later = new Map<Tensor, Node[]>();
  /** What the backward pass reads of the forward pass and could do without. */
  readonly needed: readonly Tensor[];
  /** Up to this many bytes are nothing to save: statistics, masks of whole pictures. */
  readonly small: number;

  constructor(graph: Graph, loss: string) {
    this.graph = graph;
    const { order, use } = timeline(graph);
    this.order = order;
    this.place = new Map(order.map((node, i) => [node, i]));
    this.readers = readersOf(graph.nodes);
    const before = new Graph(graph.inputs, [[loss, graph.outputs.get(loss)!]]).nodes;
    this.forward = before.filter((node) => this.place.has(node) && !isGradient(node));
    this.isForward = new Set(this.forward);
    const outputs = new Set(graph.outputs.values());
    const fixed = new Set<Tensor>();
    for (const node of this.forward)
      for (const y of node.outputs) {
        const x = storageOf(y);
        const outside = (this.readers.get(y) ?? []).filter((reader) => !this.isForward.has(reader));
        if (outputs.has(y) || !outside.every(isGradient)) fixed.add(x);
        const later = this.later.get(x);
        if (later) later.push(...outside);
        else if (outside.length > 0) this.later.set(x, outside);
      }
    this.small = (use.peak - use.held) / 2000;
    this.needed = [...this.later.keys()].filter(
      (x) => this.isForward.has(x.node) && !fixed.has(x) && sizeInBytes(x) > this.small,
    );
  }

  /** Whether a tensor is there while the backward pass runs, or may as well be. */
  isKept(x: Tensor, gone: ReadonlySet<Tensor>): boolean {
    const from = storageOf(x);
    if (!this.isForward.has(from.node) || sizeInBytes(from) <= this.small) return true;
    return this.later.has(from) && !gone.has(from);
  }
}

const isGradient = ({ scope }: Node): boolean => scope.startsWith("grad:");
const isGiven = ({ op }: Node): boolean => op === leaf || op === constantOp;

/** Up to this many multiply-adds for each float that is not kept a product counts as light: scores of attention take its heads' width. */
const lightProduct = 64;

/** What can be made again alone, from what is kept anyway; the cheapest first. */
function lightGroups(step: Step, segments: readonly Group[], pinned: ReadonlySet<Tensor>): Group[] {
  const gone = new Set(segments.flatMap(({ dropped }) => [...dropped]));
  const groups: Group[] = [];
  for (const x of step.needed) {
    if (gone.has(x) || pinned.has(x)) continue;
    gone.add(x);
    const group = [false, true]
      .map((products) =>
        groupOf(
          step,
          new Set([x]),
          (t, lost) => step.isKept(t, lost) || (!products && t !== x && t.node.op.cost(t.node) > 0),
          gone,
        ),
      )
      .find(({ bytes, macs }) => bytes > 0 && macs <= (lightProduct * bytes) / 4);
    if (group) groups.push(group);
    else gone.delete(x);
  }
  return groups.sort((a, b) => a.price - b.price);
}

/** Weighs what giving up `dropped` saves and takes. */
function groupOf(step: Step, dropped: ReadonlySet<Tensor>, stays: Group["stays"], gone = dropped): Group {
  const repeated = new Set<Node>();
  const added = new Set<Tensor>();
  const stack = [...dropped];
  for (let x = stack.pop(); x; x = stack.pop()) {
    if (repeated.has(x.node)) continue;
    repeated.add(x.node);
    for (const input of x.node.inputs) {
      if (!input) continue;
      if (!stays(input, gone)) stack.push(input);
      else if (!step.isKept(input, gone)) added.add(storageOf(input));
    }
  }
  const sum = (xs: Iterable<Tensor>): number => [...xs].reduce((total, x) => total + sizeInBytes(x), 0);
  const macs = [...repeated].reduce((total, node) => total + node.op.cost(node), 0);
  const work = macs + sum([...repeated].flatMap((node) => (views.has(node.op.name) ? [] : node.outputs))) / 4;
  const bytes = sum(dropped) - sum(added);
  return { dropped, stays, bytes, macs, price: work / bytes };
}

/** The forward pass in about `parts` segments that keep alike much, cut where little is handed on. */
function segmentsOf(step: Step, parts: number): Group[] {
  const { forward, needed, readers, isForward } = step;
  const index = new Map(forward.map((node, i) => [node, i]));
  // The last place of the forward pass that reads a tensor, and what is handed over each place.
  const last = new Map<Tensor, number>();
  const handed = new Float64Array(forward.length + 1);
  forward.forEach((node, i) => {
    for (const y of node.outputs) {
      const x = storageOf(y);
      const read = (readers.get(y) ?? []).filter((reader) => isForward.has(reader)).map((reader) => index.get(reader)!);
      last.set(x, Math.max(last.get(x) ?? i, ...read));
    }
  });
  for (const [x, end] of last) {
    const from = index.get(x.node);
    if (from === undefined) continue;
    handed[from] += sizeInBytes(x);
    handed[end] -= sizeInBytes(x);
  }
  for (let i = 1; i < handed.length; i++) handed[i] += handed[i - 1];

  const made = new Float64Array(forward.length);
  for (const x of needed) made[index.get(x.node)!] += sizeInBytes(x);
  const each = made.reduce((a, b) => a + b, 0) / parts;
  const cuts: number[] = [-1];
  let filled = 0;
  let narrowest: number | undefined;
  for (let i = 0; i < forward.length; i++) {
    filled += made[i];
    if (filled < 0.75 * each) continue;
    if (narrowest === undefined || handed[i] <= handed[narrowest]) narrowest = i;
    if (filled < 1.25 * each) continue;
    cuts.push(narrowest);
    filled = made.slice(narrowest + 1, i + 1).reduce((a, b) => a + b, 0);
    narrowest = undefined;
  }
  cuts.push(forward.length - 1);
  return cuts.slice(1).flatMap((end, i) => {
    const inside = (node: Node): boolean => {
      const at = index.get(node);
      return at !== undefined && at > cuts[i] && at <= end;
    };
    const dropped = new Set(needed.filter((x) => inside(x.node) && last.get(x)! <= end));
    const group = groupOf(step, dropped, (x, gone) => !inside(storageOf(x).node) || step.isKept(x, gone));
    return dropped.size > 0 && group.bytes > 0 ? [group] : [];
  });
}

/** What the segments that are made again begin with. */
function pinnedBy(segments: readonly Group[]): Set<Tensor> {
  const pinned = new Set<Tensor>();
  for (const { dropped, stays } of segments) {
    const stack = [...dropped];
    const seen = new Set<Node>();
    for (let x = stack.pop(); x; x = stack.pop()) {
      if (seen.has(x.node)) continue;
      seen.add(x.node);
      for (const input of x.node.inputs) {
        if (!input) continue;
        if (stays(input, dropped)) pinned.add(storageOf(input));
        else stack.push(input);
      }
    }
  }
  return pinned;
}

/** The graph with what `groups` give up made again.  Every node is drawn anew, so that the order stays what it was. */
function redrawn(step: Step, groups: readonly Group[]): Graph {
  const now = new Map<Tensor, Tensor>();
  const current = (x: Tensor): Tensor => now.get(x) ?? x;
  const gone = new Set(groups.flatMap(({ dropped }) => [...dropped]));
  const again = new Map<Tensor, (x: Tensor) => Tensor>();
  for (const group of groups) {
    const gate = gateOf(step, group);
    if (!gate) continue;
    const draw = repeater((x) => group.stays(x, gone), current, gate);
    for (const x of group.dropped) again.set(x, draw);
  }
  for (const node of step.graph.nodes) {
    if (isGiven(node)) continue;
    const inputs = node.inputs.map((x) => {
      const draw = x && isGradient(node) ? again.get(storageOf(x)) : undefined;
      return x && (draw ? draw(x) : current(x));
    });
    const made = copy(node, inputs, node.scope);
    node.outputs.forEach((y, i) => void now.set(y, made[i]));
  }
  return new Graph(
    step.graph.inputs,
    [...step.graph.outputs].map(([name, y]): [string, Tensor] => [name, current(y)]),
  );
}

const copy = (
  { op, attrs, outputs }: Node,
  inputs: readonly (Tensor | undefined)[],
  scope: string,
): readonly Tensor[] => new Node(op, inputs, attrs, outputs, scope).outputs;

/**
 * The gradient that a group waits for: the last that is made before anything reads the group again, of those drawn before that.  It
 * keeps the repetition from running early, and the engine from merging it with what it repeats.
 */
function gateOf(step: Step, { dropped }: Group): Tensor | undefined {
  const reading = [...dropped].flatMap((x) => step.later.get(x)!);
  const drawn = Math.min(...reading.map(({ id }) => id));
  for (let i = Math.min(...reading.map((node) => step.place.get(node)!)) - 1; i >= 0; i--) {
    const node = step.order[i];
    const [y] = node.outputs;
    const begins = y.dtype === "float32" && y.shape.every((d) => !isOpen(d) && d > 0); // so that it has a first number
    if (isGradient(node) && node.id < drawn && begins) return y;
  }
  return undefined;
}

/** Draws tensors of a group again, each once. */
function repeater(stays: (x: Tensor) => boolean, current: (x: Tensor) => Tensor, gate: Tensor): (x: Tensor) => Tensor {
  const drawn = new Map<Tensor, Tensor>();
  const draw = (x: Tensor): Tensor => {
    const known = drawn.get(x);
    if (known) return known;
    const { node } = x;
    const inputs = node.inputs.map((input) => input && (stays(input) ? current(input) : draw(input)));
    const scope = `again:${node.scope}`;
    // One input that waits is enough, of those nodes that begin: the smallest, as a norm's scale.
    if (node.inputs.every((input, i) => !input || inputs[i] === current(input))) {
      const waiting = inputs.reduce<Tensor | undefined>((least, input) => {
        const fits = input && input.dtype !== "bool" && (!least || sizeInBytes(input) < sizeInBytes(least));
        return fits ? input : least;
      }, undefined);
      const place = inputs.indexOf(waiting);
      if (waiting) inputs[place] = withScope(scope, () => waitFor(waiting, current(gate)));
    }
    copy(node, inputs, scope).forEach((y, i) => void drawn.set(node.outputs[i], y));
    return drawn.get(x)!;
  };
  return draw;
}
