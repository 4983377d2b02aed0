import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";
import { z } from "zod";
import {
  type Adapt,
  distanceBiases,
  offsetBiases,
  patchKernel,
  pictureChannels,
  positionMap,
  positionMapBilinear,
  positions,
  spectralFilters,
} from "../../src/nn/adapt.ts";
import { fingerprint, uniform } from "../golden-check.ts";

// What timm, or the official code where it has no such model, makes of the same values: `files/adapt.py`.

const side = z.tuple([z.int(), z.int()]);
const common = { from: z.array(z.int()), to: z.array(z.int()), fingerprint: z.tuple([z.number(), z.number()]) };
const cases = z
  .array(
    z.discriminatedUnion("kind", [
      z.object({ kind: z.literal("positions"), grid: side, prefix: z.int(), ...common }),
      z.object({ kind: z.literal("offsetBiases"), window: side, extra: z.int(), ...common }),
      z.object({ kind: z.literal("patchKernel"), ...common }),
      z.object({ kind: z.literal("pictureChannels"), ...common }),
      z.object({ kind: z.literal("positionMap"), ...common }),
      z.object({ kind: z.literal("positionMapBilinear"), ...common }),
      z.object({ kind: z.literal("distanceBiases"), ...common }),
      z.object({ kind: z.literal("spectralFilters"), ...common }),
    ]),
  )
  .parse(JSON.parse(readFileSync("tests/weights/files/adapt.json", "utf8")));

const adaptOf = (what: (typeof cases)[number]): Adapt => {
  switch (what.kind) {
    case "positions":
      return positions(what.grid, what.prefix);
    case "offsetBiases":
      return offsetBiases(what.window, what.extra);
    case "patchKernel":
      return patchKernel;
    case "pictureChannels":
      return pictureChannels;
    case "positionMap":
      return positionMap;
    case "positionMapBilinear":
      return positionMapBilinear;
    case "distanceBiases":
      return distanceBiases;
    case "spectralFilters":
      return spectralFilters;
  }
};

const filled = (name: string, shape: readonly number[]) => ({
  shape,
  data: Float32Array.from(
    uniform(
      name,
      shape.reduce((a, b) => a * b, 1),
    ),
  ),
});

describe("as timm or the official code does it", () => {
  for (const [i, what] of cases.entries())
    test(`${what.kind}: [${what.from}] to [${what.to}]`, () => {
      const made = adaptOf(what)(filled(`adapt:${i}`, what.from), what.to);
      assert.ok(made);
      const [norm, probe] = fingerprint(made, `adapt:${i}`);
      const [wanted, projection] = what.fingerprint;
      assert.ok(Math.abs(norm - wanted) <= 1e-5 * wanted, `norm ${norm}, timm ${wanted}`);
      assert.ok(Math.abs(probe - projection) <= 1e-5 * wanted, `projection ${probe}, timm ${projection}`);
    });
});

test("positions: rows of class tokens are kept, left out or zero as the table has them", () => {
  const dim = 2;
  const rows = (n: number) => ({ shape: [1, n, dim], data: Float32Array.from({ length: n * dim }, (_, i) => i + 1) });
  const adapt = (from: number, grid: number, prefix: number) =>
    positions([grid, grid], prefix)(rows(from), [1, prefix + grid * grid, dim]);
  assert.deepEqual([...adapt(1 + 4, 3, 1)!.slice(0, 2)], [1, 2]);
  assert.deepEqual([...adapt(2 + 9, 2, 1)!.slice(0, 2)], [1, 2]);
  assert.deepEqual([...adapt(4, 3, 1)!.slice(0, 2)], [0, 0]);
  assert.equal(adapt(1 + 4, 3, 0)!.length, 9 * dim);
  assert.equal(adapt(1 + 7, 3, 1), undefined); // no square
  assert.equal(positions([3, 3], 1)(rows(5), [1, 10, 4]), undefined); // another width
});

test("patches: a kernel gives equal products with patches resized likewise", () => {
  const kernel = filled("kernel", [1, 1, 4, 4]);
  const larger = { shape: [1, 1, 8, 8], data: patchKernel(kernel, [1, 1, 8, 8])! };
  const back = patchKernel(larger, [1, 1, 4, 4])!;
  assert.equal(larger.data.length, 64);
  // A constant patch stays one when it is resized, so the sums agree.
  const sum = (data: Float32Array) => data.reduce((a, b) => a + b, 0);
  assert.ok(Math.abs(sum(larger.data) - sum(kernel.data)) < 1e-5);
  assert.equal(back.length, 16);
  const both = patchKernel(filled("colour", [2, 3, 4, 4]), [2, 1, 8, 8])!;
  assert.equal(both.length, 2 * 64);
});

test("what cannot be made is not made", () => {
  assert.equal(pictureChannels(filled("a", [4, 16, 3, 3]), [4, 32, 3, 3]), undefined); // no pictures
  assert.equal(pictureChannels(filled("a", [4, 3, 3, 3]), [8, 1, 3, 3]), undefined);
  assert.equal(patchKernel(filled("a", [4, 3, 4, 4]), [8, 3, 2, 2]), undefined);
  assert.equal(offsetBiases([4, 4])(filled("a", [9, 2]), [49, 3]), undefined);
  assert.equal(offsetBiases([4, 4])(filled("a", [10, 2]), [49, 2]), undefined);
  assert.equal(positionMap(filled("a", [1, 2, 2, 8]), [1, 3, 3, 4]), undefined); // another width
  assert.equal(distanceBiases(filled("a", [2, 9]), [3, 16]), undefined); // other heads
  assert.equal(distanceBiases(filled("a", [2, 10]), [2, 16]), undefined); // no square
  assert.equal(spectralFilters(filled("a", [4, 3, 2, 2]), [8, 5, 4, 2]), undefined);
});
