import "../ops/methods.ts";
import { OrielError, ShapeError } from "../base/errors.ts";
import { sortNodes } from "../graph/graph.ts";
import { isOpen, sameDim, sameShape, sizeOf } from "../graph/shape.ts";
import { type Node, scalar, type Tensor, withScope } from "../graph/tensor.ts";
import { zerosLike } from "../ops/move.ts";

export interface GradientOptions {
  /** dL/d(loss): 1 by default, which asks for a loss with one element. */
  seed?: Tensor;
  /** What stands for a tensor that the loss does not depend on: an error (the default), or zeros. */
  unreached?: "error" | "zeros";
}

/**
 * The gradients of `loss` with respect to some tensors, as more graph: reverse-mode differentiation, one walk from the loss back.
 * May be called while drawing, and on its own results.
 */
export function gradients(loss: Tensor, wrt: readonly Tensor[], options: GradientOptions = {}): Tensor[] {
  const { seed, unreached = "error" } = options;
  if (!seed && sizeOf(loss.shape) !== 1)
    throw new ShapeError({ message: `a loss has one element, this has ${loss}`, help: "reduce it, or give a seed" });

  const nodes = sortNodes([loss]);
  const reached = dependents(nodes, wrt);
  const found = new Map<Tensor, Tensor>([[loss, seed ?? scalar(1, loss.dtype).reshape(loss.shape)]]);
  const collect = (x: Tensor, dx: Tensor): void => {
    const before = found.get(x);
    found.set(x, before ? before.add(dx) : dx);
  };

  for (const node of nodes.reverse()) {
    if (!reached.has(node)) continue;
    const dys = node.outputs.map((y) => found.get(y));
    if (!dys.some(Boolean)) continue;
    const { gradient } = node.op;
    if (node.inputs.length === 0) continue;
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
        if (x && dx && reaches(x, reached, wrt)) collect(x, unbroadcast(dx, x));
      });
    });
  }

  const missing = wrt.filter((x) => !found.has(x));
  if (missing.length > 0 && unreached === "error")
    throw new OrielError("autodiff", {
      message: `the loss does not depend on ${missing.length} of ${wrt.length} tensors`,
      details: missing.slice(0, 8).map((x) => `${x} drawn at ${x.node.scope || "the top"}`),
      help: 'leave them out, or ask for { unreached: "zeros" }',
    });
  return wrt.map((x) => found.get(x) ?? zerosLike(x));
}

const reaches = (x: Tensor, reached: ReadonlySet<Node>, wrt: readonly Tensor[]): boolean =>
  reached.has(x.node) || wrt.includes(x);

/** The nodes whose values change with one of `wrt`. */
function dependents(nodes: readonly Node[], wrt: readonly Tensor[]): Set<Node> {
  const reached = new Set(wrt.map((x) => x.node));
  for (const node of nodes) if (node.inputs.some((x) => x && reached.has(x.node))) reached.add(node);
  return reached;
}

/** Sums a gradient over the axes along which `x` was repeated. */
function unbroadcast(dx: Tensor, x: Tensor): Tensor {
  if (sameShape(dx.shape, x.shape)) return dx;
  const extra = dx.rank - x.rank;
  const leading = Array.from({ length: Math.max(0, extra) }, (_, i) => i);
  const repeated = x.shape.flatMap((d, i) => (sameDim(d, dx.shape[i + extra]) ? [] : [i + extra]));
  // A rule may answer with a smaller tensor that broadcasts to x.
  if (repeated.some((axis) => x.shape[axis - extra] !== 1 || isOpen(x.shape[axis - extra]))) return dx.expandAs(x);
  const summed = repeated.length + leading.length > 0 ? dx.sum([...leading, ...repeated], true) : dx;
  return summed.reshape(x.shape);
}
