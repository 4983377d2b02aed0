import { OrielError, UsageError } from "../base/errors.ts";
import { arrayOf, bytesView, type Data, type DType, dtypeCodes } from "../graph/dtype.ts";

/** Bits per value of each dtype, by the names that safetensors gives them. */
export const dtypeBits = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E4M3: 8,
  F8_E5M2: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  F8_E8M0: 8,
  U16: 16,
  I16: 16,
  F16: 16,
  BF16: 16,
  U32: 32,
  I32: 32,
  F32: 32,
  U64: 64,
  I64: 64,
  F64: 64,
  C64: 64,
} as const;

export type StoredDtype = keyof typeof dtypeBits;

/** Dtypes by the codes that ONNX has for them in `TensorProto.DataType`. */
export const onnxDtypes: Readonly<Record<number, StoredDtype>> = {
  1: "F32",
  2: "U8",
  3: "I8",
  4: "U16",
  5: "I16",
  6: "I32",
  7: "I64",
  9: "BOOL",
  10: "F16",
  11: "F64",
  12: "U32",
  13: "U64",
  14: "C64",
  16: "BF16",
  17: "F8_E4M3",
  18: "F8_E4M3FNUZ",
  19: "F8_E5M2",
  20: "F8_E5M2FNUZ",
  23: "F4",
  24: "F8_E8M0",
};

/** A tensor as it lies in a file: row-major, little-endian bytes; two `F4` in a byte, the first in its lower half. */
export interface StoredTensor {
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

/** A tensor that is still in its file. */
export interface FileTensor {
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
  /** Its bytes, read now. */
  read(): Promise<StoredTensor>;
}

/** Values of a program, as a state reads or a run gives them; float32 where nothing else is said. */
export interface ValueTensor {
  readonly dtype?: DType;
  readonly shape: readonly number[];
  readonly data: Data;
}

/** Values as they lie in a file; what does already, or is still in one, stays as it is. */
export function stored<T extends StoredTensor | FileTensor>(name: string, tensor: T | ValueTensor): T | StoredTensor {
  const { dtype = "float32", shape } = tensor;
  if ("read" in tensor || Object.hasOwn(dtypeBits, dtype)) return tensor as T;
  const { data } = tensor as ValueTensor;
  const wrong = (message: string): UsageError =>
    new UsageError({
      message: `tensor "${name}" cannot be stored: ${message}`,
      help: `give values, { dtype: "float32", shape, data: Float32Array }, or bytes, { dtype: "F32", shape, data: Uint8Array }`,
    });
  if (!Object.hasOwn(dtypeCodes, dtype)) throw wrong(`there is no dtype "${dtype}"`);
  const array = arrayOf(dtype as DType);
  const storedDtype = onnxDtypes[dtypeCodes[dtype as DType]];
  if (!storedDtype || !(data instanceof array)) throw wrong(`${dtype} comes in no ${data?.constructor.name}`);
  return { dtype: storedDtype, shape, data: bytesView(data) };
}

/** Number of values of a shape; 1 for a scalar. */
export const countOf = (shape: readonly number[]): number => shape.reduce((count, size) => count * size, 1);

/** Bytes that a tensor takes; no whole number where values of less than a byte leave a rest. */
export const byteLengthOf = (dtype: StoredDtype, shape: readonly number[]): number =>
  (countOf(shape) * dtypeBits[dtype]) / 8;

/** The values as float32: a view where the bytes are that already, else a copy; int64 and float64 are rounded. */
export function toFloat32({ dtype, data }: Pick<StoredTensor, "dtype" | "data">): Float32Array {
  switch (dtype) {
    case "F32":
      return view(Float32Array, data);
    case "F64":
      return Float32Array.from(view(Float64Array, data));
    case "BF16":
      return shifted(view(Uint16Array, data));
    case "F16":
      return looked(view(Uint16Array, data), dtype);
    case "F8_E4M3":
    case "F8_E5M2":
    case "F8_E4M3FNUZ":
    case "F8_E5M2FNUZ":
    case "F8_E8M0":
      return looked(data, dtype);
    case "F4":
      return looked(nibbles(data), dtype);
    case "I64":
      return Float32Array.from(view(BigInt64Array, data), Number);
    case "U64":
      return Float32Array.from(view(BigUint64Array, data), Number);
    case "I32":
      return Float32Array.from(view(Int32Array, data));
    case "U32":
      return Float32Array.from(view(Uint32Array, data));
    case "I16":
      return Float32Array.from(view(Int16Array, data));
    case "U16":
      return Float32Array.from(view(Uint16Array, data));
    case "I8":
      return Float32Array.from(view(Int8Array, data));
    case "U8":
      return Float32Array.from(data);
    case "BOOL":
      return Float32Array.from(data, (byte) => (byte === 0 ? 0 : 1));
    case "F6_E2M3":
    case "F6_E3M2":
      throw new OrielError("dtype", `no standard says how ${dtype} values are packed into bytes`);
    case "C64":
      throw new OrielError("dtype", "complex values have no float32 form");
  }
}

interface ArrayType<T> {
  new (buffer: ArrayBufferLike, offset: number, length: number): T;
  readonly BYTES_PER_ELEMENT: number;
}

/** The bytes as values; copied only when they start off the boundary that the type needs. */
function view<T>(type: ArrayType<T>, bytes: Uint8Array): T {
  const aligned = bytes.byteOffset % type.BYTES_PER_ELEMENT === 0;
  const { buffer, byteOffset } = aligned ? bytes : new Uint8Array(bytes);
  return new type(buffer, byteOffset, bytes.byteLength / type.BYTES_PER_ELEMENT);
}

/** bfloat16 is the upper half of a float32. */
function shifted(codes: Uint16Array): Float32Array {
  const bits = new Uint32Array(codes.length);
  for (let i = 0; i < codes.length; i++) bits[i] = codes[i] << 16;
  return new Float32Array(bits.buffer);
}

/** Two codes of four bits a byte, the lower half first. */
function nibbles(bytes: Uint8Array): Uint8Array {
  const codes = new Uint8Array(2 * bytes.length);
  for (let i = 0; i < bytes.length; i++) {
    codes[2 * i] = bytes[i] & 15;
    codes[2 * i + 1] = bytes[i] >> 4;
  }
  return codes;
}

interface FloatForm {
  exponent: number;
  mantissa: number;
  bias: number;
  /** Codes that are no number: those of IEEE, with infinities; all ones only; what would be -0; none. */
  special: "ieee" | "all ones" | "minus zero" | "none";
}

/**
 * Floats of few bits.  8 bits: Micikevicius et al., "FP8 Formats for Deep Learning" (2022), table 1; the forms without -0 (`FNUZ`):
 * Noune et al., "8-bit Numerical Formats for Deep Neural Networks" (2022); F4: OCP Microscaling Formats 1.0, table 5.
 */
const forms = {
  F16: { exponent: 5, mantissa: 10, bias: 15, special: "ieee" },
  F8_E5M2: { exponent: 5, mantissa: 2, bias: 15, special: "ieee" },
  F8_E4M3: { exponent: 4, mantissa: 3, bias: 7, special: "all ones" },
  F8_E5M2FNUZ: { exponent: 5, mantissa: 2, bias: 16, special: "minus zero" },
  F8_E4M3FNUZ: { exponent: 4, mantissa: 3, bias: 8, special: "minus zero" },
  F4: { exponent: 2, mantissa: 1, bias: 1, special: "none" },
} as const satisfies Partial<Record<StoredDtype, FloatForm>>;

const tables = new Map<string, Float32Array>();

/** Decodes by a table of all values, made when first asked for. */
function looked(codes: Uint8Array | Uint16Array, dtype: keyof typeof forms | "F8_E8M0"): Float32Array {
  const table = tables.get(dtype) ?? (dtype === "F8_E8M0" ? powersOfTwo() : valuesOf(forms[dtype]));
  tables.set(dtype, table);
  const out = new Float32Array(codes.length);
  for (let i = 0; i < codes.length; i++) out[i] = table[codes[i]];
  return out;
}

/** E8M0, a scale: 2^(code - 127), and 255 is no number (OCP Microscaling Formats 1.0, section 5.4.1). */
const powersOfTwo = () => Float32Array.from({ length: 256 }, (_, code) => (code === 255 ? NaN : 2 ** (code - 127)));

/** Every value of a form, by code: sign, exponent, mantissa from the highest bit down. */
function valuesOf({ exponent: exponentBits, mantissa: mantissaBits, bias, special }: FloatForm): Float32Array {
  const steps = 2 ** mantissaBits;
  const half = 2 ** exponentBits * steps;
  const magnitude = (code: number): number => {
    const exponent = Math.floor(code / steps);
    const fraction = (code % steps) / steps;
    if (special === "ieee" && exponent === half / steps - 1) return fraction === 0 ? Infinity : NaN;
    if (special === "all ones" && code === half - 1) return NaN;
    return exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias);
  };
  const values = Float32Array.from({ length: 2 * half }, (_, code) =>
    code < half ? magnitude(code) : -magnitude(code - half),
  );
  if (special === "minus zero") values[half] = NaN;
  return values;
}
