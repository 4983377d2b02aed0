import assert from "node:assert/strict";
import { test } from "node:test";
import { gradients } from "../../src/autodiff/gradients.ts";
import type { DType } from "../../src/graph/dtype.ts";
import { Graph } from "../../src/graph/graph.ts";
import { OpenDim } from "../../src/graph/shape.ts";
import { input, type Tensor } from "../../src/graph/tensor.ts";
import { scaledMap } from "../../src/ops/contrib.ts";
import { conv, relu } from "../../src/ops/index.ts";
import { unplannedMemory } from "../../src/passes/index.ts";
import { nd, randn } from "../support/arrays.ts";
import { as, difference, randomFeeds, runGraph } from "../support/check.ts";

/** Where the shape of each reshape comes from. */
const shapesFrom = (graph: Graph): string[] =>
  graph.nodes.filter(({ op }) => op.name === "Reshape").map(({ inputs }) => inputs[1]?.node.op.name ?? "known");

function reshaped(rows: number | OpenDim, number: DType = "float32"): Graph {
  const [x, lr] = [input([rows, 1024]), input([], number)];
  const y = relu(x).reshape([-1, 2, 512]).exp();
  return new Graph(Object.entries({ x, lr }), [["y", y.slice(-1, 0, 8).reshape([-1, 16])]]);
}

test("the engine learns the shapes of large results while it runs", async () => {
  const graph = reshaped(64);
  const late = unplannedMemory(graph);
  assert.deepEqual(shapesFrom(late), ["Slice", "known"]);
  for (const lr of [1e-3, 0, Number.NaN, Infinity]) {
    const feeds = { x: as(randn([64, 1024]), "float32"), lr: nd([], () => lr, "float32") };
    assert.ok(difference((await runGraph(late, feeds)).y, (await runGraph(graph, feeds)).y) === 0);
  }
});

test("where no number is fed, the first value of an input is taken", async () => {
  const graph = reshaped(64, "int32");
  const late = unplannedMemory(graph);
  assert.ok(shapesFrom(late).includes("Slice"));
  const feeds = { x: as(randn([64, 1024]), "float32"), lr: nd([], () => 1, "int32") };
  assert.ok(difference((await runGraph(late, feeds)).y, (await runGraph(graph, feeds)).y) === 0);
});

test("reshapes behind one another in front of what the graph gives stay as they are", async () => {
  const [x, lr] = [input([64, 1024]), input([])];
  const rows = relu(x.reshape([32, 2048]))
    .reshape([128, 512])
    .reshape([256, 256]);
  const graph = new Graph(Object.entries({ x, lr }), [["y", rows]]);
  const late = unplannedMemory(graph);
  assert.deepEqual(shapesFrom(late), ["Slice", "known", "known"]);
  const feeds = { x: as(randn([64, 1024]), "float32"), lr: nd([], () => 1, "float32") };
  assert.ok(difference((await runGraph(late, feeds)).y, (await runGraph(graph, feeds)).y) === 0);
});

test("maps of a convolution that adds keep their shapes, and reshapes in front of them", async () => {
  const [x, z, gain, shift] = [input([64, 1024]), input([64, 1024]), input([8, 1, 1, 1]), input([8])];
  const lr = input([]);
  const map = (t: Tensor): Tensor => t.reshape([256, 256]).reshape([1, 8, 8192, 1]);
  const y = scaledMap(map(relu(x)), gain, shift, map(relu(z)), { relu: false }).reshape([128, 512]);
  const graph = new Graph(Object.entries({ x, z, gain, shift, lr }), [["y", relu(y)]]);
  const late = unplannedMemory(graph);
  assert.deepEqual(shapesFrom(late), ["known", "known", "known", "known", "Slice"]);
  const given = [...graph.inputs].map(([name, { shape }]) => [name, as(randn(shape as number[]), "float32")]);
  const feeds = Object.fromEntries(given);
  assert.ok(difference((await runGraph(late, feeds)).y, (await runGraph(graph, feeds)).y) < 1e-6);
});

test("reshapes that an operation is written as are hidden with the others, so that no shape stays between them", async () => {
  const [x, w, t, lr] = [input([2, 24, 40, 40]), input([24, 24, 3, 3]), input([2, 24 * 1600]), input([])];
  const [dw] = gradients(conv(x, w, undefined, { padding: 1 }).reshape([2, -1]), [w], { seed: t });
  const graph = new Graph(Object.entries({ x, w, t, lr }), [["dw", dw]]);
  const feeds = randomFeeds(graph);
  const [late, plain] = [await runGraph(unplannedMemory(graph), feeds), await runGraph(graph, feeds)];
  assert.ok(difference(late.dw, plain.dw) < 1e-4);
});

test("small results and open axes stay as they are, and a graph that is fed whole numbers alone", () => {
  const n = input([64, 1024], "int32");
  const whole = new Graph([["n", n]], [["y", n.reshape([-1, 2, 512]).mul(n.reshape([-1, 2, 512]))]]);
  for (const graph of [reshaped(8), reshaped(new OpenDim("N")), whole])
    assert.ok(!shapesFrom(unplannedMemory(graph)).includes("Slice"));
});
