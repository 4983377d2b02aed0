import { OrielError } from "../base/errors.ts";
import { floatsOf } from "../graph/dtype.ts";
import { type OnnxModel, type OnnxNode, type OnnxTensor, valuesOf } from "../graph/onnx/model.ts";
import { isOpen } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { Linear } from "../nn/layers.ts";
import { Module, weightsOf } from "../nn/module.ts";
import { OnnxModule } from "../nn/onnx-module.ts";
import type { Backbone } from "./backbone.ts";

/** The linear layer at the end of an imported classifier, as PyTorch would hold it. */
export interface FoundHead {
  /** The value that it reads, [N, dim]. */
  features: string;
  dim: number;
  classes: number;
  /** [classes, dim] */
  weight: Float32Array<ArrayBuffer>;
  bias: Float32Array<ArrayBuffer>;
  /** "head.fc" where its weight is called "head.fc.weight"; "head" where the file has no such name. */
  name: string;
}

/** What may stand behind a classifier without changing what is classified. */
const behind = new Set([
  "Softmax",
  "LogSoftmax",
  "Sigmoid",
  "Identity",
  "Flatten",
  "Reshape",
  "Squeeze",
  "Cast",
  "Dropout",
]);

/**
 * Finds the classifier of an imported model: the last Gemm, or MatMul and Add, before the output.  A softmax behind it is left
 * out: a loss wants the logits.
 */
export function findHead(model: OnnxModel): FoundHead {
  const { graph, at } = model;
  const maker = new Map(graph.nodes.flatMap((node) => node.outputs.map((name) => [name, node] as const)));
  const wrong = (message: string): OrielError =>
    new OrielError("onnx", {
      message: `no classifier was found at the end of the model: ${message}`,
      at,
      help: "a classifier is a Gemm, or a MatMul and an Add, with a softmax behind it or not",
    });
  if (graph.outputs.length !== 1) throw wrong(`it has ${graph.outputs.length} outputs`);
  let node = maker.get(graph.outputs[0]);
  while (node && behind.has(node.op)) node = maker.get(node.inputs[0]);
  const constantOf = (name: string): Matrix | undefined => matrixOf(name, model, maker);
  if (
    node?.op === "Gemm" &&
    number(node, "alpha", 1) === 1 &&
    number(node, "beta", 1) === 1 &&
    !number(node, "transA", 0)
  ) {
    const [features, weight, bias] = node.inputs;
    const w = constantOf(weight);
    if (w) return head(features, number(node, "transB", 0) ? w : transposed(w), bias ? constantOf(bias) : undefined);
  }
  if (node?.op === "Add") {
    const product = node.inputs.map((name) => maker.get(name)).find((n) => n?.op === "MatMul");
    const bias = node.inputs.map(constantOf).find((m) => m !== undefined);
    const w = product && constantOf(product.inputs[1]);
    if (product && w && bias) return head(product.inputs[0], transposed(w), bias);
  }
  if (node?.op === "MatMul") {
    const w = constantOf(node.inputs[1]);
    if (w) return head(node.inputs[0], transposed(w), undefined);
  }
  throw wrong(node ? `it ends in ${node.op}` : "it ends in nothing that is computed");

  function head(features: string, w: Matrix, bias: Matrix | undefined): FoundHead {
    if (w.shape.length !== 2) throw wrong(`its weight is [${w.shape}]`);
    const [classes, dim] = w.shape;
    const values = bias?.values() ?? new Float32Array(classes);
    if (values.length !== classes) throw wrong(`its bias has ${values.length} numbers for ${classes} classes`);
    const [, name] = /^(.+)\.weight$/.exec(w.name) ?? [];
    return { features, dim, classes, weight: w.values(), bias: values, name: name ?? "head" };
  }
}

const number = (node: OnnxNode, name: string, fallback: number): number => {
  const value = node.attributes.get(name);
  return typeof value === "number" ? value : fallback;
};

/** A constant of the file, turned around where a node does that. */
interface Matrix {
  name: string;
  shape: readonly number[];
  values(): Float32Array<ArrayBuffer>;
}

function matrixOf(name: string, { graph, at }: OnnxModel, maker: ReadonlyMap<string, OnnxNode>): Matrix | undefined {
  const node = maker.get(name);
  const found: OnnxTensor | undefined = graph.initializers.get(name) ?? (constantIn(node) as OnnxTensor | undefined);
  if (found)
    return { name, shape: found.shape, values: () => Float32Array.from(floatsOf(found.dtype, valuesOf(found, at))) };
  if (node?.op !== "Transpose" && node?.op !== "Identity") return undefined;
  const inner = graph.initializers.get(node.inputs[0]);
  if (!inner) return undefined;
  const source = matrixOf(node.inputs[0], { graph, at } as OnnxModel, maker)!;
  return node.op === "Identity" ? { ...source, name } : transposed(source);
}

const constantIn = (node: OnnxNode | undefined) => (node?.op === "Constant" ? node.attributes.get("value") : undefined);

/** [A, B] -> [B, A] */
function transposed(matrix: Matrix): Matrix {
  const [rows, columns] = matrix.shape;
  return {
    name: matrix.name,
    shape: matrix.shape.toReversed(),
    values: () => {
      const from = matrix.values();
      return Float32Array.from({ length: from.length }, (_, i) => from[(i % rows) * columns + Math.floor(i / rows)]);
    },
  };
}

/** Names that a training step has uses of its own for. */
const taken = /^(image|target|lr|step|seed|loss|accuracy|gradNorm|logits|(next|ema|optimizer)\..*)$/;

/**
 * An imported classifier without its last layer: a backbone like any other, but that it gives no maps of its stages, since a file
 * does not say where they end.  Its weights are named after the file's, and begin with the file's values.
 */
export class ImportedBackbone extends Module implements Backbone {
  readonly channels = [];
  readonly strides = [];
  readonly dim: number;
  readonly headName: string;
  readonly body: OnnxModule;
  readonly found: FoundHead;

  constructor(model: OnnxModel) {
    super();
    this.found = findHead(model);
    this.dim = this.found.dim;
    checkImageInput(model);
    this.body = new OnnxModule(model, { outputs: [this.found.features] });
    const names = weightsOf(this.body).map((w) => w.path);
    const { name } = this.found;
    this.headName = names.some((path) => path === name || path.startsWith(`${name}.`)) ? `classifier.${name}` : name;
  }

  override *parts(): Iterable<[string, Module | Tensor]> {
    for (const [name, part] of this.body.parts()) yield [taken.test(name) ? `model.${name}` : name, part];
  }

  forward(): Tensor[] {
    return [];
  }

  embed(image: Tensor): Tensor {
    const [y] = this.body.forward(image);
    return y.reshape([image.shape[0], this.dim]);
  }

  /** A classifier for `classes`: the file's own where it is for as many, else a new one. */
  classifier(classes: number): Linear {
    const { weight, bias } = this.found;
    if (classes !== this.found.classes) return new Linear(this.dim, classes);
    return new Linear(this.dim, classes, { init: () => weight.slice(), biasInit: () => bias.slice() });
  }

  /** The side of the pictures that the file was made for; undefined where it leaves that open. */
  get imageSize(): number | undefined {
    const [, , height, width] = this.body.inputs[0].shape;
    return !isOpen(height) && height === width ? height : undefined;
  }
}

function checkImageInput({ inputs, at }: OnnxModel): void {
  const [{ name, dtype, shape } = { name: "", dtype: "", shape: [] }] = inputs;
  const fits =
    inputs.length === 1 &&
    (dtype === "float32" || dtype === "float16") &&
    shape.length === 4 &&
    (shape[1] === 3 || isOpen(shape[1]));
  if (fits) return;
  throw new OrielError("onnx", {
    message: "a model that learns to classify reads pictures as float32 [N, 3, H, W]",
    at,
    details: inputs.map((value) => `${value.name}: ${value.dtype} [${value.shape.join(", ")}]`),
    help: name && dtype === "uint8" ? "export it with --input float32" : undefined,
  });
}
