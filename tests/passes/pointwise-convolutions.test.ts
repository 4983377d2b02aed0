import assert from "node:assert/strict";
import { test } from "node:test";
import { Graph } from "../../src/graph/graph.ts";
import { OpenDim } from "../../src/graph/shape.ts";
import { constant, input, type Tensor } from "../../src/graph/tensor.ts";
import { conv, hardSigmoid, relu, resize } from "../../src/ops/index.ts";
import { pointwiseConvolutions } from "../../src/passes/index.ts";
import { randn } from "../support/arrays.ts";
import { as, difference, plainAndBlocked, runGraph } from "../support/check.ts";

const weights = (...shape: number[]): Tensor => constant(as(randn(shape), "float32").data, shape, "float32");
const operations = (x: Tensor, y: Tensor, more: [string, Tensor][] = []): string[] =>
  pointwiseConvolutions(new Graph([["x", x], ...more], [["y", y]]))
    .nodes.filter(({ inputs }) => inputs.length > 0)
    .map(({ op }) => op.name);

for (const [size, stride] of [
  [[8, 8], 2],
  [[7, 9], 2],
  [
    [9, 10],
    [3, 1],
  ],
] as const)
  test(`a convolution of single places steps over none of those taken before it, ${size} by ${stride}`, {
    skip: process.arch !== "x64",
  }, async () => {
    const x = input([new OpenDim("N"), 16, ...size]);
    const y = conv(relu(conv(x, weights(32, 16, 1, 1))), weights(48, 32, 1, 1), weights(48), { stride });
    const graph = new Graph([["x", x]], [["y", y]]);
    assert.deepEqual(operations(x, y), ["Conv", "Relu", "AveragePool", "Conv"]);
    const feeds = { x: as(randn([2, 16, ...size]), "float32") };
    const [wanted, got] = await plainAndBlocked(graph, feeds);
    assert.ok(difference(got.y, wanted.y) < 1e-5);
    const before = await runGraph(pointwiseConvolutions(graph), feeds, { optimize: "none" });
    assert.ok(difference(before.y, wanted.y) < 1e-5);
  });

test("over maps of one place, images are places; gates, small weights and a single image stay", {
  skip: process.arch !== "x64",
}, async () => {
  const x = input([new OpenDim("N"), 256, 6, 5]);
  const mean = x.mean([2, 3], true);
  const y = relu(conv(mean, weights(320, 256, 1, 1), weights(320), { stride: 2 }));
  const graph = new Graph([["x", x]], [["y", y.mul(2)]]);
  assert.deepEqual(
    operations(x, graph.outputs.get("y")!),
    "ReduceMean Reshape Transpose Conv Transpose Reshape Relu Mul".split(" "),
  );
  for (const images of [1, 3]) {
    const feeds = { x: as(randn([images, 256, 6, 5]), "float32") };
    const [wanted, got] = [await runGraph(graph, feeds, { optimize: "extended" }), await runGraph(graph, feeds)];
    assert.ok(difference(got.y, wanted.y) < 1e-5);
  }
  const gate = hardSigmoid(conv(relu(mean), weights(256, 256, 1, 1)));
  const stay = [resize(gate, { size: [6, 5], mode: "nearest" }).mul(x), conv(mean, weights(64, 256, 1, 1))];
  for (const map of stay) assert.ok(!operations(x, map).includes("Transpose"));
  const single = input([1, 256, 1, 1]);
  assert.deepEqual(operations(single, conv(single, weights(320, 256, 1, 1))), ["Conv"]);
});

test("larger kernels, groups, weights that change and what is padded before stay as they are", () => {
  const x = input([2, 16, 8, 8]);
  const stays = (y: Tensor, more?: [string, Tensor][]): void =>
    assert.ok(!operations(x, y, more).includes("AveragePool"));
  stays(conv(x, weights(16, 16, 3, 3), undefined, { stride: 2, padding: 1 }));
  stays(conv(x, weights(16, 1, 1, 1), undefined, { stride: 2, groups: 16 }));
  stays(conv(x, weights(16, 16, 1, 1), undefined, { stride: 2, padding: 1 }));
  stays(conv(x, weights(16, 16, 1, 1)));
  stays(conv(x.pad(2, 1, 1), weights(16, 16, 1, 1), undefined, { stride: 2 }));
  const w = input([16, 16, 1, 1]);
  stays(conv(x, w, undefined, { stride: 2 }), [["w", w]]);
});
