import "../../src/ops/methods.ts";
import assert from "node:assert/strict";
import { test } from "node:test";
import { Graph } from "../../src/graph/graph.ts";
import { input, type Tensor } from "../../src/graph/tensor.ts";
import { inPlace } from "../../src/runtime/in-place.ts";
import { openNode } from "../../src/runtime/node.ts";
import { trainingLosses } from "./training.ts";

const [w, m, v, x] = Array.from({ length: 4 }, () => input([4, 4]));
const grad = w.matmul(x);
const moment = m.mul(0.9).add(grad);
const square = v.mul(0.99).add(grad.mul(grad));
const weight = w.sub(moment.div(square.sqrt().add(1e-8)).mul(0.1));

const pairsOf = (outputs: Record<string, Tensor>): Record<string, string> =>
  inPlace(
    new Graph(
      [
        ["w", w],
        ["m", m],
        ["v", v],
        ["x", x],
      ],
      Object.entries(outputs),
    ),
  );

test("the moments of an optimizer are written over, its parameter is not", () => {
  assert.deepEqual(pairsOf({ "next.w": weight, "next.m": moment, "next.v": square }), { "next.m": "m", "next.v": "v" });
});

test("what is read late, through a view, by the writer itself, or returned is not written over", () => {
  assert.deepEqual(pairsOf({ "next.m": moment, late: m.mul(2).matmul(x) }), {});
  assert.deepEqual(pairsOf({ "next.m": moment, view: m.reshape([16]) }), {});
  assert.deepEqual(pairsOf({ "next.m": moment, m }), {});
  assert.deepEqual(pairsOf({ sum: m.add(grad) }), {});
  assert.deepEqual(pairsOf({ twice: m.mul(0.9).add(m) }), {});
  assert.deepEqual(pairsOf({ small: m.sum([0]).mul(2).add(1) }), {});
});

test("what others take of a reader, too, is not written over: the engine computes m / 2 within the product", async () => {
  const half = m.mul(0.5);
  const sum = half.add(grad);
  assert.deepEqual(pairsOf({ sum, product: half.matmul(sum) }), {});
  assert.deepEqual(pairsOf({ sum, half }), {});
});

test("one output takes the place of one input", () => {
  const sum = m.mul(0.9).add(v.mul(0.9));
  assert.deepEqual(pairsOf({ sum }), { sum: "m" });
  assert.deepEqual(pairsOf({ a: sum, b: m.mul(0.9).add(v.mul(0.9)) }), {});
});

test("training gives the same bits whether state is written over or not", async () => {
  const runtime = await openNode();
  const over = await trainingLosses(runtime, "swin_micro_32", { steps: 5 });
  const apart = await trainingLosses(runtime, "swin_micro_32", { steps: 5, donate: false });
  assert.deepEqual(over, apart);
  await runtime.close();
});
