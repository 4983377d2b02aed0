import "../methods.ts";
import { OrielError, ShapeError } from "../../base/errors.ts";
import { type DType, isFloat } from "../../graph/dtype.ts";
import type { OnnxAttribute, OnnxNode, OnnxTensor } from "../../graph/onnx/model.ts";
import { isGraph, isTensor } from "../../graph/onnx/model.ts";
import { type Dim, isOpen, normalAxis, type Shape, sizeForOne } from "../../graph/shape.ts";
import { constant, Tensor } from "../../graph/tensor.ts";
import { concat, reshape, shapeOf } from "../move.ts";
import { isKnown, Known, type Value } from "./known.ts";

/** What a model does otherwise when it trains. */
export interface Training {
  /** Batch normalisation: by the batch's own statistics, say. */
  batchNorm(
    inputs: { x: Tensor; scale: Tensor; bias: Tensor; mean: Tensor; variance: Tensor },
    attrs: { epsilon: number; momentum: number },
  ): Tensor;
  dropout(x: Tensor, rate: number): Tensor;
}

/** What all nodes of a drawing share. */
export interface Surroundings {
  /** Version of each operator set that the model asks for. */
  opsets: Readonly<Record<string, number>>;
  /** Where an open size can be read while the graph runs. */
  open: ReadonlyMap<string, { tensor: Tensor; axis: number }>;
  /** How many images the file's own shapes were made for, where it is drawn for another number. */
  madeFor?: number;
  training?: Training;
  /** The values of a tensor of the file. */
  read(tensor: OnnxTensor): Value;
  /** Draws a branch. */
  branch(graph: Extract<OnnxAttribute, { nodes: unknown }>): Value[];
}

/** Half precision is computed in float32: the processor has no kernels for it, and weights learn better so. */
export const computed = (dtype: DType): DType => (dtype === "float16" || dtype === "bfloat16" ? "float32" : dtype);

/** One node while it is drawn: its inputs and attributes as an operation asks for them. */
export class At {
  readonly node: OnnxNode;
  readonly around: Surroundings;
  readonly inputs: readonly (Value | undefined)[];
  constructor(node: OnnxNode, around: Surroundings, inputs: readonly (Value | undefined)[]) {
    this.node = node;
    this.around = around;
    this.inputs = inputs;
  }

  /** Version of the operator set that the node belongs to. */
  get opset(): number {
    return this.around.opsets[this.node.domain] ?? 1;
  }

  wrong(message: string, help?: string): OrielError {
    return new OrielError("onnx", { message: `${this.node.op} ${message}`, at: nameOf(this.node), help });
  }

  has(i: number): boolean {
    return this.inputs[i] !== undefined;
  }

  value(i: number): Value {
    const value = this.inputs[i];
    if (value) return value;
    throw this.wrong(`lacks its input ${i}`);
  }

  x(i: number): Tensor {
    return this.tensor(this.value(i));
  }

  /** A tensor that may be left out. */
  maybe(i: number): Tensor | undefined {
    const value = this.inputs[i];
    return value && this.tensor(value);
  }

  /** The shape of an input, which a tensor need not be made for. */
  shape(i: number): Shape {
    return this.value(i).shape;
  }

  axis(axis: number, rank: number): number {
    return normalAxis(axis, rank);
  }

  known(i: number): Known | undefined {
    const value = this.inputs[i];
    return isKnown(value) ? value : undefined;
  }

  /** Sizes, axes and the like; some may be open. */
  dims(i: number, what: string): readonly Dim[] {
    const value = this.value(i);
    if (isKnown(value)) return value.values;
    throw this.wrong(
      `has ${what} that are computed from values of the image`,
      "a graph's shapes may depend on the sizes of its inputs only",
    );
  }

  /** The same where none may be open. */
  numbers(i: number, what: string): number[] {
    return this.dims(i, what).map((d) => {
      if (isOpen(d)) throw this.wrong(`has ${what} that depend on ${d}`, "export it with a fixed size there");
      return d;
    });
  }

  number(i: number, what: string, fallback?: number): number {
    if (!this.has(i) && fallback !== undefined) return fallback;
    const [value, ...others] = this.numbers(i, what);
    if (value === undefined || others.length > 0) throw this.wrong(`wants one number for ${what}`);
    return value;
  }

  /** A number that an attribute gives. */
  attr(name: string, fallback: number): number {
    return this.#attribute(name, "number", fallback) as number;
  }

  text(name: string, fallback: string): string {
    return this.#attribute(name, "string", fallback) as string;
  }

  ints(name: string): readonly number[] | undefined {
    const value = this.node.attributes.get(name);
    if (value === undefined) return undefined;
    if (Array.isArray(value) && value.every((v) => typeof v === "number")) return value as number[];
    throw this.wrong(`has a ${name} that is no list of numbers`);
  }

  tensorOf(name: string): OnnxTensor | undefined {
    const value = this.node.attributes.get(name);
    if (value === undefined) return undefined;
    if (isTensor(value)) return value;
    throw this.wrong(`has a ${name} that is no tensor`);
  }

  graph(name: string) {
    const value = this.node.attributes.get(name);
    if (value !== undefined && isGraph(value)) return value;
    throw this.wrong(`has no ${name}`);
  }

  #attribute(name: string, type: "number" | "string", fallback: number | string): OnnxAttribute {
    const value = this.node.attributes.get(name);
    if (value === undefined) return fallback;
    if (typeof value === type) return value;
    throw this.wrong(`has a ${name} that is no ${type}`);
  }

  /** Axes from an attribute, or since some version from an input. */
  axes(i: number): readonly number[] | undefined {
    return this.ints("axes") ?? (this.has(i) ? this.numbers(i, "axes") : undefined);
  }

  /** What was known put into the graph: a constant, or sizes that the run reads from an input. */
  tensor(value: Value): Tensor {
    if (value instanceof Tensor) return value;
    if (value.isStatic) return value.constant();
    const sizes = value.values.map((d): Tensor => {
      if (!isOpen(d)) return new Known("int64", [1], [d]).constant();
      const from = this.around.open.get(d.name);
      if (!from) throw this.wrong(`needs the size ${d}, which no input has`);
      const size = shapeOf(from.tensor, { start: from.axis, end: from.axis + 1 });
      return d.times === 1 ? size : size.mul(constant(BigInt64Array.of(BigInt(d.times)), [1], "int64"));
    });
    if (value.dtype !== "int64") throw this.wrong(`computes sizes as ${value.dtype}`);
    const flat = concat(sizes, 0);
    return value.shape.length === 1 ? flat : reshape(flat, value.shape);
  }
}

export const nameOf = ({ name, op, outputs }: OnnxNode): string => name || `${op} that makes ${outputs[0]}`;

/** Whether values are floats. */
export const floats = (value: Value): boolean => isFloat(value.dtype);

/** A list of sizes must be plausible: an axis beyond this is a broken file. */
export const checkSize = (shape: Shape): void => {
  const size = sizeForOne(shape);
  if (!(size <= 2 ** 36)) throw new ShapeError(`a tensor of [${shape.join(", ")}] is larger than any model makes`);
};

/** Draws the outputs of one node. */
export type Importer = (at: At) => Value | readonly Value[];
