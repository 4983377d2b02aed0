import assert from "node:assert/strict";
import { test } from "node:test";
import { bytesOf, dataOf, viewAs } from "../../src/graph/dtype.ts";

test("float16 holds the nearest bits, ties to even", () => {
  const wanted: [number, number][] = [
    [0, 0x0000],
    [-0, 0x8000],
    [1, 0x3c00],
    [-2, 0xc000],
    [0.5, 0x3800],
    [1 / 3, 0x3555],
    [65504, 0x7bff],
    [65519, 0x7bff],
    [65520, 0x7c00],
    [1e9, 0x7c00],
    [-Infinity, 0xfc00],
    [Number.NaN, 0x7e00],
    [2 ** -14, 0x0400],
    [2 ** -24, 0x0001],
    [2 ** -25, 0x0000],
    [3 * 2 ** -25, 0x0002],
    [2 ** -14 - 2 ** -25, 0x0400],
    [1 + 2 ** -11, 0x3c00],
    [1 + 3 * 2 ** -11, 0x3c02],
    [2 - 2 ** -12, 0x4000],
  ];
  for (const [value, bits] of wanted) assert.equal(dataOf("float16", [value])[0], bits, `${value}`);
});

test("bfloat16 holds the nearest bits, ties to even", () => {
  const wanted: [number, number][] = [
    [1, 0x3f80],
    [-2, 0xc000],
    [1 / 3, 0x3eab],
    [1 + 2 ** -8, 0x3f80],
    [1 + 3 * 2 ** -8, 0x3f82],
    [Number.NaN, 0x7fc0],
    [Infinity, 0x7f80],
  ];
  for (const [value, bits] of wanted) assert.equal(dataOf("bfloat16", [value])[0], bits, `${value}`);
});

test("whole numbers of 64 bits are made from numbers", () => {
  assert.deepEqual(dataOf("int64", [-1, 2 ** 40]), BigInt64Array.of(-1n, 2n ** 40n));
});

test("bytes that are not aligned are copied", () => {
  const bytes = Uint8Array.of(9, 0, 0, 128, 63).subarray(1);
  assert.deepEqual(viewAs("float32", bytes), Float32Array.of(1));
  assert.equal(bytesOf("float16"), 2);
});
