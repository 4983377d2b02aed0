import { OrielError, UsageError } from "../../base/errors.ts";
import { otherThanOnnx } from "../../base/identify.ts";
import { type DType, dtypeCodes } from "../dtype.ts";
import { type Dim, OpenDim } from "../shape.ts";
import {
  dimFields,
  entryFields,
  graphFields,
  modelFields,
  opsetFields,
  shapeFields,
  tensorFields,
  tensorTypeFields,
  typeFields,
  valueFields,
} from "./fields.ts";
import { type ProtoField, readProto } from "./proto.ts";

/** An input or output of a model.  An axis that only a run knows is open. */
export interface ModelValue {
  name: string;
  dtype: DType;
  shape: readonly Dim[];
}

/** What a model says about itself, weights and nodes aside. */
export interface ModelMetadata {
  producer: string;
  irVersion: number;
  /** Version of each operator set by domain; "" is ONNX's own. */
  opsets: Readonly<Record<string, number>>;
  /** The free text that its maker left: preprocessing, labels, licence. */
  metadata: Readonly<Record<string, string>>;
  /** What a run must be given: weights with values are not among them. */
  inputs: readonly ModelValue[];
  outputs: readonly ModelValue[];
}

type Bytes = Uint8Array<ArrayBuffer>;

/** Reads the metadata of an ONNX model.  `name` says where it came from, for errors. */
export function readMetadata(bytes: Bytes, name?: string): ModelMetadata {
  if (!(bytes instanceof Uint8Array))
    throw new UsageError({
      message: "these are no model's bytes",
      help: "of an ArrayBuffer give new Uint8Array(buffer)",
    });
  const fields = parse(bytes, name);
  const inner = messages(fields, modelFields.graph).at(-1);
  const version = number(fields, modelFields.irVersion);
  if (!inner || version === undefined)
    throw new OrielError("onnx", {
      message: noModel(bytes),
      at: name,
      details: bytes.length === 0 ? [] : [`it has ${inner ? "no version" : "no graph"}`],
      help: "an exported model is one file that ends in .onnx",
    });
  const parts = parse(inner, name);
  const given = new Set(
    messages(parts, graphFields.initializer).map((tensor) => text(parse(tensor, name), tensorFields.name)),
  );
  const values = (field: number): ModelValue[] =>
    messages(parts, field).map((value) => readValue(parse(value, name), name));
  const opset = (entry: Bytes): [string, number] => {
    const id = parse(entry, name);
    return [text(id, opsetFields.domain), number(id, opsetFields.version) ?? 1];
  };
  const property = (entry: Bytes): [string, string] => {
    const pair = parse(entry, name);
    return [text(pair, entryFields.key), text(pair, entryFields.value)];
  };
  return {
    producer: text(fields, modelFields.producerName),
    irVersion: version,
    opsets: Object.fromEntries(messages(fields, modelFields.opsetImport).map(opset)),
    metadata: Object.fromEntries(messages(fields, modelFields.metadataProps).map(property)),
    inputs: values(graphFields.input).filter((value) => !given.has(value.name)),
    outputs: values(graphFields.output),
  };
}

/** What came instead: a server that has no such file may answer with a web page. */
function noModel(bytes: Bytes): string {
  const looks = otherThanOnnx(bytes);
  return `this is no ONNX model${looks ? `: it looks like ${looks}` : ""}`;
}

/** The fields of a message, or an error that says whether the file was cut short or is something else. */
export function parse(bytes: Bytes, name: string | undefined): ProtoField[] {
  const fields: ProtoField[] = [];
  try {
    readProto(bytes, fields);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    // A model begins with a small version number; what breaks off after one was cut short.
    const [first] = fields;
    const begins = first?.field === modelFields.irVersion && typeof first.value === "bigint" && first.value < 100n;
    throw new OrielError("onnx", {
      message: begins ? `the file is cut short: ${error.message}` : noModel(bytes),
      at: name,
      help: begins ? "copy or download it again" : "an exported model is one file that ends in .onnx",
      cause: error,
    });
  }
  return fields;
}

export function messages(fields: readonly ProtoField[], field: number): Bytes[] {
  const found: Bytes[] = [];
  for (const f of fields) if (f.field === field && f.value instanceof Uint8Array) found.push(f.value);
  return found;
}

export const number = (fields: readonly ProtoField[], field: number): number | undefined => {
  const found = fields.findLast((f) => f.field === field);
  return typeof found?.value === "bigint" ? Number(found.value) : undefined;
};

const decoder = new TextDecoder();
export const text = (fields: readonly ProtoField[], field: number): string =>
  decoder.decode(messages(fields, field).at(-1));

const dtypeNames = new Map(Object.entries(dtypeCodes).map(([name, code]) => [code as number, name as DType]));
/** The type that a code of `TensorProto.DataType` stands for. */
export const dtypeName = (code: number): DType | undefined => dtypeNames.get(code);

/** A ValueInfoProto: its name, and a type that must be a tensor's. */
function readValue(fields: readonly ProtoField[], name: string | undefined): ModelValue {
  const own = text(fields, valueFields.name);
  const type = messages(fields, valueFields.type).at(-1);
  const tensor = type && messages(parse(type, name), typeFields.tensor).at(-1);
  const parts = tensor && parse(tensor, name);
  const dtype = parts && dtypeNames.get(number(parts, tensorTypeFields.elemType) ?? 0);
  if (!parts || !dtype)
    throw new OrielError("onnx", {
      message: `"${own}" is no tensor of a type that is known here`,
      at: name,
      help: "sequences, maps and optional values are not read",
    });
  const shape = messages(parts, tensorTypeFields.shape).at(-1);
  const dims = shape ? messages(parse(shape, name), shapeFields.dim) : [];
  return { name: own, dtype, shape: dims.map((dim, axis) => readDim(parse(dim, name), `${own}.${axis}`)) };
}

/** A size, or the name of an open axis: "N", or "64N" as a multiple of it is written.  Some exporters write -1 for one. */
function readDim(fields: readonly ProtoField[], unnamed: string): Dim {
  const size = number(fields, dimFields.value);
  if (size !== undefined) return size < 2 ** 63 ? size : new OpenDim(unnamed);
  const [, times, name] = /^(\d*)(.*)$/s.exec(text(fields, dimFields.param)) ?? [];
  return name ? new OpenDim(name, times ? Number(times) : 1) : new OpenDim(unnamed);
}
