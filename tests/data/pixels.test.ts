import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Random } from "../../src/base/philox.ts";
import { affine, createImage, type Image, resize } from "../../src/data/index.ts";
import { compute } from "../../src/data/pixels.ts";

function noise(width: number, height: number): Image {
  const random = new Random(1, width, height);
  const image = createImage(width, height);
  for (let i = 0; i < image.data.length; i++) image.data[i] = random.below(256);
  return image;
}

/** Values along one axis, each a mean under a triangle that widens with the scale, rounded to a whole level. */
function shrinkLine(line: readonly number[], size: number): number[] {
  const scale = line.length / size;
  const reach = Math.max(scale, 1);
  return Array.from({ length: size }, (_, i) => {
    const center = (i + 0.5) * scale - 0.5;
    const weight = line.map((_, x) => Math.max(1 - Math.abs(x - center) / reach, 0));
    const total = weight.reduce((a, b) => a + b);
    return Math.round(line.reduce((sum, v, x) => sum + v * weight[x], 0) / total);
  });
}

/** Bilinear resizing by its definition: rows, then columns. */
function naiveResize({ data, width, height }: Image, w: number, h: number): number[] {
  const out: number[] = [];
  for (let channel = 0; channel < 3; channel++) {
    const rows = Array.from({ length: height }, (_, y) =>
      shrinkLine(
        Array.from({ length: width }, (_, x) => data[(y * width + x) * 3 + channel]),
        w,
      ),
    );
    for (let x = 0; x < w; x++)
      shrinkLine(
        rows.map((row) => row[x]),
        h,
      ).forEach((v, y) => {
        out[(y * w + x) * 3 + channel] = v;
      });
  }
  return out;
}

describe("loops over pixels", () => {
  for (const [from, to] of [
    ["1×1", "5×3"],
    ["7×5", "7×2"],
    ["7×5", "3×5"],
    ["40×23", "17×11"],
    ["13×9", "33×20"],
  ]) {
    const [size, goal] = [from, to].map((text) => text.split("×").map(Number));
    test(`bilinear resizing from ${from} to ${to} is its definition`, () => {
      const image = noise(size[0], size[1]);
      const { data } = resize(image, goal[0], goal[1], { filter: "bilinear" });
      const expected = naiveResize(image, goal[0], goal[1]);
      assert.equal(data.length, expected.length);
      // halves may fall on either side: weights have 22 bits here
      const off = expected.map((v, i) => Math.abs(v - data[i]));
      assert.ok(Math.max(...off) <= 1, `a value is ${Math.max(...off)} levels off`);
      assert.ok(off.filter((d) => d > 0).length <= Math.max(off.length / 50, 1), "more than halves differ");
    });
  }

  test("pictures in shared memory and within a larger buffer give what others do", () => {
    const image = noise(30, 20);
    const expected = resize(image, 11, 9).data;
    const shared = new Uint8Array(new SharedArrayBuffer(image.data.length));
    shared.set(image.data);
    assert.deepEqual(resize({ ...image, data: shared }, 11, 9).data, expected);
    const within = new Uint8Array(image.data.length + 7).subarray(5, -2);
    within.set(image.data);
    assert.deepEqual(resize({ ...image, data: within }, 11, 9).data, expected);
  });

  for (const filter of ["bilinear", "bicubic"] as const)
    test(`a move by whole pixels copies, ${filter}, and fills what it uncovers`, () => {
      const image = noise(9, 6);
      const { data } = affine(image, [1, 0, 2, 0, 1, -1], { filter, fill: [10, 200, 255] });
      for (let y = 0; y < 6; y++)
        for (let x = 0; x < 9; x++) {
          const inside = x + 2 < 9 && y >= 1;
          const at = ((y - 1) * 9 + x + 2) * 3;
          const pixel = data.subarray((y * 9 + x) * 3, (y * 9 + x) * 3 + 3);
          assert.deepEqual([...pixel], inside ? [...image.data.subarray(at, at + 3)] : [10, 200, 255], `at ${x}, ${y}`);
        }
    });

  test("half a pixel aside, bilinear is the mean of two, and bicubic Keys' with a = -1", () => {
    const image = createImage(4, 1);
    image.data.set([0, 10, 20, 100, 60, 40, 50, 80, 90, 200, 0, 255]);
    const at = (data: Uint8Array): number[] => [...data.subarray(3, 6)];
    assert.deepEqual(at(affine(image, [1, 0, 0.5, 0, 1, 0], { filter: "bilinear" }).data), [75, 70, 65]);
    // (-p + 5 q + 5 r - s) / 8
    assert.deepEqual(at(affine(image, [1, 0, 0.5, 0, 1, 0], { filter: "bicubic" }).data), [68, 86, 46]);
  });

  test("memory that a large picture took is given back, and small ones share what there is", () => {
    const memoryAt = (size: number): WebAssembly.Memory => {
      let found: WebAssembly.Memory | undefined;
      compute(size, [], ({ memory }) => {
        found = memory;
      });
      return found!;
    };
    const small = memoryAt(1000);
    assert.equal(memoryAt(2000), small);
    const large = memoryAt(80 * 2 ** 20);
    assert.ok(large.buffer.byteLength >= 80 * 2 ** 20);
    assert.notEqual(memoryAt(1000), large);
  });
});
