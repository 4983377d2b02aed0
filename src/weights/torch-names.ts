/** The Python names that a torch file of weights may use, and what each becomes. Everything else is refused by name. */
import { OrielError } from "../base/errors.ts";
import { PickleName, PickleObject, type PickleValue } from "./pickle.ts";
import type { StoredDtype } from "./stored.ts";

/** A run of values that tensors look into; the bytes lie elsewhere in the file under `key`. */
export interface Storage {
  readonly key: string;
  readonly dtype: StoredDtype;
  /** Values before the first of this storage: more than 0 only for a view into another, as torch once wrote. */
  readonly start: number;
}

/** A tensor as torch describes it: a storage, and how to walk it; offset and strides count values. */
export class StridedTensor {
  readonly storage: Storage;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];

  constructor([storage, offset, shape, strides]: readonly PickleValue[]) {
    const fits = isSizes(shape) && isSizes(strides) && isSizes([offset]) && shape.length === strides.length;
    if (!isStorage(storage) || !fits) throw malformed("a tensor's description makes no sense");
    this.storage = storage;
    this.offset = offset as number;
    this.shape = shape;
    this.strides = strides;
  }
}

const malformed = (message: string) => new OrielError("malformed", `not a valid torch file: ${message}`);

const isStorage = (value: PickleValue): value is Storage =>
  typeof value === "object" && value !== null && "key" in value && "dtype" in value;

const isSizes = (value: PickleValue): value is number[] =>
  Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);

const storageTypes: Record<string, StoredDtype> = {
  FloatStorage: "F32",
  DoubleStorage: "F64",
  HalfStorage: "F16",
  BFloat16Storage: "BF16",
  LongStorage: "I64",
  IntStorage: "I32",
  ShortStorage: "I16",
  CharStorage: "I8",
  ByteStorage: "U8",
  BoolStorage: "BOOL",
};

/** ("storage", type, key, device, count[, view]): where a storage's bytes are. */
export function storageOf([kind, type, key, , , view]: readonly PickleValue[]): Storage {
  if (kind === "module")
    throw new OrielError("refused", {
      message: "the file holds a whole Python module, whose code would have to run",
      help: "in Python, save `model.state_dict()` instead of `model`",
    });
  const dtype = type instanceof PickleName ? storageTypes[type.name.replace(/^torch\./, "")] : undefined;
  if (kind !== "storage" || !dtype) throw malformed("a storage's description makes no sense");
  const start = Array.isArray(view) ? view[1] : 0;
  if (!isSizes([start])) throw malformed("a storage's description makes no sense");
  return { key: String(key), dtype, start: start as number };
}

const pairsToMap = ([pairs]: readonly PickleValue[]) =>
  new Map(Array.isArray(pairs) ? (pairs as [unknown, unknown][]) : []);

const latin1Bytes = ([text]: readonly PickleValue[]) => Uint8Array.from(String(text), (letter) => letter.charCodeAt(0));

/** A single number, as training scripts keep their best accuracy. */
function numpyScalar([dtype, bytes]: readonly PickleValue[]): PickleValue {
  if (!(bytes instanceof Uint8Array)) return null;
  const data = new DataView(bytes.slice().buffer);
  const readers: Partial<Record<string, () => PickleValue>> = {
    f8: () => data.getFloat64(0, true),
    f4: () => data.getFloat32(0, true),
    i8: () => Number(data.getBigInt64(0, true)),
    i4: () => data.getInt32(0, true),
  };
  const read = readers[String(dtype)];
  return read && data.byteLength === Number(String(dtype)[1]) ? read() : null;
}

/** A shape's axes; torch.Size is a tuple. */
const size = ([axes]: readonly PickleValue[]) => (Array.isArray(axes) ? axes : []);

const builders: Record<string, (args: readonly PickleValue[]) => PickleValue> = {
  "torch._utils._rebuild_tensor": (args) => new StridedTensor(args),
  "torch._utils._rebuild_tensor_v2": (args) => new StridedTensor(args),
  "torch._utils._rebuild_parameter": ([tensor]) => tensor,
  "torch.Size": size,
  "torch.device": (args) => args.map(String).join(":"),
  "collections.OrderedDict": pairsToMap,
  // Beside the weights, training scripts keep their arguments and scores; as data these are harmless.
  "argparse.Namespace": () => new PickleObject("argparse.Namespace"),
  "numpy.dtype": ([code]) => code,
  "numpy.core.multiarray.scalar": numpyScalar,
  "numpy._core.multiarray.scalar": numpyScalar,
  "_codecs.encode": latin1Bytes,
};
const dtypes = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"];

export const torchNames: ReadonlyMap<string, PickleName> = new Map(
  [
    ...Object.keys(builders).map((name) => new PickleName(name, builders[name])),
    ...[...Object.keys(storageTypes), ...dtypes].map((name) => new PickleName(`torch.${name}`)),
  ].map((entry) => [entry.name, entry]),
);
