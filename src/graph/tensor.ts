import { ShapeError } from "../base/errors.ts";
import { arrayOf, type Data, type DType, dataOf } from "./dtype.ts";
import { isOpen, type Shape, showShape } from "./shape.ts";

/** What is known of a tensor before anything runs. */
export interface TensorType {
  dtype: DType;
  shape: Shape;
}

// biome-ignore lint/suspicious/noExplicitAny: attributes are typed where an op is defined; a node holds those of any op
export type Attrs = any;

/** What a node's gradient rule is given. */
export interface GradientContext {
  readonly inputs: readonly (Tensor | undefined)[];
  readonly outputs: readonly Tensor[];
  /** The gradient of each output; undefined where none arrived. */
  readonly dys: readonly (Tensor | undefined)[];
  readonly attrs: Attrs;
}

/** How an op is written down for ONNX: attributes, and the inputs that are constants there but attributes here. */
export interface OnnxForm {
  attributes?: Readonly<Record<string, number | string | readonly number[] | readonly string[] | FloatAttr | Body>>;
  /** Constant inputs, after the tensors. `undefined` leaves a place empty. */
  constants?: readonly ({ dtype: DType; shape: readonly number[]; data: Data } | undefined)[];
}

/** A number that ONNX wants as a float even where it is whole. */
export class FloatAttr {
  readonly value: number | readonly number[];
  constructor(value: number | readonly number[]) {
    this.value = value;
  }
}

/** A graph within a node, which runs it. */
export class Body {
  /** What each run is given. */
  readonly inputs: readonly Tensor[];
  /** Stand-ins for what it reads of the graph around it: the last inputs of the node, which ONNX does not write down. */
  readonly captured: readonly Tensor[];
  readonly outputs: readonly Tensor[];

  constructor(inputs: readonly Tensor[], captured: readonly Tensor[], outputs: readonly Tensor[]) {
    this.inputs = inputs;
    this.captured = captured;
    this.outputs = outputs;
  }

  toString(): string {
    return `(${this.inputs.join(", ")}) -> (${this.outputs.join(", ")})`;
  }
}

/** One operation: how it infers, differentiates, costs and is written.  Records live in `ops/`. */
export interface Op {
  /** ONNX operator type, or a leaf: "Input", "Constant". */
  readonly name: string;
  /** "" for ai.onnx. */
  readonly domain: string;
  readonly inputNames: readonly string[] | "variadic";
  infer(inputs: readonly (Tensor | undefined)[], attrs: Attrs): TensorType[];
  /** Gradients of the inputs in their order; null where none flows.  "none": it cannot be differentiated. */
  readonly gradient: "none" | ((context: GradientContext) => readonly (Tensor | null | undefined)[]);
  /** Multiply-adds of one call. */
  cost(node: Node): number;
  onnx(attrs: Attrs, node: Node): OnnxForm;
  /** Where the op is no ONNX operator itself: the outputs drawn from those that are. */
  readonly lower?: (inputs: readonly (Tensor | undefined)[], attrs: Attrs) => readonly Tensor[];
}

let created = 0;

/** An operation applied to tensors.  Immutable; `id` counts in order of creation. */
export class Node {
  readonly id = created++;
  readonly op: Op;
  readonly inputs: readonly (Tensor | undefined)[];
  readonly attrs: Attrs;
  readonly outputs: readonly Tensor[];
  /** The module that drew it: `stages.0.blocks.1.attn`. */
  readonly scope: string;

  constructor(
    op: Op,
    inputs: readonly (Tensor | undefined)[],
    attrs: Attrs,
    types: readonly TensorType[],
    scope: string,
  ) {
    this.op = op;
    this.inputs = inputs;
    this.attrs = attrs;
    this.scope = scope;
    this.outputs = types.map((type, i) => new Tensor(type.dtype, type.shape, this, i));
  }
}

/**
 * A typed value that a graph will compute.  Arithmetic reads as methods (`x.add(y)`), which `ops/methods.ts` gives it; what
 * has options reads as functions (`softmax(x, { axis })`).
 */
export class Tensor {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly node: Node;
  readonly index: number;

  constructor(dtype: DType, shape: Shape, node: Node, index: number) {
    this.dtype = dtype;
    this.shape = shape;
    this.node = node;
    this.index = index;
  }

  get rank(): number {
    return this.shape.length;
  }

  toString(): string {
    return `${this.dtype} ${showShape(this.shape)}`;
  }
}

const leafOp = (name: string): Op => ({
  name,
  domain: "",
  inputNames: [],
  infer: () => [],
  gradient: "none",
  cost: () => 0,
  onnx: () => ({}),
});

/** A leaf that a run is given: an input, a parameter, a buffer. */
export const leaf = leafOp("Input");
/** A leaf whose values are known. */
export const constantOp = leafOp("Constant");

/** An input of a graph.  [shape] of `dtype` */
export function input(shape: Shape, dtype: DType = "float32"): Tensor {
  if (!shape.every((d) => isOpen(d) || (Number.isInteger(d) && d >= 0)))
    throw new ShapeError({
      message: `an input cannot be ${showShape(shape)}`,
      help: 'sizes are whole numbers; new OpenDim("N") is one that is known only when it runs',
    });
  return new Node(leaf, [], {}, [{ dtype, shape }], scope()).outputs[0];
}

/** Values known while drawing.  One with a name keeps it when the graph is written: weights do. */
export function constant(data: Data, shape: readonly number[], dtype: DType, name?: string): Tensor {
  const kind = arrayOf(dtype).name;
  if (data[Symbol.toStringTag] !== kind)
    throw new ShapeError({
      message: `a constant of ${dtype} has its values as ${kind}, not as ${data[Symbol.toStringTag]}`,
      help: "name the dtype that the array has, and cast what is drawn",
    });
  const size = shape.reduce((a, b) => a * b, 1);
  if (data.length !== size)
    throw new ShapeError({
      message: `a constant of shape ${showShape(shape)} has ${size} values, ${data.length} came`,
      at: name,
    });
  return new Node(constantOp, [], { data, name }, [{ dtype, shape }], scope()).outputs[0];
}

/** One number, as a tensor without axes. */
export const scalar = (value: number, dtype: DType = "float32"): Tensor => constant(dataOf(dtype, [value]), [], dtype);

/** The values of a constant, or undefined. */
export const constantData = (x: Tensor | undefined): Data | undefined =>
  x?.node.op === constantOp ? (x.node.attrs.data as Data) : undefined;

const scopes: string[] = [""];

/** The path of the module that is drawing. */
export const scope = (): string => scopes[scopes.length - 1];

/** Draws under another path. */
export function withScope<T>(path: string, draw: () => T): T {
  scopes.push(path);
  try {
    return draw();
  } finally {
    scopes.pop();
  }
}
