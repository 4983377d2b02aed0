import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { OrielError, UsageError } from "../../src/base/errors.ts";
import { formatOf, identify } from "../../src/base/identify.ts";
import { encodeSafetensors, SafetensorsFile } from "../../src/weights/safetensors.ts";
import { blobSource, bytesSource } from "../../src/weights/source.ts";
import { type StoredDtype, type StoredTensor, toFloat32 } from "../../src/weights/stored.ts";
import { madeFile } from "./files.ts";

const float32 = (shape: number[], values: number[]): StoredTensor => ({
  dtype: "F32",
  shape,
  data: new Uint8Array(Float32Array.from(values).buffer),
});
const flag: StoredTensor = { dtype: "BOOL", shape: [1], data: Uint8Array.of(1) };
const open = (bytes: Uint8Array) => SafetensorsFile.open(bytesSource(bytes, "a.safetensors"));

/** A file of any header over `data` zero bytes. */
function fileOf(header: unknown, data = 0): Uint8Array {
  const text = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + text.length + data);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  return bytes;
}
const f32 = (begin: number, end: number) => ({ dtype: "F32", shape: [(end - begin) / 4], data_offsets: [begin, end] });

test("what is written is read back, names in order", async () => {
  const weight = float32([2, 2], [1, -2, 3.5, Infinity]);
  const tensors = { flag, weight, scalar: float32([], [7]), empty: float32([0, 3], []) };
  const file = await open(encodeSafetensors(Object.entries(tensors), { config: `{"depth":2}` }));
  assert.deepEqual(file.names, ["flag", "weight", "scalar", "empty"]);
  assert.deepEqual(file.metadata, { config: `{"depth":2}` });
  for (const [name, tensor] of Object.entries(tensors)) assert.deepEqual(await file.read(name), tensor);
  assert.deepEqual([...(await file.readFloat32("weight"))], [1, -2, 3.5, Infinity]);
  assert.deepEqual([file.info("empty").shape, file.has("bias")], [[0, 3], false]);
});

test("values are stored as what they are", async () => {
  const file = await open(
    encodeSafetensors([
      ["plain", { shape: [2], data: Float32Array.of(1, -2) }],
      ["whole", { dtype: "int64", shape: [1], data: BigInt64Array.of(-1n) }],
      ["half", { dtype: "float16", shape: [1], data: Uint16Array.of(0x3c00) }],
    ]),
  );
  assert.deepEqual(
    file.names.map((name) => file.info(name).dtype),
    ["F32", "I64", "F16"],
  );
  assert.deepEqual(await Promise.all(file.names.map(async (name) => [...(await file.readFloat32(name))])), [
    [1, -2],
    [-1],
    [1],
  ]);
});

test("the same tensors give the same bytes as the reference implementation", async () => {
  const reference = new Uint8Array(readFileSync(madeFile("reference.safetensors")));
  const file = await open(reference);
  const tensors = await Promise.all(file.names.map(async (name) => [name, await file.read(name)] as const));
  assert.deepEqual(encodeSafetensors(tensors, file.metadata), reference);
});

test("every tensor starts on its own boundary, whatever came before", () => {
  const bytes = encodeSafetensors([
    ["flag", flag],
    ["weight", float32([1], [1])],
  ]);
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  assert.equal(length % 8, 0);
  assert.deepEqual(
    [header.weight.data_offsets, header.flag.data_offsets],
    [
      [0, 4],
      [4, 5],
    ],
  );
});

test("opening reads the header only, reading a tensor its own bytes", async () => {
  const bytes = encodeSafetensors([
    ["big", float32([1000], new Array(1000).fill(0))],
    ["small", float32([1], [5])],
  ]);
  let count = 0;
  const source = bytesSource(bytes);
  const read = (offset: number, length: number) => {
    count += length;
    return source.read(offset, length);
  };
  const file = await SafetensorsFile.open({ ...source, read });
  assert.ok(count < 300, `${count} bytes`);
  count = 0;
  await file.readFloat32("small");
  assert.equal(count, 4);
});

test("a browser's blob is a source", async () => {
  const bytes = encodeSafetensors([["weight", float32([1], [5])]]);
  const file = await SafetensorsFile.open(blobSource(new Blob([bytes as Uint8Array<ArrayBuffer>])));
  assert.deepEqual([...(await file.readFloat32("weight"))], [5]);
});

test("a header of any length is one of safetensors, also where the length begins as another format does", async () => {
  for (const length of [0x0280, 0x0480, 0x8b20]) {
    const plain = encodeSafetensors([["flag", flag]], { note: "" });
    const missing = length - Number(new DataView(plain.buffer).getBigUint64(0, true));
    const bytes = encodeSafetensors([["flag", flag]], { note: "x".repeat(missing) });
    assert.equal(Number(new DataView(bytes.buffer).getBigUint64(0, true)), length);
    assert.deepEqual([identify(bytes), formatOf(bytes)], ["a safetensors file", "safetensors"]);
    assert.deepEqual((await open(bytes)).names, ["flag"]);
  }
});

test("names that JavaScript treats specially are names like any other", async () => {
  const file = await open(
    encodeSafetensors([
      ["__proto__", float32([1], [1])],
      ["0", float32([1], [2])],
      [`"é`, float32([1], [3])],
    ]),
  );
  for (const [name, value] of [
    ["__proto__", 1],
    ["0", 2],
    [`"é`, 3],
  ] as const)
    assert.deepEqual([...(await file.readFloat32(name))], [value]);
});

test("every dtype has a float32 form", () => {
  const cases: [StoredDtype, ArrayBufferView, number[]][] = [
    ["F64", Float64Array.of(0.1), [Math.fround(0.1)]],
    ["F16", Uint16Array.of(0x3c00, 0xc000, 0x0001, 0x7c00), [1, -2, 2 ** -24, Infinity]],
    ["BF16", Uint16Array.of(0x3f80, 0xc000, 0x0080), [1, -2, 2 ** -126]],
    ["F8_E4M3", Uint8Array.of(0x38, 0x7e, 0x81), [1, 448, -(2 ** -9)]],
    ["F8_E5M2", Uint8Array.of(0x3c, 0x7b, 0xfc), [1, 57344, -Infinity]],
    ["I64", BigInt64Array.of(-3n, 2n ** 40n), [-3, 2 ** 40]],
    ["U64", BigUint64Array.of(2n ** 63n), [2 ** 63]],
    ["I32", Int32Array.of(-3), [-3]],
    ["U32", Uint32Array.of(2 ** 31), [2 ** 31]],
    ["I16", Int16Array.of(-3), [-3]],
    ["U16", Uint16Array.of(65535), [65535]],
    ["I8", Int8Array.of(-3), [-3]],
    ["U8", Uint8Array.of(255), [255]],
    ["BOOL", Uint8Array.of(1, 0), [1, 0]],
  ];
  for (const [dtype, values, expected] of cases) {
    const bytes = new Uint8Array(values.buffer);
    const unaligned = new Uint8Array(bytes.length + 1);
    unaligned.set(bytes, 1);
    assert.deepEqual([...toFloat32({ dtype, data: bytes })], expected, dtype);
    assert.deepEqual([...toFloat32({ dtype, data: unaligned.subarray(1) })], expected, `${dtype}, unaligned`);
  }
});

const good = encodeSafetensors([["weight", float32([4], [1, 2, 3, 4])]]);
const text = (content: string) => new TextEncoder().encode(content.padEnd(40));
const malformed: [name: string, bytes: Uint8Array, says: RegExp][] = [
  ["empty", new Uint8Array(), /looks like an empty file/],
  ["cut in the length", good.slice(0, 5), /truncated: expected at least 10 bytes, found 5/],
  ["cut in the header", good.slice(0, 40), /truncated: expected at least 72 bytes, found 40/],
  ["cut in the data", good.slice(0, -4), /truncated: expected at least 88 bytes, found 84/],
  ["longer than it says", Uint8Array.of(...good, 0, 0), /expected 88 bytes, found 90: the last 2 belong to no tensor/],
  ["header not JSON", fileOf("{weight}"), /header is not JSON/],
  ["header not UTF-8", fileOf(`{"a":1}`).map((byte) => (byte === 0x61 ? 0xff : byte)), /header is not JSON/],
  ["no dtype", fileOf({ a: { shape: [1], data_offsets: [0, 4] } }, 4), /tensor "a" has no dtype/],
  ["an entry that is null", fileOf({ a: null }), /tensor "a" has no dtype/],
  [
    "unknown dtype",
    fileOf({ a: { dtype: "Q3", shape: [1], data_offsets: [0, 4] } }, 4),
    /"a" is of dtype Q3; known are BOOL/,
  ],
  ["negative shape", fileOf({ a: { dtype: "F32", shape: [-1], data_offsets: [0, 4] } }, 4), /"a" has shape \[-1\]/],
  [
    "offsets backwards",
    fileOf({ a: { dtype: "F32", shape: [1], data_offsets: [4, 0] } }, 4),
    /"a" has offsets \[4,0\]/,
  ],
  [
    "wrong length",
    fileOf({ a: { dtype: "F32", shape: [3], data_offsets: [0, 8] } }, 8),
    /needs 12 bytes; its offsets give it 8/,
  ],
  ["out of range", fileOf({ a: f32(0, 16) }, 8), /truncated: expected at least \d+ bytes/],
  ["overlap", fileOf({ a: f32(0, 8), b: f32(4, 12) }, 12), /"a" and "b" overlap at byte 4/],
  ["gap", fileOf({ a: f32(0, 4), b: f32(8, 12) }, 12), /bytes 4 to 8 of the data, before "b", belong to no tensor/],
  ["metadata of numbers", fileOf({ __metadata__: { a: 1 } }), /metadata is not a map from text to text/],
  ["a huge header", fileOf("{").map((byte, i) => (i === 6 ? 1 : byte)), /header claims \d+ bytes/],
  ["torch, zip", new Uint8Array(readFileSync(madeFile("zip.pth"))), /looks like a zip archive, as torch writes/],
  ["torch, legacy", new Uint8Array(readFileSync(madeFile("legacy.pth"))), /looks like a torch file of the older kind/],
  ["ONNX", Uint8Array.of(0x08, 0x0a, 0x12, 0x07, ...text("pytorch")), /looks like an ONNX model/],
  ["a page", text("<!DOCTYPE html><html>"), /looks like a web page/],
  ["a Git LFS pointer", text("version https://git-lfs.github.com/spec/v1"), /looks like a Git LFS pointer/],
  ["JSON", text(`{"weights": []}`), /looks like a JSON document/],
  ["noise", new Uint8Array(64).fill(0xaa), /not a safetensors file/],
];
for (const [name, bytes, says] of malformed)
  test(`malformed: ${name}`, () =>
    assert.rejects(
      open(bytes),
      (error) => error instanceof OrielError && says.test(error.message) && /at a\.safetensors/.test(error.message),
    ));

test("no cut and no changed byte gives anything but an OrielError or tensors", async () => {
  const read = async (bytes: Uint8Array) => {
    try {
      const file = await open(bytes);
      for (const name of file.names) if (file.info(name).dtype !== "C64") await file.readFloat32(name);
    } catch (error) {
      assert.ok(error instanceof OrielError, String(error));
    }
  };
  const bytes = encodeSafetensors(
    [
      ["weight", float32([2], [1, 2])],
      ["flag", flag],
    ],
    { a: "b" },
  );
  for (let length = 0; length < bytes.length; length++) await read(bytes.slice(0, length));
  for (let at = 0; at < bytes.length; at++)
    for (const change of [1, 0x20, 0xff]) await read(bytes.map((byte, i) => (i === at ? byte ^ change : byte)));
});

test("an unknown name lists the nearest ones", async () => {
  const file = await open(good);
  assert.throws(
    () => file.info("wieght"),
    (error) => error instanceof UsageError && /did you mean weight\?/.test(error.message),
  );
});

test("what cannot be written is refused by name", () => {
  const weight = float32([2], [1, 2]);
  assert.throws(
    () => encodeSafetensors([["w", { ...weight, shape: [3] }]]),
    /"w", F32 \[3\], needs 12 bytes; 8 were given/,
  );
  assert.throws(
    () =>
      encodeSafetensors([
        ["w", weight],
        ["w", weight],
      ]),
    /two tensors are named "w"/,
  );
  assert.throws(() => encodeSafetensors([["__metadata__", weight]]), /cannot be named/);
  const values = { shape: [2], data: Float32Array.of(1, 2) };
  const misnamed = { ...values, dtype: "float" as "float32" };
  assert.throws(
    () => encodeSafetensors([["w", misnamed]]),
    /"w" cannot be stored: there is no dtype "float"\n {2}help: .*"F32"/,
  );
  assert.throws(() => encodeSafetensors([["w", { ...values, dtype: "int32" }]]), /int32 comes in no Float32Array/);
  assert.throws(() => encodeSafetensors([["w", { ...values, shape: [3] }]]), /needs 12 bytes; 8 were given/);
});
