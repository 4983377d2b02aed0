import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { gradients } from "../../src/autodiff/gradients.ts";
import { Graph } from "../../src/graph/graph.ts";
import { constant, input, type Tensor } from "../../src/graph/tensor.ts";
import { binaryCrossEntropy, crossEntropy } from "../../src/nn/losses.ts";
import { openNode } from "../../src/runtime/node.ts";
import { numberOf, type Runtime } from "../../src/runtime/runtime.ts";

let runtime: Runtime;
before(async () => {
  runtime = await openNode({ threads: 1 });
});
after(() => runtime.close());

const rows = (values: number[][]): Tensor =>
  constant(Float32Array.from(values.flat()), [values.length, values[0].length], "float32");
const labels = (values: number[]): Tensor => constant(Int32Array.from(values), [values.length], "int32");

async function computed(x: Tensor): Promise<number> {
  const program = await runtime.compile(new Graph([], [["x", x]]));
  return numberOf((await program.run({})).x);
}

const logits = rows([
  [1, 2, 3],
  [0, 1, 0],
]);
const targets = rows([
  [0.5, 0.5, 0],
  [0, 0.2, 0.8],
]);
const classWeights = constant(Float32Array.of(1, 2, 4), [3], "float32");

/** From PyTorch 2: torch.nn.functional.cross_entropy. */
const close = (found: number, expected: number): void => assert.ok(Math.abs(found - expected) < 2e-5, `${found}`);

test("cross-entropy against distributions, weighted and smoothed, as in PyTorch", async () => {
  close(await computed(crossEntropy(logits, targets, { classWeights })), 3.8983);
  close(await computed(crossEntropy(logits, targets, { smoothing: 0.3 })), 1.5345253);
  close(await computed(crossEntropy(logits, labels([0, 2]), { smoothing: 0.3, classWeights })), 1.5201409);
});

test("binary cross-entropy, weighted and smoothed, as in PyTorch and timm; logits of any size", async () => {
  close(await computed(binaryCrossEntropy(logits, targets)), 1.2480556);
  close(await computed(binaryCrossEntropy(logits, targets, { classWeights })), 3.4922876);
  close(await computed(binaryCrossEntropy(logits, labels([0, 2]), { smoothing: 0.3 })), 1.2980555);
  close(await computed(binaryCrossEntropy(rows([[200, -200]]), labels([1]))), 200);
});

test("a class that a logit of -∞ rules out takes part in neither loss nor gradient", async () => {
  const logits = rows([[1, 2, Number.NEGATIVE_INFINITY]]);
  const loss = crossEntropy(logits, labels([0]));
  close(await computed(loss), 1.3132617);
  const [slope] = gradients(loss, [logits]);
  close(await computed(slope.mul(rows([[1, 2, 4]])).sum()), 0.7310586);
});

test("a label that is no class makes the loss no number", async () => {
  for (const label of [3, -1, -100])
    for (const options of [{}, { smoothing: 0.1 }, { classWeights }])
      for (const loss of [crossEntropy, binaryCrossEntropy])
        assert.ok(!Number.isFinite(await computed(loss(logits, labels([0, label]), options))), `${label}`);
});

test("targets that do not fit the logits are refused", () => {
  const logits = input([4, 10]);
  for (const targets of [input([4, 1]), input([1], "int32"), input([4, 10], "int32"), input([4])])
    assert.throws(
      () => crossEntropy(logits, targets),
      /do not fit logits[\s\S]*int32 \[4\], or a distribution, float32/,
    );
});
