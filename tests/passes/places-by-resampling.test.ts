import assert from "node:assert/strict";
import { test } from "node:test";
import { gradients } from "../../src/autodiff/gradients.ts";
import type { DType } from "../../src/graph/dtype.ts";
import { Graph } from "../../src/graph/graph.ts";
import { input } from "../../src/graph/tensor.ts";
import { averagePool, conv, stopGradient } from "../../src/ops/index.ts";
import { repeatPlaces, spreadPlaces, takePlaces } from "../../src/ops/resize.ts";
import { placesByResampling } from "../../src/passes/index.ts";
import { numbers, randn } from "../support/arrays.ts";
import { as, runGraph } from "../support/check.ts";

const named = (graph: Graph): string[] => graph.nodes.map(({ op }) => op.name);

/** Places of [N, C, H, W] that are repeated, and spread, in a graph. */
function both(shape: readonly number[], times: readonly number[], dtype: DType = "float32"): Graph {
  const x = input(shape, dtype);
  return new Graph([["x", x]], Object.entries({ y: repeatPlaces(x, { times }), z: spreadPlaces(x, { times }) }));
}

test("places of a map are repeated or spread, as they are drawn and by Resize", async () => {
  const [shape, times] = [
    [2, 3, 4, 5],
    [2, 3],
  ];
  const graph = both(shape, times);
  const resized = placesByResampling(graph);
  assert.equal(named(resized).filter((name) => name === "Resize").length, 2);
  assert.ok(!named(resized).some((name) => name.endsWith("Places")));
  const x = as(randn(shape), "float32");
  const at = (n: number, h: number, w: number): number => numbers(x)[(n * 4 + h) * 5 + w];
  const places = Array.from({ length: 6 * 8 * 15 }, (_, i) => [Math.floor(i / 120), Math.floor(i / 15) % 8, i % 15]);
  const repeated = places.map(([n, h, w]) => at(n, Math.floor(h / 2), Math.floor(w / 3)));
  const spread = places.map(([n, h, w]) => (h % 2 === 0 && w % 3 === 0 ? at(n, h / 2, w / 3) : 0));
  for (const drawn of [graph, resized]) {
    const { y, z } = await runGraph(drawn, { x }, { optimize: "extended" });
    assert.deepEqual(numbers(y), repeated);
    // Where a number below zero was masked, there is -0.
    const zeros = Array.from(numbers(z), (v) => v + 0);
    assert.deepEqual(zeros, spread);
  }
});

test("what Resize does not take stays as it is drawn", async () => {
  for (const graph of [both([1, 2, 3, 3], [2, 2], "float64"), both([1, 2, 5], [3]), both([1, 1, 2, 2, 2], [2, 1, 2])]) {
    const names = named(placesByResampling(graph));
    assert.deepEqual([names.includes("RepeatPlaces"), names.includes("SpreadPlaces")], [true, true]);
    const { x } = Object.fromEntries(graph.inputs);
    const { y, z } = await runGraph(graph, { x: as(randn(x.shape as number[]), x.dtype) });
    assert.deepEqual(y.shape, z.shape);
  }
});

for (const times of [
  [2, 4],
  [1, 3],
  [3, 2], // which does not divide the map
])
  test(`one in ${times.join(" × ")} places of a map is taken by a pool, whatever it holds`, async () => {
    const [height, width] = [4, 24];
    const data = Float32Array.from({ length: 2 * height * width }, (_, i) => [i, -Infinity, NaN, Infinity][i % 4]);
    const map = input([1, 2, height, width]);
    const graph = placesByResampling(new Graph([["x", map]], [["y", takePlaces(map, { times })]]));
    assert.equal(named(graph).at(-1), "AveragePool");
    const { y } = await runGraph(graph, { x: { dtype: "float32", shape: [1, 2, height, width], data } });
    const first = (at: number): boolean =>
      (at % width) % times[1] === 0 && (Math.floor(at / width) % height) % times[0] === 0;
    assert.deepEqual(
      numbers(y),
      Array.from(data).filter((_, at) => first(at)),
    );
  });

test("places of a padded map are not taken by a pool, which the engine would pad", async () => {
  const map = input([1, 2, 4, 4]);
  const padded = map.pad(2, 1, 1);
  for (const seen of [padded, stopGradient(padded)]) {
    const graph = placesByResampling(new Graph([["x", map]], [["y", takePlaces(seen, { times: [3, 2] })]]));
    assert.ok(!named(graph).includes("AveragePool"));
    const x = as(randn([1, 2, 4, 4]), "float32");
    const { y } = await runGraph(graph, { x });
    const values = numbers(x);
    assert.deepEqual(numbers(y), [0, 0, values[8], values[10], 0, 0, values[24], values[26]]);
  }
});

test("gradients of pools side by side, and of strides over groups with several results, are drawn so", () => {
  const x = input([2, 4, 8, 8]);
  const w = input([8, 1, 3, 3]);
  const pool = gradients(averagePool(x, { kernel: 2 }).sum(), [x]);
  const strided = gradients(conv(x, w, undefined, { groups: 4, stride: 2, padding: 1 }).sum(), [x]);
  const graph = new Graph(Object.entries({ x, w }), Object.entries({ pool: pool[0], strided: strided[0] }));
  assert.equal(named(placesByResampling(graph)).filter((name) => name === "Resize").length, 2);
});
