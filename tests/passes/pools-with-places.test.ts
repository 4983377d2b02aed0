import assert from "node:assert/strict";
import { test } from "node:test";
import { gradients } from "../../src/autodiff/gradients.ts";
import { Graph } from "../../src/graph/graph.ts";
import { input } from "../../src/graph/tensor.ts";
import { maxPool, type PoolOptions } from "../../src/ops/index.ts";
import { poolsWithPlaces } from "../../src/passes/index.ts";
import { randn } from "../support/arrays.ts";
import { as, difference, runGraph } from "../support/check.ts";

const cases: Record<string, PoolOptions & { x: readonly number[] }> = {
  "windows that overlap": { x: [2, 3, 9, 10], kernel: 3, stride: 2, padding: 1 },
  "windows side by side, pixels left over": { x: [2, 2, 7, 9], kernel: 2 },
  "windows with gaps": { x: [1, 4, 11, 8], kernel: [2, 3], stride: [3, 4], padding: [0, 1] },
  "one axis": { x: [2, 3, 12], kernel: 3, stride: 1, padding: 1 },
  "three axes": { x: [2, 2, 5, 6, 7], kernel: 3, stride: 2, padding: 1 },
};

for (const [what, { x: shape, ...options }] of Object.entries(cases))
  test(`the gradient of a max pool by its places, ${what}`, async () => {
    const x = input(shape);
    const y = maxPool(x, options);
    const dy = input(y.shape);
    const [dx] = gradients(y, [x], { seed: dy });
    const graph = new Graph(Object.entries({ x, dy }), Object.entries({ y, dx }));
    const ops = poolsWithPlaces(graph).nodes.map(({ op }) => op.name);
    assert.deepEqual([ops.includes("ScatterElements"), ops.includes("MaxPoolGradient")], [true, false]);
    // Few different numbers, so that windows have several places with their maximum.
    const drawn = as(randn(shape), "float32");
    const few = { ...drawn, data: (drawn.data as Float32Array<ArrayBuffer>).map((v) => Math.round(v)) };
    const feeds = { x: few, dy: as(randn(y.shape as number[]), "float32") };
    const wanted = await runGraph(graph, feeds, { optimize: "extended" });
    const got = await runGraph(graph, feeds);
    for (const name of ["y", "dx"]) assert.ok(difference(got[name], wanted[name]) < 1e-6, name);
  });

test("a max pool without a gradient stays as it is", () => {
  const y = maxPool(input([1, 2, 4, 4]), { kernel: 2 });
  const graph = poolsWithPlaces(new Graph([], [["y", y]]));
  assert.equal(graph.outputs.get("y"), y);
});

test("in float16, which the engine adds to no places, the gradient finds them again", async () => {
  const x = input([1, 2, 6, 6], "float16");
  const y = maxPool(x, { kernel: 3, stride: 2 });
  const [dx] = gradients(y.sum(), [x]);
  const graph = new Graph([["x", x]], [["dx", dx]]);
  const feeds = { x: as(randn([1, 2, 6, 6]), "float16") };
  const wanted = await runGraph(graph, feeds, { optimize: "extended" });
  assert.deepEqual((await runGraph(graph, feeds)).dx.data, wanted.dx.data);
});
