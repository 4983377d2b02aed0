import assert from "node:assert/strict";
import { test } from "node:test";
import { ShapeError } from "../../src/base/errors.ts";
import { planGrid, planWindows } from "../../src/nn/index.ts";

/** The places of the map in each window. */
const cut = ({ order, tokens }: { order: Int32Array; tokens: number }): number[][] =>
  Array.from({ length: order.length / tokens }, (_, w) => [...order.slice(w * tokens, (w + 1) * tokens)]);

test("windows hold neighbours, a grid what lies as far apart as it can", () => {
  assert.deepEqual(cut(planWindows([4, 6], [2, 3])), [
    [0, 1, 2, 6, 7, 8],
    [3, 4, 5, 9, 10, 11],
    [12, 13, 14, 18, 19, 20],
    [15, 16, 17, 21, 22, 23],
  ]);
  assert.deepEqual(cut(planGrid([4, 6], [2, 3])), [
    [0, 2, 4, 12, 14, 16],
    [1, 3, 5, 13, 15, 17],
    [6, 8, 10, 18, 20, 22],
    [7, 9, 11, 19, 21, 23],
  ]);
});

test("a map that does not divide says what to do", () => {
  for (const plan of [planWindows, planGrid])
    assert.throws(
      () => plan([4, 5], [2, 3]),
      (error) => error instanceof ShapeError && /4,5 does not divide into .* 2,3/.test(error.message),
    );
});
