/**
 * Reads PyTorch's files, zip and legacy, as data: tensors, plain values and the containers around them; no Python is run.
 * Formats: https://github.com/pytorch/pytorch/blob/main/torch/serialization.py
 */
import { OrielError, UsageError } from "../base/errors.ts";
import { headBytes, identify } from "./identify.ts";
import type { PickleValue } from "./pickle.ts";
import type { ByteSource } from "./source.ts";
import { countOf, dtypeBytes, type StoredTensor } from "./stored.ts";
import { openLegacy, openZip, type TorchContents } from "./torch-files.ts";
import { StridedTensor } from "./torch-names.ts";

export interface TorchFile {
  readonly format: "zip" | "legacy";
  /** By name, without a `module.` or `_orig_mod.` that all of them begin with. */
  readonly tensors: Map<string, StoredTensor>;
  /** The entries they were found under, outermost first: `["state_dict"]`. */
  readonly path: readonly string[];
  /** Other entries of the file that hold tensors, for `key`: `["state_dict_ema", "optimizer"]`. */
  readonly others: readonly string[];
  /** Numbers and text beside the weights: `epoch`, `arch`, `best_prec1`. */
  readonly facts: ReadonlyMap<string, number | bigint | string | boolean>;
}

/** The weights of a torch file; `key` names the entry to take when the usual one is not wanted, such as `state_dict_ema`. */
export async function readTorch(source: ByteSource, options: { key?: string } = {}): Promise<TorchFile> {
  const looks = identify(await source.read(0, Math.min(source.size, headBytes)));
  const format = looks?.includes("zip") ? "zip" : looks?.includes("torch") ? "legacy" : undefined;
  try {
    if (!format) throw new OrielError("foreign", `not a torch file${looks ? `: it looks like ${looks}` : ""}`);
    const contents = await (format === "zip" ? openZip(source) : openLegacy(source));
    const { weights, path } = findWeights(contents.root, options.key);
    const root = contents.root instanceof Map ? [...contents.root] : [];
    return {
      format,
      path,
      tensors: await loadAll(stripCommon(flatten(weights)), contents.load),
      others: root
        .filter(([key, value]) => key !== path[0] && path.length > 0 && holdsTensors(value))
        .map(([key]) => String(key)),
      facts: new Map(root.filter(([, value]) => isPlain(value)).map(([key, value]) => [String(key), value])),
    };
  } catch (cause) {
    if (!(cause instanceof OrielError) || cause instanceof UsageError || cause.facts.at) throw cause;
    throw new OrielError(cause.code, { ...cause.facts, at: source.name });
  }
}

const isPlain = (value: PickleValue) => ["number", "bigint", "string", "boolean"].includes(typeof value);

/** Weights lie a few containers deep; a file that goes further means to exhaust the stack. */
const deepest = 64;

/** Entries that people keep weights under, the commonest first. */
const wrappings = [
  "state_dict",
  "model_state_dict",
  "model_state",
  "model",
  "network",
  "net",
  "params",
  "weights",
  "module",
];

/** Descends through the wrappings. */
function findWeights(root: PickleValue, key?: string): { weights: PickleValue; path: string[] } {
  const path: string[] = [];
  let weights = root;
  if (key !== undefined) {
    if (!(root instanceof Map) || !holdsTensors(root.get(key))) {
      const choices =
        root instanceof Map ? [...root].filter(([, value]) => holdsTensors(value)).map(([name]) => name) : [];
      throw new UsageError(`no tensors under "${key}"; there are some under: ${choices.join(", ")}`);
    }
    weights = root.get(key);
    path.push(key);
  }
  while (weights instanceof Map && path.length < deepest) {
    const inside: ReadonlyMap<PickleValue, PickleValue> = weights;
    // A state dict is flat, so an entry with entries of its own is a wrapping, even where tensors lie beside it.
    const wrapping = wrappings.find((name) => inside.get(name) instanceof Map && holdsTensors(inside.get(name)));
    if (!wrapping) break;
    path.push(wrapping);
    weights = inside.get(wrapping);
  }
  if (!holdsTensors(weights)) throw new OrielError("no-tensors", "the file holds no tensors");
  return { weights, path };
}

const holdsTensors = (value: PickleValue) => flatten(value).size > 0;

/** Every tensor at any depth, its keys joined by dots; a lone tensor is called "tensor". */
function flatten(root: PickleValue): Map<string, StridedTensor> {
  const found = new Map<string, StridedTensor>();
  const seen = new Set<PickleValue>(); // a pickled list may contain itself, or be contained a thousand times over
  const visit = (value: PickleValue, path: readonly string[]): void => {
    if (value instanceof StridedTensor) found.set(path.join(".") || "tensor", value);
    if (!(value instanceof Map || Array.isArray(value)) || seen.has(value)) return;
    if (path.length > deepest) throw new OrielError("malformed", `containers nested more than ${deepest} deep`);
    seen.add(value);
    for (const [key, item] of value.entries()) visit(item, [...path, String(key)]);
  };
  visit(root, []);
  return found;
}

/** What DataParallel (`module.`) and torch.compile (`_orig_mod.`) put before every name. */
function stripCommon<T>(tensors: ReadonlyMap<string, T>): Map<string, T> {
  const prefix = ["module.", "_orig_mod."].find((start) => [...tensors.keys()].every((name) => name.startsWith(start)));
  if (!prefix || tensors.size === 0) return new Map(tensors);
  return stripCommon(new Map([...tensors].map(([name, tensor]) => [name.slice(prefix.length), tensor])));
}

async function loadAll(
  tensors: ReadonlyMap<string, StridedTensor>,
  load: TorchContents["load"],
): Promise<Map<string, StoredTensor>> {
  const loaded = new Map<string, StoredTensor>();
  for (const [name, tensor] of tensors) loaded.set(name, rowMajor(name, tensor, await load(tensor.storage)));
  return loaded;
}

/** An expanded tensor may be far larger than its file; beyond this it is taken for an attack, not for weights. */
const largestExpansion = 2 ** 28;

/** A tensor's values in row-major order: a view of its storage where they lie so, else a copy. */
function rowMajor(name: string, tensor: StridedTensor, bytes: Uint8Array): StoredTensor {
  const { storage, offset, shape, strides } = tensor;
  const { dtype } = storage;
  const unit = dtypeBytes[dtype];
  const count = countOf(shape);
  const first = storage.start + offset;
  const last = count === 0 ? first - 1 : first + shape.reduce((sum, size, axis) => sum + (size - 1) * strides[axis], 0);
  if ((last + 1) * unit > bytes.byteLength)
    throw new OrielError(
      "malformed",
      `not a valid torch file: tensor "${name}" reaches value ${last} of a storage of ${Math.floor(bytes.byteLength / unit)}`,
    );
  if (isRowMajor(shape, strides)) return { dtype, shape, data: bytes.subarray(first * unit, (first + count) * unit) };
  if (count * unit > Math.max(bytes.byteLength, largestExpansion))
    throw new OrielError(
      "unsupported",
      `tensor "${name}" [${shape}] is expanded from a storage of ${bytes.byteLength} bytes`,
    );
  return { dtype, shape, data: gather(bytes.slice(first * unit, (last + 1) * unit), unit, shape, strides, count) };
}

/** Whether each axis steps over exactly the axes after it; the stride of an axis of size 1 never counts. */
function isRowMajor(shape: readonly number[], strides: readonly number[]): boolean {
  let step = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && strides[axis] !== step) return countOf(shape) === 0;
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
