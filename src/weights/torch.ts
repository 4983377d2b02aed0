/**
 * Reads PyTorch's files, zip and legacy, as data: tensors, plain values and the containers around them; no Python is run.
 * Formats: https://github.com/pytorch/pytorch/blob/main/torch/serialization.py
 */
import { OrielError, UsageError } from "../base/errors.ts";
import { formatOf, headBytes, identify } from "../base/identify.ts";
import type { PickleValue } from "./pickle.ts";
import type { ByteSource } from "./source.ts";
import { byteLengthOf, countOf, dtypeBits, type FileTensor, type StoredTensor } from "./stored.ts";
import { openLegacy, openZip } from "./torch-files.ts";
import type { StridedTensor } from "./torch-names.ts";
import { findWeights, unwrapNames } from "./wrappings.ts";
import type { Region } from "./zip.ts";

/** What a torch file holds; `Tensor` is `FileTensor` while they are in the file, `StoredTensor` once they are read. */
export interface TorchFile<Tensor = StoredTensor> {
  readonly format: "zip" | "legacy";
  readonly tensors: Map<string, Tensor>;
  /** The entries they were found under, outermost first: `["state_dict"]`. */
  readonly path: readonly string[];
  /** Other entries of the file that hold tensors, for `key`: `["state_dict_ema", "optimizer"]`. */
  readonly others: readonly string[];
  /** Numbers and text beside the weights: `epoch`, `arch`, `best_prec1`. */
  readonly facts: ReadonlyMap<string, number | bigint | string | boolean>;
}

/** `key` names the entry to take when the usual one is not wanted, `state_dict_ema`, or one and a part of it, `teacher.backbone`. */
export interface TorchOptions {
  key?: string;
}

/** Reads what a torch file describes; each tensor is read from the file when it is asked for.  Names are those of the file. */
export async function openTorch(source: ByteSource, options: TorchOptions = {}): Promise<TorchFile<FileTensor>> {
  const head = await source.read(0, Math.min(source.size, headBytes));
  const format = formatOf(head) === "torch" ? "zip" : formatOf(head) === "torch-legacy" ? "legacy" : undefined;
  try {
    const looks = identify(head);
    if (!format) throw new OrielError("foreign", `not a torch file${looks ? `: it looks like ${looks}` : ""}`);
    const { root, locate } = await (format === "zip" ? openZip(source) : openLegacy(source));
    const { tensors, path, others } = findWeights(root, options.key);
    const lazy = [...tensors].map(([name, tensor]): [string, FileTensor] => {
      const read = async () =>
        within(source, async () => readTensor(source, name, tensor, await locate(tensor.storage)));
      return [name, { dtype: tensor.dtype, shape: tensor.shape, read }];
    });
    return { format, tensors: new Map(lazy), path, others, facts: factsOf(root) };
  } catch (cause) {
    throw located(cause, source);
  }
}

/** All the weights of a torch file, by name without a `module.` or the like that all of them begin with. */
export async function readTorch(source: ByteSource, options: TorchOptions = {}): Promise<TorchFile> {
  const file = await openTorch(source, options);
  const tensors = new Map<string, StoredTensor>();
  for (const [name, tensor] of unwrapNames(file.tensors)) tensors.set(name, await tensor.read());
  return { ...file, tensors };
}

async function within<T>(source: ByteSource, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    throw located(cause, source);
  }
}

/** An error that says which file it is about. */
function located(cause: unknown, source: ByteSource): unknown {
  if (!(cause instanceof OrielError) || cause instanceof UsageError || cause.facts.at) return cause;
  return new OrielError(cause.code, { ...cause.facts, at: source.name });
}

type Fact = number | bigint | string | boolean;
const isFact = (value: PickleValue): value is Fact => ["number", "bigint", "string", "boolean"].includes(typeof value);

const factsOf = (root: PickleValue): Map<string, Fact> =>
  new Map(root instanceof Map ? [...root].filter(([key, value]) => typeof key === "string" && isFact(value)) : []);

/** An expanded tensor may be far larger than its file; beyond this it is taken for an attack, not for weights. */
const largestExpansion = 2 ** 28;

/** A tensor's values in row-major order: the bytes as they lie where they lie so, else gathered. */
async function readTensor(source: ByteSource, name: string, tensor: StridedTensor, at: Region): Promise<StoredTensor> {
  const { dtype, shape, strides, offset } = tensor;
  const unit = dtypeBits[dtype] / 8;
  const count = countOf(shape);
  if (count === 0) return { dtype, shape, data: new Uint8Array() };
  const last = offset + shape.reduce((sum, size, axis) => sum + (size - 1) * strides[axis], 0);
  if ((last + 1) * unit > at.length)
    throw new OrielError(
      "malformed",
      `not a valid torch file: tensor "${name}" reaches value ${last} of a storage of ${Math.floor(at.length / unit)}`,
    );
  const bytes = byteLengthOf(dtype, shape);
  if (isRowMajor(shape, strides)) return { dtype, shape, data: await source.read(at.at + offset * unit, bytes) };
  if (bytes > Math.max(at.length, largestExpansion))
    throw new OrielError("unsupported", `tensor "${name}" [${shape}] is expanded from a storage of ${at.length} bytes`);
  const span = await source.read(at.at + offset * unit, (last + 1 - offset) * unit);
  return { dtype, shape, data: gather(new Uint8Array(span), unit as 1 | 2 | 4 | 8, shape, strides, count) };
}

/** Whether each axis steps over exactly the axes after it; the stride of an axis of size 1 never counts. */
function isRowMajor(shape: readonly number[], strides: readonly number[]): boolean {
  let step = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && strides[axis] !== step) return false;
    step *= shape[axis];
  }
  return true;
}

const units = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array, 8: BigUint64Array } as const;

/** Walks the bytes, a copy that starts at the first value, by strides, the last axis fastest. */
function gather(
  bytes: Uint8Array<ArrayBuffer>,
  unit: 1 | 2 | 4 | 8,
  shape: readonly number[],
  strides: readonly number[],
  count: number,
): Uint8Array {
  const from = new units[unit](bytes.buffer);
  const to = new units[unit](count);
  const index = shape.map(() => 0);
  let at = 0;
  for (let i = 0; i < count; i++) {
    to[i] = from[at];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at += strides[axis];
      index[axis]++;
      if (index[axis] < shape[axis]) break;
      at -= strides[axis] * shape[axis];
      index[axis] = 0;
    }
  }
  return new Uint8Array(to.buffer);
}
