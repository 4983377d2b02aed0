import { countUses, Graph, readersOf, redraw, rewrite } from "../graph/graph.ts";
import { known, sameDim, sameShape } from "../graph/shape.ts";
import type { Node, Tensor } from "../graph/tensor.ts";
import { biasGelu, multiHeadAttention, skipLayerNorm } from "../ops/contrib.ts";
import { folded, valuesOf, weights } from "./fold.ts";

/**
 * What a fused graph is for: WebGPU, where ONNX Runtime's own operators save whole passes over memory; its processor ("cpu"), where
 * of these attention alone is faster (docs/notes/0004-speed.md); or, as "onnx", whatever runs standard operators.
 */
export type Target = "webgpu" | "cpu" | "onnx";

export interface FuseOptions {
  target: Target;
}

/** What to fuse for, given the device of a runtime. */
export const targetOf = (device: string): Target => (device === "webgpu" || device === "cpu" ? device : "onnx");

/** What stands for a node's outputs; undefined where the pattern does not fit. */
type Fuse = (node: Node, around: Around) => readonly Tensor[] | undefined;

export interface Pattern {
  name: string;
  /** ONNX operators at whose nodes it looks. */
  at: readonly string[];
  targets: readonly Target[];
  fuse: Fuse;
}

const everywhere: readonly Target[] = ["webgpu", "cpu", "onnx"];

export const patterns: readonly Pattern[] = [
  {
    name: "constants",
    at: ["Reshape", "Transpose", "Split", "Mul", "Div", "Add", "Sub"],
    targets: everywhere,
    fuse: (node) => folded(node),
  },
  { name: "bias into weights", at: ["Add"], targets: everywhere, fuse: biasIntoWeights },
  { name: "scale after", at: ["Mul", "Div"], targets: everywhere, fuse: scaleAfter },
  { name: "batch norm", at: ["BatchNormalization"], targets: everywhere, fuse: normIntoWeights },
  { name: "attention", at: ["Transpose"], targets: ["webgpu", "cpu"], fuse: attention },
  { name: "bias and gelu", at: ["Gelu"], targets: ["webgpu"], fuse: biasAndGelu },
  { name: "skip and norm", at: ["Add"], targets: ["webgpu"], fuse: skipAndNorm },
];

/** What a pattern may ask about the graph around a node. */
interface Around {
  /** Whether nothing else reads it. */
  once(x: Tensor): boolean;
  /** The nodes that read an output of the node being looked at. */
  readers(index?: number): readonly Node[];
  /** Says what a later node's outputs are. */
  settle(node: Node, outputs: readonly Tensor[]): void;
}

/**
 * The same function with fewer passes over memory, for inference: weights must be constants.  Biases, scales and batch norms go into the
 * weights of the product before them; for WebGPU a bias joins its GELU and a skip its layer norm, for it and the processor heads their attention.
 */
export function fuse(graph: Graph, { target }: FuseOptions): Graph {
  return applyPatterns(
    graph,
    patterns.filter((p) => p.targets.includes(target)),
  );
}

export function applyPatterns(graph: Graph, chosen: readonly Pattern[]): Graph {
  const uses = countUses(graph);
  const readers = readersOf(graph.nodes);
  const settled = new Map<Node, readonly Tensor[]>();
  const outputs = rewrite(graph.outputs, (node, _inputs, asItIs) => {
    const known = settled.get(node);
    if (known) return known;
    let made = asItIs();
    const around: Around = {
      once: (x) => (uses.get(x) ?? 1) === 1,
      readers: (index = 0) => readers.get(node.outputs[index]) ?? [],
      settle: (later, ys) => {
        settled.set(later, ys);
        ys.forEach((y, i) => void uses.set(y, uses.get(later.outputs[i]) ?? 0));
      },
    };
    for (;;) {
      const now = made[0].node;
      let next: readonly Tensor[] | undefined;
      for (const pattern of chosen) {
        if (!pattern.at.includes(now.op.name)) continue;
        next = pattern.fuse(now, around);
        if (next) break;
      }
      if (!next) break;
      made = next;
    }
    made.forEach((y, i) => void uses.set(y, uses.get(node.outputs[i]) ?? 0));
    return made;
  });
  return new Graph(graph.inputs, outputs);
}

/** What lies before reshapes that nothing else reads. */
function unshaped(x: Tensor, once: Around["once"]): Tensor | undefined {
  let y = x;
  while (y.node.op.name === "Reshape") {
    if (!once(y)) return undefined;
    y = y.node.inputs[0]!;
  }
  return y;
}

/** A product or convolution with constant weights, and along which axis of its result its channels lie. */
interface Weighted {
  node: Node;
  w: Tensor;
  bias?: Tensor;
  /** The axis of the weights that has a channel of the result for each place. */
  outAxis: number;
  channels: number;
}

function weighted(y: Tensor): Weighted | undefined {
  const { node } = y;
  const [, w, bias] = node.inputs;
  if (!valuesOf(w) || (bias && !valuesOf(bias))) return undefined;
  switch (node.op.name) {
    case "Gemm": {
      const { alpha = 1, beta = 1, transB } = node.attrs;
      if (alpha !== 1 || beta !== 1 || (bias && bias.rank !== 1)) return undefined;
      const outAxis = transB ? 0 : 1;
      if (bias && bias.shape[0] !== w!.shape[outAxis]) return undefined;
      return { node, w: w!, bias, outAxis, channels: known(w!.shape[outAxis]) };
    }
    case "MatMul":
      return w!.rank === 2 ? { node, w: w!, outAxis: 1, channels: known(w!.shape[1]) } : undefined;
    case "Conv":
      return { node, w: w!, bias, outAxis: 0, channels: known(w!.shape[0]) };
    default:
      return undefined;
  }
}

/** The number for each channel along `axis` counted from the end (-1: last) that a constant has; undefined where it varies along others. */
function perChannel(c: Tensor | undefined, y: Tensor, axis: number, channels: number): Float32Array | undefined {
  const values = valuesOf(c);
  if (!values || c!.rank > y.rank) return undefined;
  if (values.length === 1) return new Float32Array(channels).fill(values[0]);
  const place = c!.rank - (y.rank - axis);
  return values.length === channels && c!.shape[place] === channels ? values : undefined;
}

function rescaled(found: Weighted, factors: ArrayLike<number>, shifts?: ArrayLike<number>): readonly Tensor[] {
  const { node, w, bias, outAxis } = found;
  const values = valuesOf(w)!;
  const shape = w.shape as number[];
  const inner = shape.slice(outAxis + 1).reduce((a, b) => a * b, 1);
  const size = shape[outAxis];
  const scaled = weights(
    values.map((value, i) => value * factors[Math.floor(i / inner) % size]),
    shape,
    named(w),
  );
  const old = valuesOf(bias);
  const next =
    old || shifts
      ? weights(
          Float32Array.from({ length: size }, (_, i) => (old?.[i] ?? 0) * factors[i] + (shifts?.[i] ?? 0)),
          [size],
          named(bias) ?? named(w)?.replace(/weight$/, "bias"),
        )
      : undefined;
  return redraw(node, next ? [node.inputs[0], scaled, next] : [node.inputs[0], scaled]);
}

/** The name that a weight keeps when another is multiplied into it. */
const named = (x: Tensor | undefined): string | undefined => x?.node.attrs.name as string | undefined;

/** The axis of channels in what a weighted node makes, seen behind reshapes that keep it last. */
function channelsOf(y: Tensor, { node, channels }: Weighted): number | undefined {
  if (node.op.name === "Conv") return y === node.outputs[0] ? 1 : undefined;
  return y.shape[y.rank - 1] === channels ? y.rank - 1 : undefined;
}

const operands = ({ inputs: [a, b] }: Node): [Tensor, Tensor][] => [
  [a!, b!],
  [b!, a!],
];

function biasIntoWeights(node: Node, { once }: Around): readonly Tensor[] | undefined {
  for (const [y, c] of operands(node)) {
    const made = once(y) ? unshaped(y, once) : undefined;
    const found = made && weighted(made);
    if (!found || found.node.op.name === "MatMul" || !once(made!) || !sameShape(y.shape, node.outputs[0].shape))
      continue;
    const axis = channelsOf(y, found);
    const shifts = axis === undefined ? undefined : perChannel(c, y, axis, found.channels);
    if (shifts) return [rescaled(found, new Float32Array(found.channels).fill(1), shifts)[0].reshape(y.shape)];
  }
  return undefined;
}

function scaleAfter(node: Node, { once }: Around): readonly Tensor[] | undefined {
  const divides = node.op.name === "Div";
  // A constant divided by a product is no product with other weights.
  for (const [y, c] of divides ? operands(node).slice(0, 1) : operands(node)) {
    const made = once(y) ? unshaped(y, once) : undefined;
    const found = made && weighted(made);
    if (!found || !once(made!) || !sameShape(y.shape, node.outputs[0].shape)) continue;
    const axis = channelsOf(y, found);
    const factors = axis === undefined ? undefined : perChannel(c, y, axis, found.channels);
    if (factors)
      return [rescaled(found, divides ? Float64Array.from(factors, (f) => 1 / f) : factors)[0].reshape(y.shape)];
  }
  return undefined;
}

function normIntoWeights(node: Node, { once }: Around): readonly Tensor[] | undefined {
  const [y, ...rest] = node.inputs as Tensor[];
  const found = once(y) ? weighted(y) : undefined;
  const [scale, bias, mean, variance] = rest.map(valuesOf);
  if (!found || found.node.op.name === "MatMul" || channelsOf(y, found) !== 1) return undefined;
  if (!scale || !bias || !mean || !variance) return undefined;
  const { epsilon } = node.attrs as { epsilon: number };
  const factors = Float64Array.from(scale, (s, i) => s / Math.sqrt(variance[i] + epsilon));
  const shifts = Float64Array.from(bias, (b, i) => b - mean[i] * factors[i]);
  return rescaled(found, factors, shifts);
}

/** Its bias taken away from a Gemm: what follows adds it in its own pass. */
function withoutBias(y: Tensor, once: Around["once"]): { y: Tensor; bias: Tensor } | undefined {
  const made = once(y) ? unshaped(y, once) : undefined;
  const found = made && weighted(made);
  if (!found?.bias || found.node.op.name !== "Gemm" || !once(made!)) return undefined;
  const bare = redraw(found.node, found.node.inputs.slice(0, 2))[0];
  return { y: bare.reshape(y.shape), bias: found.bias };
}

function biasAndGelu(node: Node, { once }: Around): readonly Tensor[] | undefined {
  if (node.attrs.approximate) return undefined; // it knows the exact form alone
  const found = withoutBias(node.inputs[0]!, once);
  return found && [biasGelu(found.y, found.bias)];
}

function skipAndNorm(node: Node, { once, readers, settle }: Around): readonly Tensor[] | undefined {
  const [sum] = node.outputs;
  const [a, b] = node.inputs as [Tensor, Tensor];
  const norm = readers().find((n) => n.op.name === "LayerNormalization" && n.attrs.axis === sum.rank - 1);
  if (!norm || sum.rank < 3 || !sameShape(a.shape, b.shape)) return undefined;
  const [, scale, shift] = norm.inputs;
  if (!valuesOf(scale) || !valuesOf(shift)) return undefined;
  const take = withoutBias(b, once);
  const [x, skip] = take ? [take.y, a] : [a, b];
  const flat = (t: Tensor): Tensor => (t.rank === 3 ? t : t.reshape([t.shape[0], -1, t.shape[t.rank - 1]]));
  const [y, , , s] = skipLayerNorm([flat(x), flat(skip), scale, shift, take?.bias], { epsilon: norm.attrs.epsilon });
  settle(norm, [y.reshape(sum.shape)]);
  return [s.reshape(sum.shape)];
}

/** [B, heads, L, D] back to the [B, L, heads · D] that it was cut from. */
function heads(x: Tensor, perm: readonly number[], once: Around["once"]): Tensor | undefined {
  let [y, order] = [x, x.shape.map((_, i) => i)];
  while (y.node.op.name === "Transpose") {
    if (!once(y)) return undefined;
    const inner = y.node.attrs.perm as number[];
    order = order.map((p) => inner[p]);
    y = y.node.inputs[0]!;
  }
  if (y.node.op.name !== "Reshape" || !once(y) || !order.every((p, i) => p === perm[i])) return undefined;
  const [source] = y.node.inputs as Tensor[];
  const [batch, tokens, n, each] = y.shape;
  const flat = [batch, tokens, known(n) * known(each)];
  return sameShape(source.shape, flat) ? source : source.reshape(flat);
}

function attention(node: Node, { once }: Around): readonly Tensor[] | undefined {
  if (node.attrs.perm.join() !== "0,2,1,3") return undefined;
  const mixed = node.inputs[0]!;
  if (mixed.node.op.name !== "MatMul" || !once(mixed)) return undefined;
  const [p, v4] = mixed.node.inputs as Tensor[];
  if (p.node.op.name !== "Softmax" || p.node.attrs.axis !== p.rank - 1 || !once(p)) return undefined;
  const scores = p.node.inputs[0]!;
  if (scores.node.op.name !== "MatMul" || !once(scores)) return undefined;
  const [q4, kT] = scores.node.inputs as Tensor[];
  const [q, k, v] = [heads(q4, [0, 2, 1, 3], once), heads(kT, [0, 2, 3, 1], once), heads(v4, [0, 2, 1, 3], once)];
  if (!q || !k || !v || q.dtype !== "float32" || ![k, v].every((x) => sameDim(x.shape[0], q.shape[0])))
    return undefined;
  if (![kT, v4].every((x) => sameDim(x.shape[1], q4.shape[1]))) return undefined; // heads that share keys
  const y = multiHeadAttention(q, k, v, undefined, undefined, undefined, { heads: known(q4.shape[1]), scale: 1 });
  return [y.reshape(node.outputs[0].shape)];
}
