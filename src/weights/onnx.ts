/** The weights of an ONNX model, found without reading them: the messages of its file are stepped through by their lengths. */
import { OrielError } from "../base/errors.ts";
import { entryFields, graphFields, modelFields, tensorFields } from "../graph/onnx/fields.ts";
import { type ByteSource, checkRange } from "./source.ts";
import { byteLengthOf, type FileTensor, onnxDtypes, type StoredDtype } from "./stored.ts";

/** Names and descriptions are far shorter. */
const longestText = 2 ** 24;
const mostAxes = 64;

export interface OnnxWeights {
  tensors: Map<string, FileTensor>;
  metadata: Record<string, string>;
}

/** The initialisers of a model; `sibling` opens files beside it that hold values too large for one file. */
export async function openOnnx(
  source: ByteSource,
  sibling?: (name: string) => Promise<ByteSource>,
): Promise<OnnxWeights> {
  const scanner = new Scanner(source);
  const model = await scanner.fields(0, source.size);
  const graph = model.findLast(({ field }) => field === modelFields.graph);
  if (!graph) throw scanner.wrong("it has no graph");
  const metadata: Record<string, string> = {};
  for (const field of model) {
    if (field.field === modelFields.producerName) metadata.producer = await scanner.text(field);
    if (field.field !== modelFields.metadataProps) continue;
    const parts = await scanner.fields(field.at, field.at + field.length);
    const text = async (n: number) => {
      const part = parts.find((entry) => entry.field === n);
      return part ? scanner.text(part) : "";
    };
    metadata[await text(entryFields.key)] = await text(entryFields.value);
  }
  const tensors = new Map<string, FileTensor>();
  // One after the other as they lie, so that none is looked for twice.
  for await (const { field, at, length } of scanner.step(graph.at, graph.at + graph.length)) {
    if (field !== graphFields.initializer) continue;
    const [name, tensor] = await readTensor(scanner, await scanner.fields(at, at + length), sibling);
    tensors.set(name, tensor);
  }
  return { tensors, metadata };
}

/** One TensorProto: its name, and where its values are. */
async function readTensor(
  scanner: Scanner,
  fields: readonly Field[],
  sibling?: (name: string) => Promise<ByteSource>,
): Promise<[string, FileTensor]> {
  const last = (field: number) => fields.findLast((entry) => entry.field === field);
  const named = last(tensorFields.name);
  const name = named ? await scanner.text(named) : "";
  const shape: number[] = [];
  for (const dims of fields.filter(({ field }) => field === tensorFields.dims))
    shape.push(...(dims.value === undefined ? await scanner.numbers(dims) : [dims.value]).map(Number));
  const code = Number(last(tensorFields.dataType)?.value ?? 0n);
  const dtype = onnxDtypes[code];
  const bad = (message: string) => scanner.wrong(`weight "${name}" ${message}`);
  if (!dtype) throw bad(`is of data type ${code}, which has no place here`);
  if (shape.length > mostAxes || !shape.every((size) => Number.isSafeInteger(size) && size >= 0))
    throw bad(`has shape [${shape.slice(0, mostAxes)}]`);
  const length = byteLengthOf(dtype, shape);
  const checked = (data: Uint8Array) => {
    if (data.byteLength !== length) throw bad(`needs ${length} bytes for [${shape}]; it has ${data.byteLength}`);
    return { dtype, shape, data };
  };
  // float_data and double_data are packed as they lie in memory.
  const raw =
    last(tensorFields.rawData) ??
    last(dtype === "F64" ? tensorFields.doubleData : dtype === "F32" ? tensorFields.floatData : -1);
  if (raw && raw.length !== length) throw bad(`needs ${length} bytes for [${shape}]; it has ${raw.length}`);
  if (raw) return [name, { dtype, shape, read: async () => checked(await scanner.source.read(raw.at, raw.length)) }];
  const listed = last(dtype === "I64" ? tensorFields.int64Data : tensorFields.int32Data);
  if (listed) return [name, { dtype, shape, read: async () => checked(packed(dtype, await scanner.numbers(listed))) }];
  const external = await readExternal(scanner, fields);
  const read = async () => {
    if (length === 0) return checked(new Uint8Array());
    if (!external.location) throw bad("has no values");
    if (!sibling) throw bad(`lies in another file, "${external.location}", which cannot be reached from here`);
    const file = await sibling(external.location);
    try {
      checkRange(file, external.offset, length);
      return checked(await file.read(external.offset, length));
    } finally {
      await file.close?.();
    }
  };
  return [name, { dtype, shape, read }];
}

/** `external_data`: pairs of words. */
async function readExternal(scanner: Scanner, fields: readonly Field[]): Promise<{ location: string; offset: number }> {
  const pairs = new Map<string, string>();
  for (const { field, at, length } of fields) {
    if (field !== tensorFields.externalData) continue;
    const parts = await scanner.fields(at, at + length);
    const [key, value] = await Promise.all(parts.slice(0, 2).map((part) => scanner.text(part)));
    pairs.set(key, value);
  }
  return { location: pairs.get("location") ?? "", offset: Number(pairs.get("offset") ?? 0) };
}

/** Whole numbers as a dtype's bytes: int32_data holds every kind of up to 32 bits, half floats by their bits. */
function packed(dtype: StoredDtype, values: readonly bigint[]): Uint8Array {
  const bytes = byteLengthOf(dtype, [1]);
  const view = new DataView(new ArrayBuffer(bytes * values.length));
  for (const [i, value] of values.entries()) {
    if (bytes === 1) view.setUint8(i, Number(value & 255n));
    else if (bytes === 2) view.setUint16(2 * i, Number(value & 65535n), true);
    else if (bytes === 4) view.setInt32(4 * i, Number(value), true);
    else view.setBigInt64(8 * i, value, true);
  }
  return new Uint8Array(view.buffer);
}

/** A field: where its value lies, and the value itself where that is a number. */
interface Field {
  field: number;
  at: number;
  length: number;
  value?: bigint;
}

/** Small enough that stepping over many large values costs little. */
const window = 2 ** 12;

/** Steps through messages; of what it steps over it reads nothing. */
class Scanner {
  readonly source: ByteSource;
  #bytes = new Uint8Array();
  #start = 0;

  constructor(source: ByteSource) {
    this.source = source;
  }

  wrong(message: string): OrielError {
    return new OrielError("malformed", { message: `not a valid ONNX model: ${message}`, at: this.source.name });
  }

  /** The fields of the message in bytes at … end. */
  async fields(at: number, end: number): Promise<Field[]> {
    const found: Field[] = [];
    for await (const field of this.step(at, end)) found.push(field);
    return found;
  }

  async *step(at: number, end: number): AsyncGenerator<Field> {
    while (at < end) {
      const key = await this.#varint(at, end);
      const wire = Number(key.value & 7n);
      const field = Number(key.value >> 3n);
      at = key.end;
      if (wire === 0) {
        const { value, end: after } = await this.#varint(at, end);
        yield { field, at, length: after - at, value: BigInt.asIntN(64, value) };
        at = after;
        continue;
      }
      let length = wire === 5 ? 4 : wire === 1 ? 8 : -1;
      if (wire === 2) {
        const size = await this.#varint(at, end);
        [length, at] = [Number(size.value), size.end];
      }
      if (length < 0) throw this.wrong(`wire type ${wire} is none of protocol buffers`);
      if (at + length > end) throw this.wrong(`a field of ${length} bytes ends after its message`);
      yield { field, at, length };
      at += length;
    }
  }

  async text({ at, length }: Field): Promise<string> {
    if (length > longestText) throw this.wrong(`a name of ${length} bytes`);
    return new TextDecoder().decode(await this.#read(at, length));
  }

  /** Packed whole numbers. */
  async numbers({ at, length }: Field): Promise<bigint[]> {
    const bytes = await this.#read(at, length);
    const values: bigint[] = [];
    for (let i = 0; i < bytes.length; ) {
      const size = bytes.subarray(i).findIndex((byte) => byte < 128) + 1;
      if (size === 0 || size > 10) throw this.wrong("a list ends within a number");
      let value = 0n;
      for (let j = size - 1; j >= 0; j--) value = (value << 7n) | BigInt(bytes[i + j] & 127);
      values.push(BigInt.asIntN(64, value));
      i += size;
    }
    return values;
  }

  async #varint(at: number, end: number): Promise<{ value: bigint; end: number }> {
    let value = 0n;
    for (let i = 0; i < 10; i++) {
      if (at + i >= end) throw this.wrong("a message ends within a number");
      const [byte] = await this.#read(at + i, 1);
      value |= BigInt(byte & 127) << BigInt(7 * i);
      if (byte < 128) return { value, end: at + i + 1 };
    }
    throw this.wrong("a number is longer than 64 bits");
  }

  /** What is short comes out of the window: behind an address every other read would be a request. */
  async #read(at: number, length: number): Promise<Uint8Array> {
    if (length > window) return this.source.read(at, length);
    if (at < this.#start || at + length > this.#start + this.#bytes.length) {
      checkRange(this.source, at, length);
      this.#bytes = (await this.source.read(at, Math.min(window, this.source.size - at))).slice();
      this.#start = at;
    }
    return this.#bytes.subarray(at - this.#start, at - this.#start + length);
  }
}
