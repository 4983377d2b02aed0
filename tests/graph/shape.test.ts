import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  bindShape,
  broadcast,
  divDim,
  mulDim,
  normalAxis,
  OpenDim,
  sameDim,
  showShape,
  sizeOf,
  staticSize,
} from "../../src/graph/shape.ts";

const N = new OpenDim("N");
const of = (times: number) => new OpenDim("N", times);

test("open axes multiply and divide by known ones", () => {
  assert.deepEqual(mulDim(N, 64), of(64));
  assert.deepEqual(mulDim(3, of(2)), of(6));
  assert.equal(mulDim(N, 0), 0);
  assert.deepEqual(divDim(of(64), 16), of(4));
  assert.equal(divDim(of(64), of(16)), 4);
  assert.equal(divDim(of(3), 2), undefined);
  assert.equal(divDim(6, N), undefined);
  assert.equal(divDim(of(4), new OpenDim("M")), undefined);
  assert.equal(divDim(6, 4), undefined);
  assert.equal(divDim(6, 0), undefined);
  assert.throws(() => mulDim(N, N), /two open axes cannot be merged, N and N/);
});

test("the number of elements counts the open axis", () => {
  assert.deepEqual(sizeOf([N, 3, 4]), of(12));
  assert.equal(sizeOf([]), 1);
  assert.throws(() => staticSize([N, 3]), /a known size is needed here, got \[N, 3\]/);
});

test("equal names and factors are equal axes", () => {
  assert.ok(sameDim(of(4), of(4)));
  assert.ok(!sameDim(of(4), N));
  assert.ok(!sameDim(N, new OpenDim("M")));
  assert.ok(!sameDim(N, 1));
});

test("shapes are shown and bound", () => {
  assert.equal(showShape([of(64), 49, 3]), "[64N, 49, 3]");
  assert.deepEqual(bindShape([of(64), 49], 8), [512, 49]);
});

describe("broadcast", () => {
  const cases: [(number | OpenDim)[], (number | OpenDim)[], (number | OpenDim)[] | undefined][] = [
    [[2, 3], [3], [2, 3]],
    [
      [2, 1],
      [1, 3],
      [2, 3],
    ],
    [[], [4], [4]],
    [[2, 3], [2], undefined],
    [
      [N, 3],
      [1, 3],
      [N, 3],
    ],
    [[3], [N, 1], [N, 3]],
    [[N], [2], undefined],
    [[N], [of(2)], undefined],
  ];
  for (const [a, b, both] of cases)
    test(`${showShape(a)} with ${showShape(b)}`, () => assert.deepEqual(broadcast(a, b), both));
});

test("axes count from either end, and not beyond", () => {
  assert.deepEqual([normalAxis(-1, 3), normalAxis(0, 3), normalAxis(-3, 3)], [2, 0, 0]);
  assert.throws(() => normalAxis(3, 3), /axis 3 is outside a tensor of 3 axes/);
  assert.throws(() => normalAxis(-4, 3), /axis -4/);
  for (const none of [0.5, Number.NaN]) assert.throws(() => normalAxis(none, 3), /is outside a tensor of 3 axes/);
});
