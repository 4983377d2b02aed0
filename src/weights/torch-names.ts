/** The Python names that a torch file of weights may use, and what each becomes. Everything else is refused by name. */
import { OrielError } from "../base/errors.ts";
import { PickleName, PickleObject, type PickleValue, textOf } from "./pickle.ts";
import type { StoredDtype } from "./stored.ts";

/** A run of values that tensors look into; the bytes lie elsewhere in the file under `key`. */
export class Storage {
  readonly key: string;
  /** U8 where the values are known to the tensors only. */
  readonly dtype: StoredDtype;
  /** Values before the first of this storage: more than 0 only for a view into another, as torch once wrote. */
  readonly start: number;

  constructor(key: string, dtype: StoredDtype, start: number) {
    this.key = key;
    this.dtype = dtype;
    this.start = start;
  }
}

/** A tensor as torch describes it: a storage, and how to walk it; offset and strides count values. */
export class StridedTensor {
  readonly storage: Storage;
  readonly dtype: StoredDtype;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];

  constructor([storage, offset, shape, strides]: readonly PickleValue[], dtype?: StoredDtype) {
    const fits = isSizes(shape) && isSizes(strides) && isSizes([offset]) && shape.length === strides.length;
    if (!(storage instanceof Storage) || !fits) throw malformed("a tensor's description makes no sense");
    this.storage = storage;
    this.dtype = dtype ?? storage.dtype;
    this.offset = storage.start + (offset as number);
    this.shape = shape;
    this.strides = strides;
  }
}

const malformed = (message: string) => new OrielError("malformed", `not a valid torch file: ${message}`);

/** A tensor, and marks that PyTorch computes by: of a negative or a conjugate the storage holds other values than it has. */
function unmarked(tensor: StridedTensor, marks: PickleValue): StridedTensor {
  const found = marks instanceof Map ? ["neg", "conj"].filter((mark) => marks.get(mark) === true) : [];
  if (found.length === 0) return tensor;
  throw new OrielError("unsupported", {
    message: `a tensor [${tensor.shape}] of the file is the ${found[0] === "neg" ? "negative" : "conjugate"} of what is stored for it`,
    help: "in Python, save `tensor.resolve_conj().resolve_neg()`",
  });
}

/** torch's own limit. */
const mostAxes = 64;

const isSizes = (value: PickleValue): value is number[] =>
  Array.isArray(value) && value.length <= mostAxes && value.every((size) => Number.isSafeInteger(size) && size >= 0);

/** Dtypes with a storage type of their own, and how torch calls both. */
export const typedStorages = {
  F32: ["FloatStorage", "float32"],
  F64: ["DoubleStorage", "float64"],
  F16: ["HalfStorage", "float16"],
  BF16: ["BFloat16Storage", "bfloat16"],
  I64: ["LongStorage", "int64"],
  I32: ["IntStorage", "int32"],
  I16: ["ShortStorage", "int16"],
  I8: ["CharStorage", "int8"],
  U8: ["ByteStorage", "uint8"],
  BOOL: ["BoolStorage", "bool"],
  C64: ["ComplexFloatStorage", "complex64"],
} as const satisfies Partial<Record<StoredDtype, readonly [storage: string, dtype: string]>>;

/** Newer dtypes: their storages are bytes, and each tensor names its dtype. */
export const untypedDtypes = {
  U16: "uint16",
  U32: "uint32",
  U64: "uint64",
  F8_E4M3: "float8_e4m3fn",
  F8_E5M2: "float8_e5m2",
  F8_E4M3FNUZ: "float8_e4m3fnuz",
  F8_E5M2FNUZ: "float8_e5m2fnuz",
  F8_E8M0: "float8_e8m0fnu",
} as const satisfies Partial<Record<StoredDtype, string>>;

const typed = Object.entries(typedStorages) as [StoredDtype, readonly [string, string]][];
const storageDtypes = new Map<string, StoredDtype>([
  ...typed.map(([dtype, [storage]]) => [`torch.${storage}`, dtype] as const),
  ["torch.storage.UntypedStorage", "U8"],
]);
const dtypeNames = new Map<string, StoredDtype>([
  ...typed.map(([dtype, [, name]]) => [`torch.${name}`, dtype] as const),
  ...Object.entries(untypedDtypes).map(([dtype, name]) => [`torch.${name}`, dtype as StoredDtype] as const),
]);

/** ("storage", type, key, device, count[, view]): where a storage's bytes are. */
export function storageOf([kind, type, key, , , view]: readonly PickleValue[]): Storage {
  if (kind === "module")
    throw new OrielError("refused", {
      message: "the file holds a whole Python module, whose code would have to run",
      help: "in Python, save `model.state_dict()` instead of `model`",
    });
  const dtype = type instanceof PickleName ? storageDtypes.get(type.name) : undefined;
  const start = Array.isArray(view) ? view[1] : 0;
  if (kind !== "storage" || !dtype || !isSizes([start])) throw malformed("a storage's description makes no sense");
  return new Storage(textOf(key), dtype, start as number);
}

/** (storage, offset, shape, strides, requires_grad, hooks, dtype[, metadata]) */
function tensorOfDtype(args: readonly PickleValue[]): StridedTensor {
  const name = args[6];
  const dtype = name instanceof PickleName ? dtypeNames.get(name.name) : undefined;
  if (!dtype) throw malformed("a tensor's dtype makes no sense");
  return unmarked(new StridedTensor(args, dtype), args[7]);
}

/** (builder, type, its arguments, state): a tensor that had attributes set on it, which say nothing of its values. */
function tensorWithState([builder, , args]: readonly PickleValue[]): PickleValue {
  if (!(builder instanceof PickleName) || !builder.name.startsWith("torch._utils.") || !Array.isArray(args))
    throw malformed("a tensor's description makes no sense");
  return builder.build?.(args);
}

const isPair = (item: PickleValue): item is [PickleValue, PickleValue] => Array.isArray(item) && item.length === 2;

function pairsToMap([pairs = []]: readonly PickleValue[]): PickleValue {
  if (pairs instanceof Map) return new Map(pairs);
  if (!Array.isArray(pairs) || !pairs.every(isPair))
    throw malformed("a dictionary is made of something else than pairs");
  return new Map(pairs);
}

/** A dict with a default: (what makes one); what it holds is set after. */
const emptyMap = () => new Map();

const setOf = ([items = []]: readonly PickleValue[]) => new Set(Array.isArray(items) ? items : []);

const latin1Bytes = ([text]: readonly PickleValue[]) => Uint8Array.from(textOf(text), (letter) => letter.charCodeAt(0));

/** A single number, as training scripts keep their best accuracy. */
function numpyScalar([dtype, bytes]: readonly PickleValue[]): PickleValue {
  if (!(bytes instanceof Uint8Array) || typeof dtype !== "string") return null;
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const readers: Partial<Record<string, () => PickleValue>> = {
    f8: () => data.getFloat64(0, true),
    f4: () => data.getFloat32(0, true),
    i8: () => Number(data.getBigInt64(0, true)),
    i4: () => data.getInt32(0, true),
  };
  const read = readers[dtype];
  return read && data.byteLength === Number(dtype[1]) ? read() : null;
}

/** A shape's axes; torch.Size is a tuple. */
const size = ([axes]: readonly PickleValue[]) => (Array.isArray(axes) ? axes : []);

const builders: Record<string, (args: readonly PickleValue[]) => PickleValue> = {
  "torch._utils._rebuild_tensor": (args) => new StridedTensor(args),
  "torch._utils._rebuild_tensor_v2": (args) => unmarked(new StridedTensor(args), args[6]),
  "torch._utils._rebuild_tensor_v3": tensorOfDtype,
  "torch._utils._rebuild_parameter": ([tensor]) => tensor,
  "torch._utils._rebuild_parameter_with_state": ([tensor]) => tensor,
  "torch._tensor._rebuild_from_type_v2": tensorWithState,
  "torch.Size": size,
  "torch.device": (args) => args.map(textOf).join(":"),
  "collections.OrderedDict": pairsToMap,
  // Beside the weights, training scripts keep their arguments and scores; as data these are harmless.
  "collections.Counter": pairsToMap,
  "collections.defaultdict": emptyMap,
  "builtins.set": setOf,
  "__builtin__.set": setOf,
  "argparse.Namespace": () => new PickleObject("argparse.Namespace"),
  "numpy.dtype": ([code]) => code,
  "numpy.core.multiarray.scalar": numpyScalar,
  "numpy._core.multiarray.scalar": numpyScalar,
  "_codecs.encode": latin1Bytes,
};

/** Names that stand for themselves, as a type or a default does. */
const plainNames = [
  "torch.Tensor",
  "torch.nn.parameter.Parameter",
  ...["int", "float", "list", "dict"].flatMap((name) => [`builtins.${name}`, `__builtin__.${name}`]),
];

export const torchNames: ReadonlyMap<string, PickleName> = new Map(
  [
    ...Object.keys(builders).map((name) => new PickleName(name, builders[name])),
    ...[...storageDtypes.keys(), ...dtypeNames.keys(), ...plainNames].map((name) => new PickleName(name)),
  ].map((entry) => [entry.name, entry]),
);
