import { bytesView, type DType, dataOf, dtypeCodes } from "../../src/graph/dtype.ts";
import { ProtoWriter } from "../../src/graph/onnx/proto.ts";

// ONNX models written by hand, field by field, as other exporters may write them.

export type Attribute =
  | number
  | string
  | { float: number }
  | readonly number[]
  | { floats: readonly number[] }
  | Weight;

/** A tensor of the file.  `form` says how its values lie there. */
export interface Weight {
  dtype: DType;
  shape: readonly number[];
  values: readonly number[];
  form?: "raw" | "typed" | "unpacked";
}

export interface HandNode {
  op: string;
  inputs: readonly string[];
  outputs: readonly string[];
  attributes?: Readonly<Record<string, Attribute>>;
  domain?: string;
  name?: string;
}

export interface HandModel {
  opset: number;
  nodes: readonly HandNode[];
  inputs: Readonly<Record<string, readonly (number | string)[]>>;
  outputs: readonly string[];
  weights?: Readonly<Record<string, Weight>>;
  inputTypes?: Readonly<Record<string, DType>>;
  domains?: Readonly<Record<string, number>>;
}

export const w = (shape: readonly number[], values: readonly number[], dtype: DType = "float32"): Weight => ({
  dtype,
  shape,
  values,
});
export const ints = (...values: number[]): Weight => w([values.length], values, "int64");

/** The bytes of a model. */
export function handModel({ opset, nodes, inputs, outputs, weights = {}, inputTypes = {}, domains = {} }: HandModel) {
  const model = new ProtoWriter().int(1, opset >= 23 ? 11 : opset >= 21 ? 10 : 8).string(2, "by hand");
  model.message(7, (g) => {
    for (const { op, inputs: reads, outputs: gives, attributes = {}, domain, name } of nodes)
      g.message(1, (n) => {
        for (const x of reads) n.string(1, x);
        for (const y of gives) n.string(2, y);
        n.string(3, name ?? gives[0]).string(4, op);
        for (const [key, value] of Object.entries(attributes)) n.message(5, (a) => writeAttribute(a, key, value));
        if (domain) n.string(7, domain);
      });
    g.string(2, "graph");
    for (const [name, weight] of Object.entries(weights)) g.message(5, (t) => writeWeight(t.string(8, name), weight));
    const value = (v: ProtoWriter, name: string, shape: readonly (number | string)[]): ProtoWriter =>
      v.string(1, name).message(2, (type) =>
        type.message(1, (tensor) => {
          tensor.int(1, dtypeCodes[inputTypes[name] ?? "float32"]);
          tensor.message(2, (s) => {
            for (const d of shape) s.message(1, (dim) => (typeof d === "string" ? dim.string(2, d) : dim.int(1, d)));
          });
        }),
      );
    for (const [name, shape] of Object.entries(inputs)) g.message(11, (v) => value(v, name, shape));
    for (const name of outputs)
      g.message(12, (v) =>
        v.string(1, name).message(2, (t) => t.message(1, (x) => x.int(1, dtypeCodes[inputTypes[name] ?? "float32"]))),
      );
  });
  model.message(8, (o) => o.string(1, "").int(2, opset));
  for (const [domain, version] of Object.entries(domains)) model.message(8, (o) => o.string(1, domain).int(2, version));
  return model.finish();
}

function writeAttribute(a: ProtoWriter, key: string, value: Attribute): void {
  a.string(1, key);
  if (typeof value === "number") a.int(3, value).int(20, 2);
  else if (typeof value === "string") a.string(4, value).int(20, 3);
  else if ("float" in value) a.float(2, value.float).int(20, 1);
  else if ("floats" in value) {
    a.bytes(7, bytesView(Float32Array.from(value.floats))).int(20, 6);
  } else if ("dtype" in value) a.message(5, (t) => writeWeight(t, value)).int(20, 4);
  else {
    for (const v of value) a.int(8, v);
    a.int(20, 7);
  }
}

/** Where each type's values lie when they are not raw bytes. */
const lists: Partial<Record<DType, number>> = { float32: 4, int64: 7, float64: 10, uint32: 11, uint64: 11 };

export function writeWeight(t: ProtoWriter, { dtype, shape, values, form = "raw" }: Weight): void {
  for (const d of shape) t.int(1, d);
  t.int(2, dtypeCodes[dtype]);
  const data = dataOf(dtype, values);
  if (form === "raw") {
    t.bytes(9, bytesView(data));
    return;
  }
  const field = lists[dtype] ?? 5;
  if (dtype === "float32" || dtype === "float64") {
    if (form === "typed") t.bytes(field, bytesView(data));
    else for (const v of data) t.float(field, Number(v));
    return;
  }
  const numbers = Array.from(data as Iterable<number | bigint>);
  if (form === "unpacked") for (const v of numbers) t.int(field, v);
  else {
    const packed = new ProtoWriter();
    for (const v of numbers) packed.int(0, v);
    // Each varint follows a key of one byte, which a packed list leaves out.
    t.bytes(field, unkeyed(packed.finish()));
  }
}

function unkeyed(bytes: Uint8Array): Uint8Array {
  const out: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    at++;
    do out.push(bytes[at]);
    while (bytes[at++] > 127);
  }
  return Uint8Array.from(out);
}
