/** Element types of ONNX tensors, with the code of `TensorProto.DataType`. */
export const dtypeCodes = {
  float32: 1,
  uint8: 2,
  int8: 3,
  uint16: 4,
  int16: 5,
  int32: 6,
  int64: 7,
  string: 8,
  bool: 9,
  float16: 10,
  float64: 11,
  uint32: 12,
  uint64: 13,
  bfloat16: 16,
} as const;

export type DType = keyof typeof dtypeCodes;

/** Values of a tensor in memory. bool and 8-bit types lie in bytes; float16 and bfloat16 as their bit patterns. */
export type Data =
  | Float32Array<ArrayBuffer>
  | Float64Array<ArrayBuffer>
  | Int32Array<ArrayBuffer>
  | Uint32Array<ArrayBuffer>
  | BigInt64Array<ArrayBuffer>
  | BigUint64Array<ArrayBuffer>
  | Uint8Array<ArrayBuffer>
  | Int8Array<ArrayBuffer>
  | Uint16Array<ArrayBuffer>
  | Int16Array<ArrayBuffer>;

const arrays = {
  float32: Float32Array,
  float64: Float64Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  uint8: Uint8Array,
  int8: Int8Array,
  bool: Uint8Array,
  uint16: Uint16Array,
  int16: Int16Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  string: Uint8Array,
} as const;

export const isFloat = (dtype: DType): boolean =>
  dtype === "float32" || dtype === "float64" || dtype === "float16" || dtype === "bfloat16";

/** Bytes of one element. */
export const bytesOf = (dtype: DType): number => arrays[dtype].BYTES_PER_ELEMENT;

/** The kind of array that values of `dtype` lie in. */
export const arrayOf = (dtype: DType): (typeof arrays)[DType] => arrays[dtype];

/** An array of `size` zeros for `dtype`. */
export const zerosOf = (dtype: DType, size: number): Data => new arrays[dtype](size);

/** An array of `dtype` holding `values`. */
export function dataOf(dtype: DType, values: ArrayLike<number>): Data {
  if (dtype === "int64" || dtype === "uint64") {
    const out = new arrays[dtype](values.length);
    for (let i = 0; i < values.length; i++) out[i] = BigInt(values[i]);
    return out;
  }
  if (dtype === "float16") return Uint16Array.from(values, halfBits);
  if (dtype === "bfloat16") return Uint16Array.from(values, brainBits);
  return arrays[dtype].from(values) as Data;
}

const word = new DataView(new ArrayBuffer(8));

/** The bits of the bfloat16 nearest to a number, ties to even: the upper half of a float32. */
function brainBits(value: number): number {
  word.setFloat32(0, value);
  const bits = word.getUint32(0);
  if (Number.isNaN(value)) return 0x7fc0;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** The bits of the float16 nearest to a number, ties to even. */
function halfBits(value: number): number {
  if (Number.isNaN(value)) return 0x7e00;
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  // Below 2⁻¹⁴ the steps are all 2⁻²⁴; above, there are 1024 to each power of two.
  const exponent = Math.max(-14, Math.min(16, Math.floor(Math.log2(size))));
  const step = 2 ** (exponent - 10);
  const steps = roundToEven(size / step);
  return sign | Math.min(((exponent + 14) << 10) + steps, 0x7c00);
}

function roundToEven(x: number): number {
  const low = Math.floor(x);
  const rest = x - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low;
}

/** Values as float32: the same array where it is one, half precision decoded, whole numbers rounded. */
export function floatsOf(dtype: DType, data: Data): Float32Array<ArrayBuffer> {
  if (data instanceof Float32Array) return data;
  if (dtype === "bfloat16") return new Float32Array(Uint32Array.from(data as Uint16Array, (bits) => bits << 16).buffer);
  if (dtype === "float16") return Float32Array.from(data as Uint16Array, halfValue);
  return Float32Array.from(data as Iterable<number | bigint>, Number);
}

/** The number that the bits of a float16 stand for. */
function halfValue(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  if (exponent === 31) return mantissa === 0 ? sign * Infinity : NaN;
  return sign * (exponent === 0 ? mantissa * 2 ** -24 : (1024 + mantissa) * 2 ** (exponent - 25));
}

/** The bytes of `data`, not copied. */
export const bytesView = (data: Data): Uint8Array<ArrayBuffer> =>
  new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/** `bytes` seen as elements of `dtype`; copied where they are not aligned. */
export function viewAs(dtype: DType, bytes: Uint8Array<ArrayBuffer>): Data {
  const size = bytesOf(dtype);
  const aligned = bytes.byteOffset % size === 0 ? bytes : new Uint8Array(bytes); // a Buffer's slice would be a view
  return new arrays[dtype](aligned.buffer, aligned.byteOffset, Math.floor(aligned.byteLength / size));
}
