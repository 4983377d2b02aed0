import "../ops/methods.ts";
import { OrielError, ShapeError } from "../base/errors.ts";
import { isFloat } from "../graph/dtype.ts";
import { sortNodes } from "../graph/graph.ts";
import { broadcast, sameDim, sameShape, sizeOf } from "../graph/shape.ts";
import { type Node, scalar, type Tensor, withScope } from "../graph/tensor.ts";
import { columnSums } from "../ops/linalg.ts";
import { zerosLike } from "../ops/move.ts";

export interface GradientOptions {
  /** dL/d(loss): 1 by default, which asks for a loss with one element. */
  seed?: Tensor;
  /** What stands for a tensor that the loss does not depend on: an error (the default), or zeros. */
  unreached?: "error" | "zeros";
}

/** The sum of two gradients of one tensor.  What one of them repeats along axes, as that of a mean, addition repeats by itself. */
function sumOf(a: Tensor, b: Tensor): Tensor {
  const repeated = ({ node }: Tensor): Tensor | undefined => (node.op.name === "Expand" ? node.inputs[0] : undefined);
  const once = repeated(b);
  return once ? a.add(once) : (repeated(a) ?? a).add(b);
}

/**
 * The gradients of `loss` with respect to some tensors, as more graph: reverse-mode differentiation, one walk from the loss back.
 * May be called while drawing, and on its own results.
 */
export function gradients<const T extends readonly Tensor[]>(
  loss: Tensor,
  wrt: T,
  options: GradientOptions = {},
): { -readonly [K in keyof T]: Tensor } {
  const { seed, unreached = "error" } = options;
  const found = gradientsReached(loss, wrt, seed);
  const missing = wrt.filter((_, i) => !found[i]);
  if (missing.length > 0 && unreached === "error")
    throw new OrielError("autodiff", {
      message: `the loss does not depend on ${missing.length} of ${wrt.length} tensors`,
      details: missing.slice(0, 8).map((x) => `${x} drawn at ${x.node.scope || "the top"}`),
      help: 'leave them out, or ask for { unreached: "zeros" }',
    });
  return wrt.map((x, i) => found[i] ?? zerosLike(x)) as { -readonly [K in keyof T]: Tensor };
}

/** The same, undefined for a tensor that the loss does not depend on. */
export function gradientsReached(loss: Tensor, wrt: readonly Tensor[], seed?: Tensor): (Tensor | undefined)[] {
  if (!seed && sizeOf(loss.shape) !== 1)
    throw new ShapeError({
      message: `a loss has one element, this is ${loss}`,
      help: "reduce it by mean() or sum(); gradients of several elements take a seed, which says how each counts",
    });

  if (seed && !fits(seed, loss))
    throw new ShapeError({
      message: `a seed is a gradient of the loss, ${loss}, this is ${seed}`,
      help: "give one of its shape",
    });

  const nodes = sortNodes([loss]);
  const reaches = dependence(nodes, wrt);
  const found = new Map<Tensor, Tensor>([[loss, seed ?? scalar(1, loss.dtype).reshape(loss.shape)]]);
  const collect = (x: Tensor, dx: Tensor): void => {
    const before = found.get(x);
    found.set(x, before ? sumOf(before, dx) : dx);
  };

  for (const node of nodes.reverse()) {
    if (!node.inputs.some(reaches)) continue;
    const dys = node.outputs.map((y) => found.get(y));
    if (!dys.some(Boolean)) continue;
    const { gradient } = node.op;
    if (gradient === "none")
      throw new OrielError("autodiff", {
        message: `${node.op.name} has no gradient, but the loss depends on it`,
        at: node.scope || undefined,
        help: "stop the gradient before it, or give the function a rule with withGradient",
      });
    withScope(node.scope.startsWith("grad:") ? node.scope : `grad:${node.scope}`, () => {
      const dxs = gradient({ inputs: node.inputs, outputs: node.outputs, dys, attrs: node.attrs });
      node.inputs.forEach((x, i) => {
        const dx = dxs[i];
        if (x && dx && reaches(x)) collect(x, unbroadcast(dx, x));
      });
    });
  }
  return wrt.map((x) => found.get(x));
}

/** Whether a gradient is one of `y`, or repeats to one. */
function fits(dy: Tensor, y: Tensor): boolean {
  const both = broadcast(dy.shape, y.shape);
  return dy.dtype === y.dtype && both !== undefined && sameShape(both, y.shape);
}

/** Tells whether a tensor's value changes with one of `wrt`. */
function dependence(nodes: readonly Node[], wrt: readonly Tensor[]): (x: Tensor | undefined) => boolean {
  const wanted = new Set(wrt);
  const changing = new Set<Node>();
  const reaches = (x: Tensor | undefined): boolean => x !== undefined && (wanted.has(x) || changing.has(x.node));
  for (const node of nodes) if (node.inputs.some(reaches)) changing.add(node);
  return reaches;
}

/** Sums a gradient over the axes along which `x` was repeated. */
function unbroadcast(dx: Tensor, x: Tensor): Tensor {
  if (sameShape(dx.shape, x.shape)) return dx;
  // A rule may answer with a smaller tensor that broadcasts to x.
  const both = broadcast(dx.shape, x.shape);
  if (both && sameShape(both, x.shape)) return dx.expandAs(x);
  const extra = dx.rank - x.rank;
  // What every row was given, as a bias is, sums over the rows.
  const suffix = x.shape.slice(x.shape.findIndex((d) => d !== 1));
  if (suffix.length === 1 && isFloat(dx.dtype) && sameDim(suffix[0], dx.shape[dx.rank - 1]))
    return columnSums(dx).reshape(x.shape);
  const repeated = dx.shape.flatMap((d, i) => (i >= extra && sameDim(d, x.shape[i - extra]) ? [] : [i]));
  return dx.sum(repeated, true).reshape(x.shape);
}
