import { internal, OrielError } from "../../base/errors.ts";
import { bytesView, type Data, type DType, dtypeCodes } from "../dtype.ts";
import { Graph, rewrite, sortNodes, validate } from "../graph.ts";
import { type Dim, isOpen, type Shape } from "../shape.ts";
import { Body, constantOp, FloatAttr, leaf, type Node, type OnnxForm, type Tensor } from "../tensor.ts";
import {
  attributeFields,
  attributeTypes,
  dimFields,
  entryFields,
  externalLocation,
  graphFields,
  modelFields,
  nodeFields,
  opsetFields,
  shapeFields,
  tensorFields,
  tensorTypeFields,
  typeFields,
  valueFields,
} from "./fields.ts";
import { ProtoWriter } from "./proto.ts";

/** Versions of ONNX's operators that can be written, and the version of the format that each came with. */
const irVersions = { 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11 } as const;
export type Opset = keyof typeof irVersions;
export const opsets = Object.keys(irVersions).map(Number) as readonly Opset[];

export interface WriteOptions {
  /** Free text for whoever loads the model: preprocessing, labels, licence. */
  metadata?: Readonly<Record<string, string>>;
  name?: string;
  /** Version of ONNX's operators, 21 by default.  Before 20 there is no Gelu: `forOpset` draws it from others. */
  opset?: Opset;
}

/** What one file of ONNX may hold: protocol buffers count in signed numbers of 32 bits. */
export const largestFile = 2 ** 31 - 1;

/** A graph as the bytes of an ONNX model; one that is larger than a file may be is an error. */
export function writeOnnx(graph: Graph, options: WriteOptions = {}): Uint8Array<ArrayBuffer> {
  const size = constantBytes(graph);
  if (size > largestFile)
    throw new OrielError("onnx", {
      message: `the weights have ${size} bytes, one ONNX file holds ${largestFile}`,
      help: "write them to a file beside the model: writeOnnxParts",
    });
  return write(graph, options);
}

/** The bytes of all constants of a graph. */
export function constantBytes(graph: Graph): number {
  return graph.nodes.reduce((sum, { op, attrs }) => sum + (op === constantOp ? (attrs.data as Data).byteLength : 0), 0);
}

/** Weights of a model that lie in a file of their own, to be written one part after another. */
export interface OnnxParts {
  model: Uint8Array<ArrayBuffer>;
  /** The file beside it. */
  data: readonly Uint8Array[];
}

/** Smaller constants stay in the model: axes, sizes, single numbers. */
const smallestExternal = 1024;
/** Where a tensor may begin, so that a reader can map it into memory. */
const alignment = 4096;

/** A graph as a model and a file of weights beside it, called `location` there.  The weights are not copied. */
export function writeOnnxParts(graph: Graph, options: WriteOptions & { location: string }): OnnxParts {
  const data: Uint8Array[] = [];
  let end = 0;
  const model = write(graph, options, (bytes) => {
    if (bytes.length < smallestExternal) return undefined;
    const offset = Math.ceil(end / alignment) * alignment;
    if (offset > end) data.push(new Uint8Array(offset - end));
    data.push(bytes);
    end = offset + bytes.length;
    return { location: options.location, offset, length: bytes.length };
  });
  return { model, data };
}

type Place = (bytes: Uint8Array) => { location: string; offset: number; length: number } | undefined;

function write(
  graph: Graph,
  { metadata = {}, name = "oriel", opset = 21 }: WriteOptions,
  place: Place = () => undefined,
): Uint8Array<ArrayBuffer> {
  validate(graph);
  const lowered = lower(graph);
  const names = new Names(lowered);
  const model = new ProtoWriter()
    .int(modelFields.irVersion, irVersions[opset])
    .string(modelFields.producerName, "oriel");
  model.message(modelFields.graph, (g) => {
    writeNodes(g, lowered.nodes, names);
    // An output that is an input, or stands under two names, needs a node that names it.
    for (const [output, tensor] of lowered.outputs)
      if (names.of(tensor) !== output)
        g.message(graphFields.node, (n) =>
          n
            .string(nodeFields.input, names.of(tensor))
            .string(nodeFields.output, output)
            .string(nodeFields.name, `output:${output}`)
            .string(nodeFields.opType, "Identity"),
        );
    g.string(graphFields.name, name);
    for (const [key, { dtype, shape, data }] of names.constants)
      g.message(graphFields.initializer, (t) => writeTensor(t, key, dtype, shape, data, place));
    for (const [input, tensor] of lowered.inputs) g.message(graphFields.input, (v) => writeValue(v, input, tensor));
    for (const [output, tensor] of lowered.outputs) g.message(graphFields.output, (v) => writeValue(v, output, tensor));
    for (const tensor of forgotten(lowered))
      g.message(graphFields.valueInfo, (v) => writeValue(v, names.of(tensor), tensor));
  });
  for (const [domain, version] of Object.entries({ "": opset, "com.microsoft": 1 }))
    model.message(modelFields.opsetImport, (o) =>
      o.string(opsetFields.domain, domain).int(opsetFields.version, version),
    );
  for (const [key, value] of Object.entries(metadata)) model.message(modelFields.metadataProps, entry(key, value));
  return model.finish();
}

/** Tensors whose shapes are written too: where a map is resized, ONNX's own inference forgets what an open axis is called. */
function forgotten({ nodes, outputs }: Graph): Tensor[] {
  const told = new Set(outputs.values());
  const maps = nodes.flatMap(({ op, outputs }) => (op.name === "Resize" ? outputs : []));
  return maps.filter((map) => map.shape.some(isOpen) && !told.has(map));
}

/** What a node only passes on. */
const passedOn = ({ op }: Node, [x]: readonly (Tensor | undefined)[]): readonly Tensor[] | undefined =>
  op.name === "Identity" ? [x as Tensor] : undefined;

/** A graph without nodes that only pass on what they read. */
export const dropIdentities = (graph: Graph): Graph => new Graph(graph.inputs, rewrite(graph.outputs, passedOn));

/** A graph as it is written: identities removed, and what is no ONNX operator drawn from those that are. */
export function lower(graph: Graph): Graph {
  const outputs = rewrite(
    graph.outputs,
    (node, inputs) => passedOn(node, inputs) ?? node.op.lower?.(inputs, node.attrs),
  );
  return new Graph(graph.inputs, outputs);
}

interface Constant {
  dtype: DType;
  shape: readonly number[];
  data: Data;
}

/** Gives every tensor a name of its own, and equal constants one name. */
class Names {
  readonly constants = new Map<string, Constant>();
  readonly #names = new Map<Tensor, string>();
  readonly #taken = new Set<string>();
  /** By a name, the first number that may be free behind it: thousands of nodes can be called alike. */
  readonly #next = new Map<string, number>();
  readonly #byContent = new Map<string, string>();

  constructor(graph: Graph) {
    for (const [name, tensor] of graph.inputs) this.#give(tensor, name);
    for (const [name, tensor] of graph.outputs)
      if (!this.#names.has(tensor) && tensor.node.op !== constantOp) this.#give(tensor, name);
    for (const name of graph.outputs.keys()) this.#taken.add(name);
  }

  #give(tensor: Tensor, name: string): string {
    this.#names.set(tensor, name);
    this.#taken.add(name);
    return name;
  }

  of(tensor: Tensor): string {
    const known = this.#names.get(tensor);
    if (known !== undefined) return known;
    if (tensor.node.op === leaf) throw internal(`an input without a name at ${tensor.node.scope}`);
    if (tensor.node.op === constantOp) {
      const { data, name: own } = tensor.node.attrs;
      const value = { dtype: tensor.dtype, shape: tensor.shape as number[], data };
      const name = own === undefined ? this.constant(value) : this.unique(own);
      if (own !== undefined) this.constants.set(name, value);
      this.#names.set(tensor, name);
      return name;
    }
    return this.name(tensor);
  }

  /** A new name, after where and what made the tensor. */
  name(tensor: Tensor): string {
    const { op, scope } = tensor.node;
    return this.#give(tensor, this.unique(scope ? `${scope}/${op.name}` : op.name));
  }

  /** What a body reads from outside is called as it is called there. */
  capture({ captured }: Body, outside: readonly string[]): void {
    captured.forEach((tensor, i) => void this.#names.set(tensor, outside[i]));
  }

  unique(wanted: string): string {
    let name = wanted;
    let next = this.#next.get(wanted) ?? 1;
    while (this.#taken.has(name)) name = `${wanted}_${next++}`;
    this.#next.set(wanted, next);
    this.#taken.add(name);
    return name;
  }

  constant(value: Constant): string {
    const key = `${value.dtype}[${value.shape}]${contentKey(value.data)}`;
    const known = this.#byContent.get(key);
    if (known) return known;
    const name = this.unique("constant");
    this.#byContent.set(key, name);
    this.constants.set(name, value);
    return name;
  }
}

/** Equal for equal bytes: the bytes themselves where they are few, otherwise two hashes of them. */
function contentKey(data: Data): string {
  if (data.length <= 8)
    return Array.from(data as Iterable<number | bigint>)
      .map((v) => (Object.is(v, -0) ? "-0" : v))
      .join();
  const bytes = bytesView(data);
  const words = bytes.length % 4 === 0 && bytes.byteOffset % 4 === 0 ? bytes.length / 4 : 0;
  const units = words > 0 ? new Uint32Array(bytes.buffer, bytes.byteOffset, words) : bytes;
  let a = 0x811c9dc5;
  let b = 0x9747b28c;
  for (let i = 0; i < units.length; i++) {
    a = Math.imul(a ^ units[i], 0x01000193);
    b = Math.imul(b ^ units[i], 0x5bd1e995);
    a ^= a >>> 13;
    b ^= b >>> 15;
  }
  return `${bytes.length}:${a}:${b}`;
}

function writeNodes(graph: ProtoWriter, nodes: readonly Node[], names: Names): void {
  for (const node of nodes) if (node.op !== leaf && node.op !== constantOp) writeNode(graph, node, names);
}

function writeNode(graph: ProtoWriter, node: Node, names: Names): void {
  const form = node.op.onnx(node.attrs, node);
  graph.message(graphFields.node, (n) => {
    const inputs = node.inputs.map((x) => (x ? names.of(x) : ""));
    for (const value of Object.values(form.attributes ?? {}))
      if (value instanceof Body) names.capture(value, inputs.splice(inputs.length - value.captured.length));
    for (const constant of form.constants ?? []) inputs.push(constant ? names.constant(constant) : "");
    while (inputs.length > 0 && inputs[inputs.length - 1] === "") inputs.pop();
    for (const input of inputs) n.string(nodeFields.input, input);
    for (const output of node.outputs) n.string(nodeFields.output, names.of(output));
    n.string(nodeFields.name, names.unique(`node:${names.of(node.outputs[0])}`)).string(
      nodeFields.opType,
      node.op.name,
    );
    for (const [key, value] of Object.entries(form.attributes ?? {}))
      if (value !== undefined) n.message(nodeFields.attribute, (a) => writeAttribute(a, key, value, names));
    if (node.op.domain) n.string(nodeFields.domain, node.op.domain);
  });
}

type Attribute = NonNullable<OnnxForm["attributes"]>[string];

function writeAttribute(a: ProtoWriter, key: string, value: Attribute, names: Names): void {
  const { name, type, f, i, s, g, floats, ints, strings } = attributeFields;
  a.string(name, key);
  if (value instanceof Body) a.message(g, (b) => writeBody(b, value, names)).int(type, attributeTypes.graph);
  else if (value instanceof FloatAttr) {
    if (typeof value.value === "number") a.float(f, value.value).int(type, attributeTypes.float);
    else {
      for (const v of value.value) a.float(floats, v);
      a.int(type, attributeTypes.floats);
    }
  } else if (typeof value === "number") a.int(i, value).int(type, attributeTypes.int);
  else if (typeof value === "string") a.string(s, value).int(type, attributeTypes.string);
  else if (typeof value[0] === "string") {
    for (const v of value as readonly string[]) a.string(strings, v);
    a.int(type, attributeTypes.strings);
  } else {
    for (const v of value as readonly number[]) a.int(ints, v);
    a.int(type, attributeTypes.ints);
  }
}

/** A graph within a node.  Its constants are the whole model's. */
function writeBody(graph: ProtoWriter, { inputs, outputs }: Body, names: Names): void {
  for (const x of inputs) names.name(x);
  writeNodes(graph, sortNodes(outputs), names);
  graph.string(graphFields.name, "body");
  for (const x of inputs) graph.message(graphFields.input, (v) => writeValue(v, names.of(x), x));
  for (const y of outputs) graph.message(graphFields.output, (v) => writeValue(v, names.of(y), y));
}

/** A `StringStringEntryProto`. */
const entry =
  (key: string, value: string) =>
  (e: ProtoWriter): ProtoWriter =>
    e.string(entryFields.key, key).string(entryFields.value, value);

function writeTensor(
  t: ProtoWriter,
  name: string,
  dtype: DType,
  shape: readonly number[],
  data: Data,
  place: Place,
): void {
  for (const d of shape) t.int(tensorFields.dims, d);
  t.int(tensorFields.dataType, dtypeCodes[dtype]).string(tensorFields.name, name);
  const bytes = bytesView(data);
  const external = place(bytes);
  if (!external) {
    t.bytes(tensorFields.rawData, bytes);
    return;
  }
  for (const [key, value] of Object.entries(external)) t.message(tensorFields.externalData, entry(key, String(value)));
  t.int(tensorFields.dataLocation, externalLocation);
}

function writeValue(v: ProtoWriter, name: string, { dtype, shape }: { dtype: DType; shape: Shape }): void {
  v.string(valueFields.name, name).message(valueFields.type, (type) =>
    type.message(typeFields.tensor, (tensor) => {
      tensor.int(tensorTypeFields.elemType, dtypeCodes[dtype]);
      tensor.message(tensorTypeFields.shape, (s) => {
        for (const d of shape) s.message(shapeFields.dim, (dim) => writeDim(dim, d));
      });
    }),
  );
}

function writeDim(dim: ProtoWriter, d: Dim): void {
  if (isOpen(d)) dim.string(dimFields.param, String(d));
  else dim.int(dimFields.value, d);
}
