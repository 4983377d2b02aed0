import { ShapeError } from "../base/errors.ts";
import { broadcast, type Shape, showShape } from "../graph/shape.ts";
import { Node, type OnnxForm, type Op, scope, type Tensor, type TensorType } from "../graph/tensor.ts";

type Required<I extends readonly string[]> = Exclude<I[number], `${string}?`>;
type Optional<I extends readonly string[]> = I[number] extends infer N ? (N extends `${infer B}?` ? B : never) : never;

/** Inputs by name; those whose name ends in `?` may be missing. */
export type Named<I extends readonly string[]> = { [K in Required<I>]: Tensor } & { [K in Optional<I>]?: Tensor };
/** Gradients by input name.  Every input is answered for: a forgotten one does not compile, null says that none flows. */
export type Gradients<I extends readonly string[]> = { [K in Required<I> | Optional<I>]: Tensor | null };
type Positional<I extends readonly string[]> = {
  [K in keyof I]: I[K] extends `${string}?` ? Tensor | undefined : Tensor;
};

interface Common<A> {
  /** ONNX operator type. */
  onnx: string;
  domain?: string;
  /** Multiply-adds of a call; 0 where it is not given. */
  cost?: (inputs: readonly (Tensor | undefined)[], outputs: readonly Tensor[], attrs: A) => number;
  /** Attributes and constant inputs of the ONNX node.  By default every attribute is written as it is. */
  form?: (attrs: A, node: Node) => OnnxForm;
}

interface OpSpec<I extends readonly string[], A> extends Common<A> {
  inputs: I;
  infer: (inputs: Named<I>, attrs: A) => TensorType;
  /** The vector-Jacobian product: from dy to the gradient of each input. */
  vjp: "none" | ((inputs: Named<I>, dy: Tensor, context: { y: Tensor; attrs: A }) => Gradients<I>);
  lower?: (inputs: Named<I>, attrs: A) => Tensor;
}

/** Every op by ONNX domain and name, for reading graphs. */
export const registry = new Map<string, Op>();

function register(op: Op): Op {
  const key = op.domain ? `${op.domain}.${op.name}` : op.name;
  // Several ops may write the same ONNX operator; the first is the general one.
  if (!registry.has(key)) registry.set(key, op);
  return op;
}

/** Runs `draw`.  Where shapes do not fit, the error says in which operation, on what, and in which module. */
export function explained<T>(
  operation: string,
  inputs: readonly (Tensor | undefined)[],
  names: readonly string[] | "variadic",
  draw: () => T,
): T {
  try {
    return draw();
  } catch (error) {
    // The innermost operation has explained it already.
    if (!(error instanceof ShapeError) || error.facts.details) throw error;
    const details = inputs.map((x, i) => (x ? `${names === "variadic" ? i : names[i].replace("?", "")}: ${x}` : ""));
    throw new ShapeError({
      ...error.facts,
      message: `${operation}: ${error.facts.message}`,
      at: error.facts.at ?? (scope() || undefined),
      details: details.filter(Boolean),
    });
  }
}

/** Applies `op`, naming it and the module where the shapes do not fit. */
export function apply(op: Op, inputs: readonly (Tensor | undefined)[], attrs: unknown): readonly Tensor[] {
  const draw = () => new Node(op, inputs, attrs, op.infer(inputs, attrs), scope()).outputs;
  return explained(op.name, inputs, op.inputNames, draw);
}

/** Two inputs of one operation have one dtype. */
export function sameDtype(a: Tensor, b: Tensor | undefined): void {
  if (b && a.dtype !== b.dtype)
    throw new ShapeError({ message: `dtypes differ, ${a.dtype} and ${b.dtype}`, help: "cast one of them" });
}

/** The shape that both broadcast to. */
export function broadcastShape(a: Tensor, b: Tensor): Shape {
  const shape = broadcast(a.shape, b.shape);
  if (shape) return shape;
  throw new ShapeError({
    message: `${showShape(a.shape)} and ${showShape(b.shape)} do not broadcast`,
    help: "counted from the last, axes must be equal, or one of them 1",
  });
}

const defaultForm = (attrs: unknown): OnnxForm => ({ attributes: attrs as OnnxForm["attributes"] });

/** Draws an op: `op(a, b, attrs)`.  Named where a rule uses its own op, since a type cannot be inferred from itself. */
export type Draw<I extends readonly string[], A extends object = Record<never, never>> = (
  ...args: [...inputs: Positional<I>, ...(Record<never, never> extends A ? [attrs?: A] : [attrs: A])]
) => Tensor;

/** An op with named inputs and one output.  Calling it draws it: `op(a, b, attrs)`. */
export function defineOp<const I extends readonly string[], A extends object = Record<never, never>>(
  spec: OpSpec<I, A>,
): Draw<I, A> {
  const names = spec.inputs.map((name) => name.replace("?", ""));
  const byName = (inputs: readonly (Tensor | undefined)[]): Named<I> =>
    Object.fromEntries(names.map((name, i) => [name, inputs[i]])) as Named<I>;
  const { vjp, lower } = spec;
  const op = register({
    name: spec.onnx,
    domain: spec.domain ?? "",
    inputNames: spec.inputs,
    infer: (inputs, attrs: A) => [spec.infer(byName(inputs), attrs)],
    gradient:
      vjp === "none"
        ? "none"
        : ({ inputs, outputs, dys, attrs }) => {
            const given = vjp(byName(inputs), dys[0] as Tensor, { y: outputs[0], attrs }) as Record<
              string,
              Tensor | null
            >;
            return names.map((name) => given[name]);
          },
    cost: (node) => spec.cost?.(node.inputs, node.outputs, node.attrs) ?? 0,
    onnx: spec.form ?? defaultForm,
    lower: lower && ((inputs, attrs: A) => [lower(byName(inputs), attrs)]),
  });
  return (...args) => apply(op, args.slice(0, names.length) as (Tensor | undefined)[], args[names.length] ?? {})[0];
}

interface ManySpec<A> extends Common<A> {
  /** Names of the inputs, or "variadic" for any number. */
  inputs: readonly string[] | "variadic";
  infer: (inputs: readonly Tensor[], attrs: A) => TensorType[];
  /** Gradients of the inputs in order.  `dys` has undefined where no gradient arrived. */
  vjp:
    | "none"
    | ((
        inputs: readonly Tensor[],
        dys: readonly (Tensor | undefined)[],
        context: { ys: readonly Tensor[]; attrs: A },
      ) => readonly (Tensor | null)[]);
}

/** Draws an op of many inputs or outputs. */
export type DrawMany<A extends object> = (inputs: readonly (Tensor | undefined)[], attrs: A) => readonly Tensor[];

/** An op with any number of inputs or several outputs. */
export function defineMany<A extends object = Record<never, never>>(spec: ManySpec<A>): DrawMany<A> {
  const { vjp } = spec;
  const op = register({
    name: spec.onnx,
    domain: spec.domain ?? "",
    inputNames: spec.inputs,
    infer: (inputs, attrs: A) => spec.infer(inputs as readonly Tensor[], attrs),
    gradient:
      vjp === "none"
        ? "none"
        : ({ inputs, outputs, dys, attrs }) => vjp(inputs as readonly Tensor[], dys, { ys: outputs, attrs }),
    cost: (node) => spec.cost?.(node.inputs, node.outputs, node.attrs) ?? 0,
    onnx: spec.form ?? defaultForm,
  });
  return (inputs, attrs) => apply(op, inputs, attrs);
}
