/**
 * Safetensors: 8 bytes of header length, a JSON header, then the tensors' bytes end to end.
 * Nothing here needs Node; `file-source.ts` and `save-safetensors.ts` do.  https://github.com/huggingface/safetensors#format
 */
import { joinBytes } from "../base/bytes.ts";
import { didYouMean, OrielError, UsageError } from "../base/errors.ts";
import { headBytes, identify } from "../base/identify.ts";
import { type ByteSource, checkRange } from "./source.ts";
import {
  byteLengthOf,
  dtypeBits,
  type FileTensor,
  type StoredDtype,
  type StoredTensor,
  stored,
  toFloat32,
  type ValueTensor,
} from "./stored.ts";

export interface TensorInfo {
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
  /** First byte and the one after the last, counted from the end of the header. */
  readonly range: readonly [begin: number, end: number];
}

/** The reference implementation's limit; a longer header is a broken or hostile file. */
const longestHeader = 100_000_000;

/** An opened safetensors file; only the header is in memory, each tensor is read when asked for. */
export class SafetensorsFile {
  readonly metadata: Readonly<Record<string, string>>;
  /** In the order of the header, whole numbers first, since JavaScript's objects have it so. */
  readonly names: readonly string[];
  readonly #source: ByteSource;
  readonly #infos: ReadonlyMap<string, TensorInfo>;
  readonly #start: number;

  private constructor(source: ByteSource, start: number, header: Header) {
    this.#source = source;
    this.#start = start;
    this.#infos = header.infos;
    this.metadata = header.metadata;
    this.names = [...header.infos.keys()];
  }

  /** Reads and checks the header: every byte after it must belong to exactly one tensor. */
  static async open(source: ByteSource): Promise<SafetensorsFile> {
    const head = await source.read(0, Math.min(source.size, headBytes));
    const length = head.length < 8 ? 0 : Number(new DataView(head.buffer, head.byteOffset).getBigUint64(0, true));
    if (head[8] !== 0x7b /* { */) throw notSafetensors(source, head);
    if (length > longestHeader) throw malformed(source, `its header claims ${length} bytes`);
    checkRange(source, 8, length);
    const header = parseHeader(source, await source.read(8, length));
    checkLayout(source, 8 + length, header.infos);
    return new SafetensorsFile(source, 8 + length, header);
  }

  has(name: string): boolean {
    return this.#infos.has(name);
  }

  info(name: string): TensorInfo {
    const info = this.#infos.get(name);
    if (info) return info;
    throw new UsageError({
      message: `no tensor named "${name}"`,
      at: this.#source.name,
      help: this.names.length === 0 ? "the file holds no tensors" : didYouMean(name, this.names),
    });
  }

  async read(name: string): Promise<StoredTensor> {
    const { dtype, shape, range } = this.info(name);
    return { dtype, shape, data: await this.#source.read(this.#start + range[0], range[1] - range[0]) };
  }

  /** Every tensor by name, still in the file. */
  get tensors(): Map<string, FileTensor> {
    return new Map(
      [...this.#infos].map(([name, { dtype, shape }]) => [name, { dtype, shape, read: () => this.read(name) }]),
    );
  }

  /** The values as float32, whatever they are stored as. */
  async readFloat32(name: string): Promise<Float32Array> {
    return toFloat32(await this.read(name));
  }
}

interface Header {
  metadata: Record<string, string>;
  infos: Map<string, TensorInfo>;
}

const malformed = (source: ByteSource, message: string, cause?: unknown) =>
  new OrielError("malformed", { message: `not a valid safetensors file: ${message}`, at: source.name, cause });

function notSafetensors(source: ByteSource, head: Uint8Array): OrielError {
  const looks = identify(head);
  if (!looks && head.length < 9)
    return malformed(source, `truncated: expected at least 10 bytes, found ${source.size}`);
  return new OrielError("foreign", {
    message: `not a safetensors file${looks ? `: it looks like ${looks}` : ""}`,
    at: source.name,
    help: looks?.includes("torch") ? "read it as a torch file, or convert it with `oriel convert`" : undefined,
  });
}

function parseHeader(source: ByteSource, bytes: Uint8Array): Header {
  if (nesting(bytes) > 3) throw malformed(source, "its header is nested deeper than any tensor's description");
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw malformed(source, `its header is not JSON (${(cause as Error).message})`, cause);
  }
  if (!isRecord(header)) throw malformed(source, "its header is not a JSON object");
  const { __metadata__: metadata = {}, ...entries } = header;
  if (!isRecord(metadata) || !Object.values(metadata).every((value) => typeof value === "string"))
    throw malformed(source, "its metadata is not a map from text to text");
  const infos = new Map(Object.entries(entries).map(([name, entry]) => [name, parseEntry(source, name, entry)]));
  return { metadata: metadata as Record<string, string>, infos };
}

/** How deep brackets nest in JSON text: parsing millions of them, one in another, takes minutes. */
function nesting(json: Uint8Array): number {
  let [depth, deepest, quoted] = [0, 0, false];
  for (let i = 0; i < json.length; i++) {
    const byte = json[i];
    if (byte === 0x22 /* " */) quoted = !quoted;
    else if (quoted) i += byte === 0x5c /* \ */ ? 1 : 0;
    else if (byte === 0x7b /* { */ || byte === 0x5b /* [ */) deepest = Math.max(deepest, ++depth);
    else if (byte === 0x7d /* } */ || byte === 0x5d /* ] */) depth--;
  }
  return deepest;
}

function parseEntry(source: ByteSource, name: string, entry: unknown): TensorInfo {
  const { dtype, shape, data_offsets: range } = isRecord(entry) ? entry : {};
  if (typeof dtype !== "string") throw malformed(source, `tensor "${name}" has no dtype`);
  if (!Object.hasOwn(dtypeBits, dtype))
    throw malformed(source, `tensor "${name}" is of dtype ${dtype}; known are ${Object.keys(dtypeBits).join(", ")}`);
  if (!isSizes(shape)) throw malformed(source, `tensor "${name}" has shape ${JSON.stringify(shape)}`);
  if (!isSizes(range) || range.length !== 2 || range[0] > range[1])
    throw malformed(source, `tensor "${name}" has offsets ${JSON.stringify(range)}`);
  const expected = byteLengthOf(dtype as StoredDtype, shape);
  const found = range[1] - range[0];
  if (expected !== found)
    throw malformed(
      source,
      `tensor "${name}", ${dtype} [${shape}], needs ${expected} bytes; its offsets give it ${found}`,
    );
  return { dtype: dtype as StoredDtype, shape, range: [range[0], range[1]] };
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const isSizes = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);

/** No gaps and no overlaps, as the format demands: a byte read twice or never could carry another file's content. */
function checkLayout(source: ByteSource, start: number, infos: ReadonlyMap<string, TensorInfo>): void {
  const inOrder = [...infos].sort(([, a], [, b]) => a.range[0] - b.range[0] || a.range[1] - b.range[1]);
  let at = 0;
  let before = "";
  for (const [name, { range }] of inOrder) {
    if (range[0] < at)
      throw malformed(source, `tensors "${before}" and "${name}" overlap at byte ${range[0]} of the data`);
    if (range[0] > at)
      throw malformed(source, `bytes ${at} to ${range[0]} of the data, before "${name}", belong to no tensor`);
    [at, before] = [range[1], name];
  }
  checkRange(source, start, at);
  if (start + at < source.size)
    throw malformed(
      source,
      `expected ${start + at} bytes, found ${source.size}: the last ${source.size - start - at} belong to no tensor`,
    );
}

/** Tensors to write: values of a program, bytes, or what is still in the file that it is copied from. */
export type NamedTensors = Iterable<readonly [name: string, tensor: ValueTensor | StoredTensor | FileTensor]>;

type Stored<T> = readonly [name: string, tensor: T | StoredTensor];

/** The same as they lie in a file. */
export const allStored = <T extends StoredTensor | FileTensor>(
  tensors: Iterable<readonly [name: string, tensor: T | ValueTensor]>,
): Stored<T>[] => Array.from(tensors, ([name, tensor]) => [name, stored(name, tensor)]);

/** How a file will lie: its header, then the tensors in the order of their bytes. */
export interface SafetensorsLayout {
  header: Uint8Array;
  tensors: readonly Stored<FileTensor>[];
}

/** Lays a file out; the same tensors in the same order give the same bytes. */
export function layOutSafetensors(
  tensors: NamedTensors,
  metadata: Readonly<Record<string, string>> = {},
): SafetensorsLayout {
  const named = new Map<string, StoredTensor | FileTensor>();
  for (const [name, tensor] of allStored(tensors)) {
    if (name === "__metadata__")
      throw new UsageError(`a tensor cannot be named "__metadata__": safetensors keeps that name`);
    if (named.has(name)) throw new UsageError(`two tensors are named "${name}"`);
    if ("data" in tensor) checkLength(name, tensor, tensor.data);
    named.set(name, tensor);
  }
  // The header keeps the order given; the data goes by falling size of value, so that every tensor starts on its own boundary.
  const laid = [...named].sort(([, a], [, b]) => dtypeBits[b.dtype] - dtypeBits[a.dtype]);
  const ranges = new Map<string, [number, number]>();
  let at = 0;
  for (const [name, { dtype, shape }] of laid) {
    const end = at + byteLengthOf(dtype, shape);
    ranges.set(name, [at, end]);
    at = end;
  }
  // Put together by hand: an object would move names that look like numbers to the front.
  const entries = Object.keys(metadata).length > 0 ? [`"__metadata__":${JSON.stringify(metadata)}`] : [];
  for (const [name, { dtype, shape }] of named)
    entries.push(`${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: ranges.get(name) })}`);
  return { header: framed(`{${entries.join(",")}}`), tensors: laid };
}

/** The bytes of a tensor, wherever it is; as many as its dtype and shape say. */
export async function bytesOf(name: string, tensor: StoredTensor | FileTensor): Promise<Uint8Array> {
  const { data } = "data" in tensor ? tensor : await tensor.read();
  checkLength(name, tensor, data);
  return data;
}

/** The whole file in memory. */
export function encodeSafetensors(
  tensors: Iterable<readonly [name: string, tensor: ValueTensor | StoredTensor]>,
  metadata?: Readonly<Record<string, string>>,
): Uint8Array {
  const given = allStored<StoredTensor>(tensors);
  const inMemory = new Map(given);
  const layout = layOutSafetensors(given, metadata);
  return joinBytes([layout.header, ...layout.tensors.map(([name]) => inMemory.get(name)!.data)]);
}

/** The header's length and text, padded with spaces so that the data starts on a boundary of 8. */
function framed(header: string): Uint8Array {
  const text = new TextEncoder().encode(header);
  const length = Math.ceil(text.length / 8) * 8;
  const bytes = new Uint8Array(8 + length).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  bytes.set(text, 8);
  return bytes;
}

function checkLength(name: string, { dtype, shape }: Pick<StoredTensor, "dtype" | "shape">, data: Uint8Array): void {
  const expected = byteLengthOf(dtype, shape);
  if (expected === data.byteLength) return;
  throw new UsageError(`tensor "${name}", ${dtype} [${shape}], needs ${expected} bytes; ${data.byteLength} were given`);
}
