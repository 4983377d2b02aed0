import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Graph } from "../../src/graph/graph.ts";
import { lower } from "../../src/graph/onnx/write.ts";
import { constantOp, input, leaf, type Tensor } from "../../src/graph/tensor.ts";
import { concat } from "../../src/ops/move.ts";
import { softmax } from "../../src/ops/norm.ts";
import { executionOrder, memoryUse } from "../../src/passes/memory.ts";
import { openStep, record } from "./step.ts";

const kilo = 250; // floats of 1000 bytes

/** [what, drawing of y from x (1 kB), the kilobytes that the longest moment takes, counted by hand] */
const cases: readonly [string, (x: Tensor) => Tensor, number][] = [
  ["x and y", (x) => softmax(x), 2],
  ["x, what is made, y", (x) => softmax(softmax(x)), 3],
  // x, a, b, then y of 2
  ["two that are joined", (x) => concat([softmax(x), softmax(softmax(x))], 0), 5],
  // a = softmax(x) is written over four times; y is a buffer of its own
  ["arithmetic writes over what nobody reads", (x) => softmax(x).exp().sqrt().neg().add(1).mul(2), 3],
  // a is read once more at the end
  ["but not over what is read again", (x) => between(softmax(x)), 4],
  ["another shape is no copy", (x) => softmax(softmax(x).reshape([50, 5]).reshape([kilo])), 3],
  // x, and of a chain of five no more than two at a time
  ["a chain", (x) => softmax(softmax(softmax(softmax(softmax(x))))), 3],
  // a (1), its transpose read as it lies, y (25 × 25 floats)
  ["a matrix turned for a product", (x) => turned(softmax(x).reshape([25, 10])), 1 + 1 + 2.5],
];

/** exp(a) · a */
const between = (a: Tensor): Tensor => a.exp().mul(a);
const turned = (a: Tensor): Tensor => a.matmul(a.mT);

describe("an estimate by hand", () => {
  for (const [what, draw, kilobytes] of cases)
    test(what, () => {
      const x = input([kilo]);
      const { peak } = memoryUse(new Graph([["x", x]], [["y", draw(x)]]));
      assert.equal(Math.round(peak / 100) / 10, kilobytes);
    });
});

test("a buffer that is free and serves again is kept meanwhile", () => {
  // a and b are of one shape, so the engine gives b the memory of a, and holds it while the larger c is made and gone.
  const x = input([kilo]);
  const a = softmax(x);
  const c = softmax(concat([a, a, a], 0));
  const b = softmax(c.slice(0, 0, kilo));
  const { peak } = memoryUse(new Graph([["x", x]], [["y", softmax(b)]]));
  assert.equal(peak, (1 + 1 + 3 + 3) * 1000);
});

test("weights that are fed and constants lie there all the time", () => {
  const [x, w] = [input([kilo]), input([kilo])];
  const graph = new Graph(
    [
      ["x", x],
      ["w", w],
    ],
    [["y", softmax(x).mul(w)]],
  );
  const { held, peak, at } = memoryUse(graph);
  assert.deepEqual([held, peak, at?.op.name], [2000, 4000, "Mul"]);
});

for (const model of ["swin_micro_32", "resnet20_cifar"])
  test(`${model}: the order is the engine's`, async () => {
    const { graph, feeds } = await openStep(model, { batch: 2 });
    const lowered = lower(graph);
    const written = lowered.nodes.filter(({ op }) => op !== leaf && op !== constantOp);
    const places = new Map(written.map((node, i) => [node, i]));
    const { order } = await record(graph, feeds, { optimize: false });
    assert.deepEqual(
      order,
      executionOrder(lowered).map((node) => places.get(node)),
    );
  });

for (const [model, batch] of [
  ["swin_micro_32", 16],
  ["cswin_micro_32", 16],
  ["resnet20_cifar", 8],
] as const)
  test(`${model}: the estimate is what the engine's allocator gives out`, async () => {
    const { graph, feeds } = await openStep(model, { batch });
    const { peak } = await record(graph, feeds);
    const fed = Object.values(feeds).reduce((sum, { data }) => sum + data.byteLength, 0);
    const ratio = (memoryUse(graph).peak - fed) / peak;
    assert.ok(ratio > 0.8 && ratio < 1.2, `${ratio} of it`);
  });
