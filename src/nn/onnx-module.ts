import { OrielError, UsageError } from "../base/errors.ts";
import { floatsOf } from "../graph/dtype.ts";
import { Graph } from "../graph/graph.ts";
import { type OnnxModel, type OnnxNode, type OnnxTensor, readModel, valuesOf } from "../graph/onnx/model.ts";
import type { ModelValue } from "../graph/onnx/read.ts";
import { type Dim, isOpen, type Shape, sameDim } from "../graph/shape.ts";
import { input, type Tensor } from "../graph/tensor.ts";
import { batchNorm } from "../ops/norm.ts";
import { computed } from "../ops/onnx/at.ts";
import { drawOnnx, neededNodes, type Training } from "../ops/onnx/draw.ts";
import { batchNormUpdating, dropout } from "./layers.ts";
import { Module } from "./module.ts";
import { isTraining } from "./trace.ts";

export interface OnnxModuleOptions {
  /** Names of the values to give; by default the model's outputs.  Any value of the graph has a name. */
  outputs?: readonly string[];
}

/**
 * A model that another tool exported, as a module: its weights are parameters named after the file's initialisers, the running
 * statistics of its batch norms are buffers, and whatever is done with a model of ours can be done with it.  Their initial values
 * are those of the file.
 */
export class OnnxModule extends Module {
  readonly model: OnnxModel;
  readonly #outputs: readonly string[];
  readonly #weights = new Map<string, Tensor>();

  constructor(model: OnnxModel, { outputs = model.graph.outputs }: OnnxModuleOptions = {}) {
    super();
    this.model = model;
    this.#outputs = outputs;
    for (const [name, { kind, tensor }] of findWeights(model, outputs)) {
      const values = () => Float32Array.from(floatsOf(tensor.dtype, valuesOf(tensor, model.at)));
      const shape = tensor.shape as number[];
      this.#weights.set(name, kind === "parameter" ? this.param(shape, values) : this.buffer(shape, values));
    }
  }

  /** What a run must be given. */
  get inputs(): readonly ModelValue[] {
    return this.model.inputs;
  }

  override *parts(): Iterable<[string, Module | Tensor]> {
    yield* this.#weights;
  }

  /** One tensor for each input, in the file's order -> one for each output.  The batch may differ from the file's. */
  forward(...given: Tensor[]): Tensor[] {
    const { inputs } = this.model;
    if (given.length !== inputs.length)
      throw new UsageError({
        message: `the model reads ${inputs.length} tensors, ${given.length} came`,
        details: inputs.map(({ name, dtype, shape }) => `${name}: ${dtype} [${shape.join(", ")}]`),
        at: this.model.at,
      });
    given.forEach((tensor, i) => void checkGiven(inputs[i], tensor));
    return drawOnnx(this.model, new Map(given.map((tensor, i) => [inputs[i].name, tensor])), {
      outputs: this.#outputs,
      weight: (name) => this.#weights.get(name),
      training: isTraining() ? training : undefined,
    });
  }

  /**
   * (inputs, weights) -> outputs, under the file's names.  `sizes` has a number for open axes by their names, those beyond the batch;
   * `batch` another size for the first axis of every input.
   */
  graph({ sizes = {}, batch }: { sizes?: Readonly<Record<string, number>>; batch?: Dim } = {}): Graph {
    const inputs = this.model.inputs.map(({ name, dtype, shape }): [string, Tensor] => {
      const own = shape.map((d, axis): Dim => {
        if (axis === 0 && batch !== undefined) return batch;
        return isOpen(d) ? (sizes[d.name] ?? d) : d;
      });
      checkOpen(name, own);
      return [name, input(own, computed(dtype))];
    });
    const drawn = this.forward(...inputs.map(([, tensor]) => tensor));
    return new Graph(
      [...inputs, ...this.#weights],
      this.#outputs.map((name, i): [string, Tensor] => [name, drawn[i]]),
    );
  }
}

/** Reads an ONNX model from memory as a module.  What lies in other files must have been fetched before: see `loadExternal`. */
export function importOnnx(model: Uint8Array<ArrayBuffer> | OnnxModel, options?: OnnxModuleOptions): OnnxModule {
  if (model instanceof Uint8Array) return new OnnxModule(readModel(model), options);
  if (model?.graph) return new OnnxModule(model, options);
  throw new UsageError({
    message: "importOnnx takes the bytes of a file, or what readModel or openOnnxModel made of it",
    help: "new Uint8Array(buffer) makes bytes of an ArrayBuffer; openOnnxModel of oriel/weights reads a path",
  });
}

function checkOpen(name: string, shape: Shape): void {
  const open = shape.filter((d, axis) => isOpen(d) && axis > 0);
  if (open.length === 0) return;
  throw new UsageError({
    message: `the input "${name}" has the open axes ${open.join(" and ")} beside the batch`,
    help: `give their sizes: { sizes: { ${open.map((d) => `"${d}": 224`).join(", ")} } }`,
  });
}

function checkGiven({ name, dtype, shape }: ModelValue, tensor: Tensor): void {
  const fits =
    tensor.rank === shape.length &&
    shape.every((d, axis) => axis === 0 || isOpen(d) || sameDim(d, tensor.shape[axis])) &&
    (tensor.dtype === dtype || tensor.dtype === computed(dtype));
  if (fits) return;
  throw new OrielError("onnx", { message: `the input "${name}" is ${dtype} [${shape.join(", ")}], ${tensor} came` });
}

const training: Training = {
  batchNorm: ({ x, scale, bias, mean, variance }, { epsilon, momentum }) =>
    // Statistics that no weight holds cannot be learnt anew.
    isBuffer(mean) && isBuffer(variance)
      ? batchNormUpdating(
          x,
          { weight: scale, bias, runningMean: mean, runningVar: variance },
          { eps: epsilon, momentum: 1 - momentum },
        )
      : batchNorm(x, scale, bias, mean, variance, { epsilon }),
  dropout,
};
const isBuffer = (x: Tensor): boolean => x.node.op.name === "Input";

interface FoundWeight {
  kind: "parameter" | "buffer";
  tensor: OnnxTensor;
}

/** Inputs that steer an operation rather than being computed with, by operator. */
const steering: Readonly<Record<string, readonly number[] | "all">> = {
  Reshape: [1],
  Expand: [1],
  Tile: [1],
  Slice: [1, 2, 3, 4],
  Pad: [1, 2, 3],
  Clip: [1, 2],
  Pow: [1],
  Gather: [1],
  GatherElements: [1],
  Where: "all",
  Resize: [1, 2, 3],
  Upsample: [1],
  Split: [1],
  Squeeze: [1],
  Unsqueeze: [1],
  TopK: [1],
  OneHot: "all",
  Range: "all",
  CumSum: [1],
  Dropout: [1, 2],
  ConstantOfShape: "all",
  Shape: "all",
  Size: "all",
  Equal: "all",
  Greater: "all",
  GreaterOrEqual: "all",
  Less: "all",
  LessOrEqual: "all",
  QuantizeLinear: "all",
  DequantizeLinear: "all",
};

const steers = ({ op }: OnnxNode, place: number): boolean => {
  const places = steering[op];
  return places === "all" || (places?.includes(place) ?? false);
};

/**
 * Which of a model's constants are its weights, in the order in which they are used: initialisers of floats that are computed with.
 * The statistics of batch norms are buffers; so are masks, and what prepares a picture before the first layer.
 */
function findWeights(model: OnnxModel, outputs: readonly string[]): Map<string, FoundWeight> {
  const { initializers } = model.graph;
  const found = new Map<string, FoundWeight>();
  const tensors = new Map<string, OnnxTensor>();
  const prepares = preparation(model);
  for (const node of neededNodes(model.graph, outputs)) {
    // Equal weights are written once and given their other names by Identity.
    const [source] = node.inputs;
    const same = node.op === "Identity" ? (tensors.get(source) ?? initializers.get(source)) : undefined;
    if (same) {
      tensors.set(node.outputs[0], same);
      continue;
    }
    node.inputs.forEach((name, place) => {
      const tensor = tensors.get(name) ?? initializers.get(name);
      if (!tensor || !isWeight(tensor) || steers(node, place)) return;
      const statistics = node.op === "BatchNormalization" && place > 2;
      const kind = statistics || prepares.has(node) || isMask(node, tensor) ? "buffer" : "parameter";
      if (!found.has(name) || statistics) found.set(name, { kind, tensor });
    });
  }
  return found;
}

const isWeight = ({ dtype, shape }: OnnxTensor): boolean =>
  (dtype === "float32" || dtype === "float16" || dtype === "bfloat16") && shape.length > 0;

/** Attention is kept from crossing windows by adding zeros and one large negative number. */
function isMask({ op }: OnnxNode, tensor: OnnxTensor): boolean {
  if (op !== "Add" || tensor.shape.length < 3 || !tensor.data) return false;
  const values = floatsOf(tensor.dtype, tensor.data);
  const low = values.find((v) => v !== 0) ?? 0;
  return low <= -10 && values.every((v) => v === 0 || v === low);
}

const plain = new Set(["Cast", "Sub", "Add", "Mul", "Div", "Transpose", "Identity", "Reshape", "Unsqueeze"]);

/** The nodes before a model's first layer: arithmetic on the pictures themselves. */
function preparation({ graph, inputs }: OnnxModel): Set<OnnxNode> {
  const raw = new Set(inputs.map((value) => value.name));
  const nodes = new Set<OnnxNode>();
  for (const node of graph.nodes) {
    if (!plain.has(node.op) || !node.inputs.some((name) => raw.has(name))) continue;
    if (!node.inputs.every((name) => raw.has(name) || name === "" || smallConstant(graph.initializers.get(name))))
      continue;
    nodes.add(node);
    for (const name of node.outputs) raw.add(name);
  }
  return nodes;
}

/** A number for each channel, at most. */
const smallConstant = (tensor: OnnxTensor | undefined): boolean =>
  tensor !== undefined && tensor.shape.reduce((a, b) => a * b, 1) <= 4;
