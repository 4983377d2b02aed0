import { joinBytes } from "../../base/bytes.ts";

/** Writes the few parts of the protocol buffer format that ONNX needs.  A message is a list of chunks, joined once at the end. */
export class ProtoWriter {
  readonly #chunks: Uint8Array[] = [];
  #length = 0;

  get length(): number {
    return this.#length;
  }

  #push(bytes: Uint8Array): void {
    this.#chunks.push(bytes);
    this.#length += bytes.length;
  }

  #varint(value: number | bigint): void {
    const out: number[] = [];
    if (typeof value === "number" && value >= 0 && value < 0x80000000) {
      let v = value;
      for (; v > 127; v >>>= 7) out.push((v & 127) | 128);
      out.push(v);
    } else {
      let v = BigInt.asUintN(64, BigInt(value));
      for (; v > 127n; v >>= 7n) out.push(Number(v & 127n) | 128);
      out.push(Number(v));
    }
    this.#push(Uint8Array.from(out));
  }

  int(field: number, value: number | bigint): this {
    this.#varint(field << 3);
    this.#varint(value);
    return this;
  }

  float(field: number, value: number): this {
    this.#varint((field << 3) | 5);
    this.#push(new Uint8Array(Float32Array.of(value).buffer));
    return this;
  }

  bytes(field: number, bytes: Uint8Array): this {
    this.#varint((field << 3) | 2);
    this.#varint(bytes.length);
    this.#push(bytes);
    return this;
  }

  string(field: number, text: string): this {
    return this.bytes(field, encoder.encode(text));
  }

  message(field: number, write: (message: ProtoWriter) => void): this {
    const inner = new ProtoWriter();
    write(inner);
    this.#varint((field << 3) | 2);
    this.#varint(inner.#length);
    for (const chunk of inner.#chunks) this.#push(chunk);
    return this;
  }

  finish(): Uint8Array<ArrayBuffer> {
    return joinBytes(this.#chunks);
  }
}
const encoder = new TextEncoder();

/** A field of a message as it lies in the file: a number for varints, bytes for what has a length or a fixed size. */
export interface ProtoField {
  field: number;
  value: bigint | Uint8Array<ArrayBuffer>;
}

/** Adds the fields of a message to a list, in order.  Throws a RangeError where the bytes end too early. */
export function readProto(bytes: Uint8Array<ArrayBuffer>, fields: ProtoField[]): void {
  let at = 0;
  const next = (): number => {
    if (at >= bytes.length) throw new RangeError("the message ends within a number");
    return bytes[at++];
  };
  const long = (low: number): bigint => {
    let value = BigInt(low);
    for (let shift = 28n; ; shift += 7n) {
      if (shift > 63n) throw new RangeError("a number is longer than 64 bits");
      const byte = next();
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  /** Nearly all numbers are short. */
  const varint = (): number | bigint => {
    let value = 0;
    for (let shift = 0; shift < 28; shift += 7) {
      const byte = next();
      value |= (byte & 127) << shift;
      if (byte < 128) return value;
    }
    return long(value);
  };
  const take = (length: number): Uint8Array<ArrayBuffer> => {
    if (at + length > bytes.length) throw new RangeError("the message ends within a field");
    at += length;
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    const key = varint();
    const wire = typeof key === "number" ? key & 7 : Number(key & 7n);
    const field = typeof key === "number" ? key >>> 3 : Number(key >> 3n);
    if (wire === 0) fields.push({ field, value: BigInt(varint()) });
    else if (wire === 2) fields.push({ field, value: take(Number(varint())) });
    else if (wire === 5) fields.push({ field, value: take(4) });
    else if (wire === 1) fields.push({ field, value: take(8) });
    else throw new RangeError(`wire type ${wire} is none of protocol buffers`);
  }
}
