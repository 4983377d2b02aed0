import assert from "node:assert/strict";
import { test } from "node:test";
import { gradients } from "../../src/autodiff/gradients.ts";
import type { DType } from "../../src/graph/dtype.ts";
import { Graph } from "../../src/graph/graph.ts";
import { input, type Tensor } from "../../src/graph/tensor.ts";
import { batchNormTraining, relu } from "../../src/ops/index.ts";
import { scaleInOnePass, simplify } from "../../src/passes/index.ts";
import type { HostTensor } from "../../src/runtime/runtime.ts";
import { randn } from "../support/arrays.ts";
import { as, difference, runGraph } from "../support/check.ts";

/** Batch norm as it trains and what follows it, with its gradients. */
function step(shape: readonly number[], dtype: DType, follow: Follow): Graph {
  const [x, z, scale, bias] = [shape, shape, [shape[1]], [shape[1]]].map((s) => input(s, dtype));
  const { y, mean, variance } = batchNormTraining(x, scale, bias, 1e-5);
  const out = follow(y, z);
  const seed = input(out.shape, dtype);
  const [dx, dScale, dBias] = gradients(out, [x, scale, bias], { seed });
  return simplify(
    new Graph(Object.entries({ x, z, scale, bias, seed }), Object.entries({ out, mean, variance, dx, dScale, dBias })),
  );
}
const count = (graph: Graph, name: string): number => graph.nodes.filter(({ op }) => op.name === name).length;

type Follow = (y: Tensor, z: Tensor) => Tensor;
const follows: Record<string, Follow> = {
  "a ReLU": (y) => relu(y),
  "a sum": (y, z) => z.add(y),
  "a sum and a ReLU": (y, z) => relu(y.add(z)),
  "a sum with what nothing else reads, and a ReLU": (y, z) => relu(y.add(z.mul(2))),
  "two that read it": (y, z) => relu(y).add(y.mul(z)),
};

for (const [what, follow] of Object.entries(follows)) {
  // Maps of few places, of many, and of enough for each way to take them together.
  for (const shape of [
    [3, 4, 5, 6],
    [3, 4, 12, 13],
    [2, 3, 33, 34],
  ])
    test(`batch norm and ${what} behind it, [${shape}]: in float32, as drawn and for one thread and two, as in float64`, async () => {
      const feeds: Record<string, HostTensor> = {
        ...{ x: shifted(randn(shape)), z: randn(shape), seed: randn(shape) },
        ...{ scale: randn([shape[1]]), bias: randn([shape[1]]) },
      };
      type Optimize = "extended" | "all";
      const run = (graph: Graph, dtype: DType, optimize: Optimize): Promise<Record<string, HostTensor>> => {
        const given = [...graph.inputs.keys()].map((name) => [name, as(feeds[name], dtype)]);
        return runGraph(graph, Object.fromEntries(given), { optimize });
      };
      const exact = await run(step(shape, "float64", follow), "float64", "extended");
      const drawn = step(shape, "float32", follow);
      const ways: [Graph, Optimize][] = [
        [drawn, "extended"],
        [drawn, "all"],
        [scaleInOnePass(drawn, 1), "extended"],
        [scaleInOnePass(drawn, 2), "extended"],
      ];
      for (const [graph, optimize] of ways) {
        const results = await run(graph, "float32", optimize);
        for (const [name, wanted] of Object.entries(exact))
          assert.ok(difference(as(results[name], "float64"), wanted) < 1e-5, name);
      }
    });
}

/** Channels with means far from 0, which statistics have to bear. */
const shifted = (x: HostTensor): HostTensor => ({ ...x, data: (x.data as Float64Array).map((v) => v + 10) });

test("on one thread, one pass is drawn where maps are large enough and nothing else reads what lies between", () => {
  const drawn = (shape: readonly number[], what: string): number =>
    count(scaleInOnePass(step(shape, "float32", follows[what]), 1), "FusedConv");
  // The gradient has a sum of its own.
  assert.equal(drawn([2, 3, 33, 34], "a sum and a ReLU"), 2);
  assert.equal(drawn([2, 3, 33, 34], "a ReLU"), 2);
  assert.equal(drawn([3, 4, 12, 13], "a ReLU"), 1);
  assert.equal(drawn([3, 4, 12, 13], "a sum"), 2);
  assert.equal(drawn([2, 3, 33, 34], "two that read it"), 1);
  assert.equal(drawn([3, 4, 5, 6], "a sum and a ReLU"), 0);
});

test("on two, every batch norm of a large map is a convolution, with a sum where the other map is read by nothing else", () => {
  const drawn = (shape: readonly number[], follow: Follow): Graph => scaleInOnePass(step(shape, "float32", follow), 2);
  const names = ["FusedConv", "BatchNormalization", "Relu"];
  const counts = (graph: Graph): number[] => names.map((name) => count(graph, name));
  const [one, sum, sumWithGiven] = ["a ReLU", "a sum with what nothing else reads, and a ReLU", "a sum and a ReLU"].map(
    (what) => (shape: readonly number[]) => drawn(shape, follows[what]),
  );
  // The gradient has one, too, and its other map is always such.
  const large = [2, 3, 33, 34];
  assert.deepEqual(counts(one(large)), [2, 0, 0]);
  assert.deepEqual(counts(sum(large)), [2, 0, 0]);
  assert.deepEqual(counts(sumWithGiven(large)), [2, 0, 1]);
  assert.equal(count(sumWithGiven(large), "Add") - count(sum(large), "Add"), 1);
  assert.deepEqual(counts(one([3, 4, 12, 13])), [1, 1, 1]);
  assert.deepEqual(counts(sum([3, 4, 5, 6])), [0, 2, 1]);
});
