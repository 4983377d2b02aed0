import assert from "node:assert/strict";
import { test } from "node:test";
import { Graph } from "../../src/graph/graph.ts";
import { OpenDim } from "../../src/graph/shape.ts";
import { constant, input, type Tensor } from "../../src/graph/tensor.ts";
import { conv, hardSigmoid, relu } from "../../src/ops/index.ts";
import { gatesInBlocks } from "../../src/passes/index.ts";
import type { HostTensor } from "../../src/runtime/runtime.ts";
import { randn } from "../support/arrays.ts";
import { as, difference, runtime } from "../support/check.ts";

const weights = (...shape: number[]): Tensor => constant(as(randn(shape), "float32").data, shape, "float32");
const pointwise = (x: Tensor, from: number, to: number): Tensor => conv(x, weights(to, from, 1, 1), weights(to));

/** A convolution, squeeze-and-excite, a convolution. */
function drawn(x: Tensor, channels = 32): Tensor {
  const map = relu(pointwise(x, 16, channels));
  const gate = hardSigmoid(pointwise(relu(pointwise(map.mean([2, 3], true), channels, 16)), 16, channels));
  return pointwise(map.mul(gate), channels, 16);
}
const graphOf = (x: Tensor, draw: (x: Tensor) => Tensor): Graph => new Graph([["x", x]], [["y", draw(x)]]);
const names = (graph: Graph): string[] => graph.nodes.map(({ op }) => op.name);

for (const [batch, channels] of [
  [2, 32],
  [new OpenDim("N"), 32],
  [new OpenDim("N"), 24],
] as const)
  test(`squeeze-and-excite of ${channels} channels stays in the engine's blocks, a batch of ${batch}`, {
    skip: process.arch !== "x64",
  }, async () => {
    const graph = graphOf(input([batch, 16, 6, 5]), (x) => drawn(x, channels));
    const feeds = { x: as(randn([2, 16, 6, 5]), "float32") };
    const plain = await runtime.compile(graph, { optimize: "extended" });
    const blocked = await runtime.compile(graph, { profile: true });
    const [wanted, got] = (await Promise.all([plain.run(feeds), blocked.run(feeds)])) as Record<string, HostTensor>[];
    assert.ok(difference(got.y, wanted.y) < 1e-5);
    const ran = (await blocked.profile()).map(({ op }) => op);
    assert.deepEqual(ran.filter((op) => op.startsWith("Reorder")).sort(), ["ReorderInput", "ReorderOutput"]);
    await Promise.all([plain.release(), blocked.release()]);
  });

test("gates and means of what is in no blocks stay as they are", () => {
  const unchanged = (graph: Graph): void => assert.deepEqual(names(gatesInBlocks(graph, 16)), names(graph));
  unchanged(graphOf(input([2, 32, 6, 5]), (x) => x.mul(relu(x.mean([2, 3], true)))));
  // Weights change, as in training.
  unchanged(graphOf(input([2, 16, 6, 5]), (x) => conv(x, input([32, 16, 1, 1])).mean([2, 3], true)));
});
