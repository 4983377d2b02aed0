import assert from "node:assert/strict";
import { test } from "node:test";
import { gradients } from "../../src/autodiff/gradients.ts";
import { Graph } from "../../src/graph/graph.ts";
import { OpenDim } from "../../src/graph/shape.ts";
import { constant, input } from "../../src/graph/tensor.ts";
import { type ConvOptions, conv } from "../../src/ops/index.ts";
import { convolutionsInBlocks } from "../../src/passes/index.ts";
import { difference, plainAndBlocked, randomFeeds, withoutWideBlocks } from "../support/check.ts";

const skip = await withoutWideBlocks();

interface Case extends ConvOptions {
  x: readonly number[];
  w: readonly number[];
  bias?: boolean;
}

/** A convolution and its gradient by the input. */
function drawn({ x, w, bias: biased, ...options }: Case): Graph {
  const [map, kernel, bias] = [input(x), input(w), biased ? input(w.slice(0, 1)) : undefined];
  const y = conv(map, kernel, bias, options);
  const dy = input(y.shape);
  const [dx] = gradients(y, [map], { seed: dy });
  const inputs = { x: map, w: kernel, dy, ...(bias ? { bias } : {}) };
  return new Graph(Object.entries(inputs), Object.entries({ y, dx }));
}

/** What is left of convolutions outside of blocks. */
const left = (graph: Graph, size = 16): string[] =>
  convolutionsInBlocks(graph, size).nodes.flatMap(({ op }) =>
    op.domain !== "com.microsoft.nchwc" && op.name.startsWith("Conv") ? [op.name] : [],
  );

const cases: Record<string, Case> = {
  "3 × 3": { x: [3, 32, 9, 10], w: [48, 32, 3, 3], padding: 1, bias: true },
  "a kernel and padding of two sizes": { x: [2, 16, 9, 12], w: [32, 16, 5, 2], padding: [2, 0, 1, 1] },
  "a dilation": { x: [2, 32, 12, 12], w: [16, 32, 3, 3], padding: 2, dilation: 2 },
  "padding as wide as the kernel reaches": { x: [1, 16, 6, 7], w: [16, 16, 3, 3], padding: 2 },
  "single places": { x: [2, 48, 7, 7], w: [32, 48, 1, 1], bias: true },
};

for (const [what, each] of Object.entries(cases))
  test(`a convolution with changing weights in blocks, ${what}`, { skip }, async () => {
    const graph = drawn(each);
    assert.deepEqual(left(graph), []);
    const [wanted, got] = await plainAndBlocked(graph, randomFeeds(graph));
    for (const name of ["y", "dx"]) assert.ok(difference(got[name], wanted[name]) < 1e-5, name);
  });

test("a stem reads pictures as they lie", { skip: process.arch !== "x64" }, async () => {
  const graph = drawn({ x: [2, 3, 20, 21], w: [32, 3, 7, 7], padding: 3, stride: 2, bias: true });
  assert.deepEqual(left(graph), ["ConvTranspose"]);
  const reordered = convolutionsInBlocks(graph, 16).nodes.filter(({ op }) => op.name === "ReorderInput");
  assert.deepEqual(
    reordered.map(({ inputs: [x] }) => x?.shape),
    [[1, 32, 147, 1]],
  );
  const [wanted, got] = await plainAndBlocked(graph, randomFeeds(graph));
  assert.ok(difference(got.y, wanted.y) < 1e-5);
});

test("convolutions that blocks do not suit stay as they are", () => {
  const stays = (each: Case): void => assert.deepEqual(left(drawn(each)).sort(), ["Conv", "ConvInputGradient"]);
  stays({ x: [2, 32, 9, 9], w: [24, 32, 3, 3], padding: 1 }); // channels that do not fill blocks
  stays({ x: [2, 24, 9, 9], w: [32, 24, 3, 3], padding: 1 });
  stays({ x: [2, 32, 28, 28], w: [32, 32, 1, 1] }); // single places of a large map
  assert.deepEqual(left(drawn({ x: [2, 32, 7, 7], w: [32, 32, 1, 1] }), 8).sort(), ["Conv", "ConvInputGradient"]);
  const wide = drawn({ x: [2, 16, 9, 9], w: [16, 16, 1, 1], padding: 1 }); // a gradient whose padding would be negative
  assert.deepEqual(left(wide), ["ConvInputGradient"]);
  const grouped = drawn({ x: [2, 64, 9, 9], w: [64, 32, 3, 3], padding: 1, groups: 2 });
  assert.deepEqual(left(grouped), ["Conv", "Conv"]);
  const anyWidth = input([1, 16, 4, new OpenDim("W")]);
  for (const w of [input([16, 16, 1, 1]), input([16, 16, 3, 1])])
    assert.deepEqual(left(new Graph(Object.entries({ anyWidth, w }), [["y", conv(anyWidth, w)]])), ["Conv"]);
  const weights = constant(new Float32Array(32 * 32), [32, 32, 1, 1], "float32");
  assert.deepEqual(left(new Graph([], [["y", conv(input([2, 32, 7, 7]), weights)]])), ["Conv"]);
});
