import { joinBytes } from "../../base/bytes.ts";
import { OrielError } from "../../base/errors.ts";
import { bytesOf, type Data, type DType, dataOf, viewAs } from "../dtype.ts";
import {
  attributeFields,
  entryFields,
  externalLocation,
  functionFields,
  graphFields,
  modelFields,
  nodeFields,
  tensorFields,
  valueFields,
} from "./fields.ts";
import type { ProtoField } from "./proto.ts";
import { dtypeName, type ModelMetadata, messages, number, parse, readMetadata, text } from "./read.ts";

type Bytes = Uint8Array<ArrayBuffer>;

/** Where a tensor's bytes lie when they are not in the model's own file. */
export interface ExternalPlace {
  /** A path relative to the model's folder, as the file has it: nobody has checked it yet. */
  location: string;
  offset: number;
  length: number;
}

/** A weight or another constant of a model. */
export interface OnnxTensor {
  name: string;
  dtype: DType;
  shape: readonly number[];
  /** Undefined where the values lie in another file, until `loadExternal` has read it. */
  readonly data?: Data;
  external?: ExternalPlace;
}

export type OnnxAttribute = number | string | readonly number[] | readonly string[] | OnnxTensor | OnnxGraph;

/** One operation, as the file names it. */
export interface OnnxNode {
  op: string;
  /** "" for ONNX's own. */
  domain: string;
  name: string;
  /** Names of values; "" where an optional one is left out. */
  inputs: readonly string[];
  outputs: readonly string[];
  attributes: ReadonlyMap<string, OnnxAttribute>;
}

/** Nodes in an order in which each follows those it reads. */
export interface OnnxGraph {
  nodes: readonly OnnxNode[];
  initializers: ReadonlyMap<string, OnnxTensor>;
  /** Names of what it is given and of what it gives. */
  inputs: readonly string[];
  outputs: readonly string[];
}

/** A model as its file has it: nothing is drawn yet. */
export interface OnnxModel extends ModelMetadata {
  graph: OnnxGraph;
  /** Where it came from, for errors. */
  at?: string;
}

/** Branches within branches, at most. */
const deepest = 16;

/** Reads a whole ONNX model.  Large values are views of `bytes` wherever they are aligned.  `at` says where it came from. */
export function readModel(bytes: Bytes, at?: string): OnnxModel {
  const metadata = readMetadata(bytes, at);
  const fields = parse(bytes, at);
  const [local] = messages(fields, modelFields.functions);
  if (local)
    throw new OrielError("onnx", {
      message: `the model defines functions of its own, such as "${text(parse(local, at), functionFields.name)}"`,
      at,
      help: "export it with its functions inlined: in Python, onnx.inliner.inline_local_functions does",
    });
  return { ...metadata, at, graph: readGraph(messages(fields, modelFields.graph).at(-1)!, at, 0) };
}

function readGraph(bytes: Bytes, at: string | undefined, depth: number): OnnxGraph {
  if (depth > deepest) throw new OrielError("onnx", { message: `branches lie ${depth} deep in one another`, at });
  const fields = parse(bytes, at);
  if (messages(fields, graphFields.sparseInitializer).length > 0)
    throw new OrielError("onnx", { message: "the model has sparse weights, which are not read", at });
  const tensors = messages(fields, graphFields.initializer).map((tensor) => readTensor(tensor, at));
  const names = (field: number): string[] =>
    messages(fields, field).map((value) => text(parse(value, at), valueFields.name));
  return {
    nodes: messages(fields, graphFields.node).map((node) => readNode(node, at, depth)),
    initializers: new Map(tensors.map((tensor) => [tensor.name, tensor])),
    inputs: names(graphFields.input),
    outputs: names(graphFields.output),
  };
}

function readNode(bytes: Bytes, at: string | undefined, depth: number): OnnxNode {
  const fields = parse(bytes, at);
  const domain = text(fields, nodeFields.domain);
  return {
    op: text(fields, nodeFields.opType),
    domain: domain === "ai.onnx" ? "" : domain,
    name: text(fields, nodeFields.name),
    inputs: texts(fields, nodeFields.input),
    outputs: texts(fields, nodeFields.output),
    attributes: new Map(
      messages(fields, nodeFields.attribute).flatMap((attribute) => readAttribute(attribute, at, depth)),
    ),
  };
}

function readAttribute(bytes: Bytes, at: string | undefined, depth: number): [string, OnnxAttribute][] {
  const fields = parse(bytes, at);
  const name = text(fields, attributeFields.name);
  const { f, i, s, t, g, floats: fs, ints: is, strings } = attributeFields;
  // What is there says what kind it is; the file's own word for it may be missing.
  const value = ((): OnnxAttribute | undefined => {
    for (const { field } of fields)
      switch (field) {
        case f:
          return floats(fields, f)[0];
        case i:
          return integers(fields, i, at)[0];
        case s:
          return text(fields, s);
        case t:
          return readTensor(messages(fields, t).at(-1) ?? new Uint8Array(), at);
        case g:
          return readGraph(messages(fields, g).at(-1) ?? new Uint8Array(), at, depth + 1);
        case fs:
          return floats(fields, fs);
        case is:
          return integers(fields, is, at);
        case strings:
          return texts(fields, strings);
      }
    return undefined;
  })();
  return value === undefined ? [] : [[name, value]];
}

const texts = (fields: readonly ProtoField[], field: number): string[] =>
  messages(fields, field).map((bytes) => decoder.decode(bytes));
const decoder = new TextDecoder();

/** All bytes of a repeated field, whether each value was written on its own or all were packed together. */
function packed(fields: readonly ProtoField[], field: number): Bytes {
  const parts = messages(fields, field);
  return parts.length === 1 ? parts[0] : joinBytes(parts);
}

const floats = (fields: readonly ProtoField[], field: number): number[] =>
  Array.from(viewAs("float32", packed(fields, field)) as Float32Array);

/** Whole numbers, signed, alone or packed. */
function varints(fields: readonly ProtoField[], field: number, at: string | undefined): bigint[] {
  const values: bigint[] = [];
  for (const f of fields) {
    if (f.field !== field) continue;
    if (typeof f.value === "bigint") values.push(BigInt.asIntN(64, f.value));
    else {
      let value = 0n;
      let shift = 0n;
      for (const byte of f.value) {
        value |= BigInt(byte & 127) << shift;
        shift += 7n;
        if (byte < 128) {
          values.push(BigInt.asIntN(64, value));
          [value, shift] = [0n, 0n];
        } else if (shift > 63n) throw new OrielError("onnx", { message: "a number is longer than 64 bits", at });
      }
      if (shift > 0n) throw new OrielError("onnx", { message: "a list ends within a number", at });
    }
  }
  return values;
}

const integers = (fields: readonly ProtoField[], field: number, at: string | undefined): number[] =>
  varints(fields, field, at).map(Number);

/** A tensor, checked: as many values as its shape wants. */
export function readTensor(bytes: Bytes, at?: string): OnnxTensor {
  const fields = parse(bytes, at);
  const name = text(fields, tensorFields.name);
  const wrong = (message: string, help?: string): OrielError =>
    new OrielError("onnx", { message: `the tensor "${name}" ${message}`, at, help });
  const code = number(fields, tensorFields.dataType) ?? 0;
  const dtype = dtypeName(code);
  if (!dtype || dtype === "string") throw wrong(`is of ${unread[code] ?? `type ${code}`}, which is not read`);
  const shape = integers(fields, tensorFields.dims, at);
  const count = shape.reduce((a, b) => a * b, 1);
  if (shape.some((d) => d < 0) || !Number.isSafeInteger(count)) throw wrong(`has the shape [${shape}]`);
  if (fields.some((f) => f.field === tensorFields.segment)) throw wrong("is cut into segments, which are not read");
  const size = count * bytesOf(dtype);
  if (number(fields, tensorFields.dataLocation) === externalLocation) {
    const told = new Map(
      messages(fields, tensorFields.externalData).map((pair): [string, string] => {
        const entry = parse(pair, at);
        return [text(entry, entryFields.key), text(entry, entryFields.value)];
      }),
    );
    const offset = Number(told.get("offset") ?? 0);
    const length = Number(told.get("length") ?? size);
    if (!told.get("location") || !Number.isSafeInteger(offset) || offset < 0)
      throw wrong("lies in another file, but not where");
    if (length !== size) throw wrong(`needs ${size} bytes for [${shape}]; ${length} lie in another file`);
    return { name, dtype, shape, external: { location: told.get("location")!, offset, length } };
  }
  const raw = messages(fields, tensorFields.rawData).at(-1);
  if (raw) {
    if (raw.length !== size) throw wrong(`needs ${size} bytes for [${shape}]; it has ${raw.length}`);
    return new RawTensor(name, dtype, shape, raw);
  }
  const data = typedData(fields, dtype, at);
  if (data.length !== count) throw wrong(`needs ${count} values for [${shape}]; it has ${data.length}`);
  return { name, dtype, shape, data };
}

/** A tensor whose bytes are seen as values only when they are asked for: most have to be copied to a boundary. */
class RawTensor implements OnnxTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly #raw: Bytes;
  #data?: Data;
  constructor(name: string, dtype: DType, shape: readonly number[], raw: Bytes) {
    this.name = name;
    this.dtype = dtype;
    this.shape = shape;
    this.#raw = raw;
  }
  get data(): Data {
    this.#data ??= viewAs(this.dtype, this.#raw);
    return this.#data;
  }
}

/** Types of ONNX that nothing here computes with. */
const unread: Readonly<Record<number, string>> = {
  8: "text",
  14: "complex numbers",
  15: "complex numbers",
  17: "float8",
  18: "float8",
  19: "float8",
  20: "float8",
  21: "uint4",
  22: "int4",
  23: "float4",
};

/** Values that are not raw bytes lie in the list for their type. */
function typedData(fields: readonly ProtoField[], dtype: DType, at: string | undefined): Data {
  switch (dtype) {
    case "float32":
      return viewAs(dtype, packed(fields, tensorFields.floatData));
    case "float64":
      return viewAs(dtype, packed(fields, tensorFields.doubleData));
    case "int64":
      return BigInt64Array.from(varints(fields, tensorFields.int64Data, at));
    case "uint64":
      return BigUint64Array.from(varints(fields, tensorFields.uint64Data, at), (v) => BigInt.asUintN(64, v));
    case "uint32":
      return dataOf(dtype, integers(fields, tensorFields.uint64Data, at));
    case "float16":
    case "bfloat16": // as their bits
      return Uint16Array.from(integers(fields, tensorFields.int32Data, at));
    default:
      return dataOf(dtype, integers(fields, tensorFields.int32Data, at));
  }
}

/** Every tensor of a model and its branches that lies in another file. */
export function externalTensors({ graph }: OnnxModel): OnnxTensor[] {
  const found: OnnxTensor[] = [];
  const visit = (g: OnnxGraph): void => {
    for (const tensor of g.initializers.values()) if (tensor.external) found.push(tensor);
    for (const node of g.nodes)
      for (const value of node.attributes.values())
        if (isGraph(value)) visit(value);
        else if (isTensor(value) && value.external) found.push(value);
  };
  visit(graph);
  return found;
}

export const isGraph = (value: OnnxAttribute): value is OnnxGraph => typeof value === "object" && "nodes" in value;
export const isTensor = (value: OnnxAttribute): value is OnnxTensor => typeof value === "object" && "dtype" in value;

/** Fetches what lies in other files.  `read` finds them: a folder's file, or what a page was given. */
export async function loadExternal(
  model: OnnxModel,
  read: (place: ExternalPlace) => Promise<Uint8Array>,
): Promise<OnnxModel> {
  for (const tensor of externalTensors(model)) {
    const bytes = await read(tensor.external!);
    if (bytes.length !== tensor.external!.length)
      throw new OrielError("onnx", {
        message: `${tensor.external!.location} gave ${bytes.length} bytes for "${tensor.name}", which needs ${tensor.external!.length}`,
        at: model.at,
      });
    (tensor as { data?: Data }).data = viewAs(tensor.dtype, bytes as Bytes);
  }
  return model;
}

/** The values of a tensor; an error where they lie in a file that was not given. */
export function valuesOf(tensor: OnnxTensor, at?: string): Data {
  if (tensor.data) return tensor.data;
  throw new OrielError("onnx", {
    message: `the values of "${tensor.name}" lie in ${tensor.external?.location ?? "another file"}`,
    at,
    help: "read the model from its folder, or give the file beside it too",
  });
}
