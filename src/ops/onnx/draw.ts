import { OrielError, ShapeError } from "../../base/errors.ts";
import { type DType, floatsOf } from "../../graph/dtype.ts";
import { type OnnxGraph, type OnnxModel, type OnnxNode, type OnnxTensor, valuesOf } from "../../graph/onnx/model.ts";
import { isOpen, known } from "../../graph/shape.ts";
import { constant, type Tensor, withScope } from "../../graph/tensor.ts";
import { arithmetic } from "./arithmetic.ts";
import { At, checkSize, computed, type Importer, nameOf, type Surroundings, type Training } from "./at.ts";
import { contrib } from "./contrib.ts";
import { knownOf, type Value } from "./known.ts";
import { layers } from "./layers.ts";
import { moves } from "./moves.ts";

export type { Training } from "./at.ts";

const own: ReadonlyMap<string, Importer> = new Map(Object.entries({ ...arithmetic, ...moves, ...layers }));
const fused: ReadonlyMap<string, Importer> = new Map(Object.entries(contrib));

const importerOf = ({ op, domain }: OnnxNode): Importer | undefined =>
  domain === "" ? own.get(op) : domain === "com.microsoft" ? (fused.get(op) ?? own.get(op)) : undefined;

/** Every operator that is read, as `listed` names them: "Conv", "com.microsoft.BiasGelu". */
export const readOperators: readonly string[] = [
  ...own.keys(),
  ...[...fused.keys()].map((op) => `com.microsoft.${op}`),
];

/** Numbers that a drawing looks into; more of them are weights. */
const few = 4096;

export interface DrawOptions {
  /** Names of the values to draw; by default the model's outputs. */
  outputs?: readonly string[];
  /** Stands for an initialiser of that name; undefined leaves it a constant. */
  weight?: (name: string) => Tensor | undefined;
  training?: Training;
}

/**
 * Draws a model that a file describes.  `given` has a tensor for each of its inputs; an axis that the file leaves open has there
 * whatever size it is to have, and the first axis, the batch, may differ from the file's.  Operators that are not known are an error
 * that lists them all.
 */
export function drawOnnx(
  model: OnnxModel,
  given: ReadonlyMap<string, Tensor>,
  { outputs = model.graph.outputs, weight = () => undefined, training }: DrawOptions = {},
): Tensor[] {
  const nodes = neededNodes(model.graph, outputs);
  checkOperators(model, nodes);
  const values = new Map<string, Value>();
  const open = new Map<string, { tensor: Tensor; axis: number }>();
  for (const { name } of model.inputs) {
    const tensor = given.get(name);
    if (!tensor) continue;
    values.set(name, tensor);
    tensor.shape.forEach((d, axis) => {
      if (isOpen(d) && d.times === 1 && !open.has(d.name)) open.set(d.name, { tensor, axis });
    });
  }
  const around: Surroundings = {
    opsets: model.opsets,
    open,
    madeFor: otherBatch(model, given),
    training,
    read: (tensor) => read(tensor, model.at),
    branch: (graph) => {
      const inner = new Map(values);
      return drawInto(model, graph, graph.nodes, graph.outputs, inner, around, () => undefined);
    },
  };
  const drawn = drawInto(model, model.graph, nodes, outputs, values, around, weight);
  return drawn.map((value, i) => new At(identity(outputs[i]), around, [value]).x(0));
}

const identity = (name: string): OnnxNode => ({
  op: "output",
  domain: "",
  name,
  inputs: [name],
  outputs: [name],
  attributes: new Map(),
});

/** The number of images that the file fixes, where another came. */
function otherBatch(model: OnnxModel, given: ReadonlyMap<string, Tensor>): number | undefined {
  for (const { name, shape } of model.inputs) {
    const tensor = given.get(name);
    if (!tensor || shape.length === 0 || isOpen(shape[0]) || shape[0] === tensor.shape[0]) continue;
    return known(shape[0]);
  }
  return undefined;
}

function drawInto(
  model: OnnxModel,
  graph: OnnxGraph,
  nodes: readonly OnnxNode[],
  outputs: readonly string[],
  values: Map<string, Value>,
  around: Surroundings,
  weight: (name: string) => Tensor | undefined,
): Value[] {
  const lookUp = (name: string): Value | undefined => {
    const found = values.get(name);
    if (found) return found;
    const tensor = graph.initializers.get(name);
    const value = weight(name) ?? (tensor && read(tensor, model.at));
    if (value) values.set(name, value);
    return value;
  };
  for (const node of nodes) {
    const inputs = node.inputs.map((name): Value | undefined => {
      if (name === "") return undefined;
      const value = lookUp(name);
      if (value) return value;
      throw new OrielError("onnx", {
        message: `${node.op} reads "${name}", which nothing before it makes`,
        at: nameOf(node),
      });
    });
    // A weight of which only another name is used is known by that name.
    const renamed = node.op === "Identity" ? weight(node.outputs[0]) : undefined;
    const made = renamed ?? withScope(scopeOf(node), () => drawNode(node, new At(node, around, inputs)));
    const all: readonly Value[] = Array.isArray(made) ? made : [made as Value];
    node.outputs.forEach((name, i) => {
      if (name !== "" && all[i]) values.set(name, all[i]);
    });
  }
  return outputs.map((name) => {
    const value = lookUp(name);
    if (value) return value;
    throw new OrielError("onnx", { message: `nothing makes the output "${name}"`, at: model.at });
  });
}

function drawNode(node: OnnxNode, at: At): Value | readonly Value[] {
  const importer = importerOf(node);
  if (!importer) throw at.wrong("is not read");
  try {
    const made = importer(at);
    for (const value of Array.isArray(made) ? made : [made]) checkSize(value.shape);
    return made;
  } catch (error) {
    if (error instanceof ShapeError) {
      const named = error.facts.at?.includes(nameOf(node)) ? error.facts.at : nameOf(node);
      throw new ShapeError({ ...error.facts, at: named, help: otherBatchHelp(at) ?? error.facts.help });
    }
    // Sizes that no array can have.
    if (error instanceof RangeError) throw at.wrong(`asks for what cannot be: ${error.message}`);
    throw error;
  }
}

const otherBatchHelp = ({ around: { madeFor } }: At): string | undefined =>
  madeFor === undefined
    ? undefined
    : `the file was exported for ${madeFor} images at once: export it with an open batch axis, or use batches of ${madeFor}`;

/**
 * Where a node stands, as its exporter names it: "/layers.0/blocks.1/attn/MatMul" is in layers.0.blocks.1.attn.  What we write begins
 * with "node:", for nodes and tensors have names of their own.
 */
function scopeOf({ name }: OnnxNode): string {
  const parts = name
    .replace(/^node:/, "")
    .split("/")
    .filter(Boolean);
  return parts.length > 1 ? parts.slice(0, -1).join(".") : (parts[0] ?? "");
}

/** The values of an initialiser: numbers to look into where they are few, else a constant. */
function read(tensor: OnnxTensor, at: string | undefined): Value {
  const { dtype, shape } = tensor;
  const data = valuesOf(tensor, at);
  const to: DType = computed(dtype);
  const plain = to === dtype ? data : floatsOf(dtype, data);
  if (data.length <= few) return knownOf(to, shape, plain);
  return constant(plain, shape, to);
}

/** The nodes that some values need, in the order of the file. */
export function neededNodes(graph: OnnxGraph, outputs: readonly string[]): OnnxNode[] {
  const maker = new Map<string, OnnxNode>();
  for (const node of graph.nodes) for (const name of node.outputs) if (name !== "") maker.set(name, node);
  const needed = new Set<OnnxNode>();
  const stack = [...outputs];
  for (let name = stack.pop(); name !== undefined; name = stack.pop()) {
    const node = maker.get(name);
    if (!node || needed.has(node)) continue;
    needed.add(node);
    stack.push(...node.inputs);
    // A branch reads what stands outside of it by name.
    for (const value of node.attributes.values())
      if (typeof value === "object" && "nodes" in value) stack.push(...readNames(value));
  }
  return graph.nodes.filter((node) => needed.has(node));
}

const readNames = (graph: OnnxGraph): string[] => [
  ...graph.outputs,
  ...graph.nodes.flatMap((node) => [
    ...node.inputs,
    ...[...node.attributes.values()].flatMap((value) =>
      typeof value === "object" && "nodes" in value ? readNames(value) : [],
    ),
  ]),
];

/** Throws with every operator that is not known, how often it is used, and where first. */
function checkOperators(model: OnnxModel, nodes: readonly OnnxNode[]): void {
  const missing = new Map<string, { count: number; first: string }>();
  for (const node of nodes) {
    if (importerOf(node)) continue;
    const name = node.domain ? `${node.domain}.${node.op}` : node.op;
    const seen = missing.get(name);
    if (seen) seen.count++;
    else missing.set(name, { count: 1, first: nameOf(node) });
  }
  if (missing.size > 0) {
    const details = [...missing].map(([name, { count, first }]) => `${name}: ${count} ×, first at ${first}`);
    throw new OrielError("onnx", {
      message: `${missing.size} operators of the model are not known here`,
      at: model.at,
      details,
      help: "a model can be exported without them, or run as it is by ONNX Runtime",
    });
  }
  const version = model.opsets[""] ?? 1;
  if (nodes.length > 0 && (version < oldest || version > newest))
    throw new OrielError("onnx", {
      message: `the model uses operators of version ${version}; ${oldest} to ${newest} are known`,
      at: model.at,
      help: version < oldest ? "export it anew with a later opset" : "export it with an earlier opset",
    });
}

/** Versions of ONNX's operator set that the operators are read by. */
const [oldest, newest] = [9, 24];
