import { OrielError } from "../base/errors.ts";

/** Bytes per value of each dtype, by the names that safetensors gives them. */
export const dtypeBytes = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  U16: 2,
  I16: 2,
  F16: 2,
  BF16: 2,
  U32: 4,
  I32: 4,
  F32: 4,
  U64: 8,
  I64: 8,
  F64: 8,
  C64: 8,
} as const;

export type StoredDtype = keyof typeof dtypeBytes;

/** A tensor as it lies in a file: row-major, little-endian bytes. */
export interface StoredTensor {
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

/** Number of values of a shape; 1 for a scalar. */
export const countOf = (shape: readonly number[]): number => shape.reduce((count, size) => count * size, 1);

/** The values as float32: a view where the bytes are that already, else a copy; int64 and float64 are rounded. */
export function toFloat32({ dtype, data }: Pick<StoredTensor, "dtype" | "data">): Float32Array {
  switch (dtype) {
    case "F32":
      return view(Float32Array, data);
    case "F64":
      return Float32Array.from(view(Float64Array, data));
    case "F16":
      return looked(view(Uint16Array, data), halves());
    case "BF16":
      return new Float32Array(Uint32Array.from(view(Uint16Array, data), (bits) => bits << 16).buffer);
    case "F8_E4M3":
      return looked(data, e4m3());
    case "F8_E5M2":
      return looked(data, e5m2());
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
  const { buffer, byteOffset } = byteOffsetFits(type, bytes) ? bytes : bytes.slice();
  return new type(buffer, byteOffset, bytes.byteLength / type.BYTES_PER_ELEMENT);
}

const byteOffsetFits = (type: { BYTES_PER_ELEMENT: number }, bytes: Uint8Array) =>
  bytes.byteOffset % type.BYTES_PER_ELEMENT === 0;

/** Small floats are decoded by a table of all of them, made when first asked for. */
function looked(codes: Uint8Array | Uint16Array, table: Float32Array): Float32Array {
  const out = new Float32Array(codes.length);
  for (let i = 0; i < codes.length; i++) out[i] = table[codes[i]];
  return out;
}

const halves = once(() => floatTable({ exponentBits: 5, mantissaBits: 10, infinities: true }));
const e5m2 = once(() => floatTable({ exponentBits: 5, mantissaBits: 2, infinities: true }));
const e4m3 = once(() => floatTable({ exponentBits: 4, mantissaBits: 3, infinities: false }));

/** Every value of an IEEE-like format; without infinities, only the code of all ones is not a number (Micikevicius et al. 2022, table 1). */
function floatTable(form: { exponentBits: number; mantissaBits: number; infinities: boolean }): Float32Array {
  const { exponentBits, mantissaBits, infinities } = form;
  const steps = 2 ** mantissaBits;
  const top = 2 ** exponentBits - 1;
  const bias = 2 ** (exponentBits - 1) - 1;
  const magnitude = (code: number): number => {
    const exponent = Math.floor(code / steps);
    const mantissa = code % steps;
    if (exponent === top && infinities) return mantissa === 0 ? Infinity : NaN;
    if (exponent === top && mantissa === steps - 1) return NaN;
    if (exponent === 0) return (mantissa / steps) * 2 ** (1 - bias);
    return (1 + mantissa / steps) * 2 ** (exponent - bias);
  };
  const half = (top + 1) * steps;
  return Float32Array.from({ length: 2 * half }, (_, code) =>
    code < half ? magnitude(code) : -magnitude(code - half),
  );
}

function once<T>(make: () => T): () => T {
  let made: T | undefined;
  return () => {
    made ??= make();
    return made;
  };
}
