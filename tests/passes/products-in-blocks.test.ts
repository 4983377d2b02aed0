import assert from "node:assert/strict";
import { test } from "node:test";
import { gradients } from "../../src/autodiff/gradients.ts";
import { Graph } from "../../src/graph/graph.ts";
import { OpenDim } from "../../src/graph/shape.ts";
import { constant, input, type Tensor } from "../../src/graph/tensor.ts";
import { columnSums, gelu, linear, silu, softmax } from "../../src/ops/index.ts";
import { productsInBlocks } from "../../src/passes/index.ts";
import type { HostTensor } from "../../src/runtime/runtime.ts";
import { randn } from "../support/arrays.ts";
import { as, difference, plainAndBlocked, randomFeeds, runGraph, withoutWideBlocks } from "../support/check.ts";

const skip = await withoutWideBlocks();
const weights = (...shape: number[]): Tensor => constant(as(randn(shape), "float32").data, shape, "float32");
const mlp = (x: Tensor, [dim, hidden]: readonly number[]) => {
  const inner = linear(x, weights(hidden, dim), weights(hidden));
  return { inner, y: linear(gelu(inner), weights(dim, hidden)) };
};
const count = (graph: Graph, name: string): number => graph.nodes.filter(({ op }) => op.name === name).length;

/** What an engine gives that brings products into blocks, and one that does not. */
const both = async (graph: Graph, feeds: Record<string, HostTensor>) => [
  await runGraph(graph, feeds),
  await runGraph(graph, feeds, { optimize: "extended" }),
];

test("the layers of an MLP are convolutions in blocks, reordered once before and once behind", {
  skip: process.arch !== "x64",
}, async () => {
  for (const batch of [2, new OpenDim("N")]) {
    const x = input([batch, 7, 9, 32]);
    const graph = new Graph([["x", x]], [["y", x.add(mlp(x, [32, 48]).y)]]);
    const made = productsInBlocks(graph, 16);
    const counts = ["Gemm", "Conv", "ReorderInput", "ReorderOutput", "Gelu"].map((name) => count(made, name));
    assert.deepEqual(counts, [0, 2, 1, 1, 1]);
    const [got, wanted] = await both(graph, { x: as(randn([2, 7, 9, 32]), "float32") });
    assert.ok(difference(got.y, wanted.y) < 1e-5);
  }
});

test("maps have as few places as are enough for the kernels, of however many pictures", () => {
  const batch = new OpenDim("N");
  const placesOf = (...between: number[]): unknown => {
    const x = input([batch, ...between, 32]);
    const { nodes } = productsInBlocks(new Graph([["x", x]], [["y", mlp(x, [32, 48]).y]]), 16);
    return nodes.find(({ op }) => op.name === "ReorderInput")!.inputs[0]!.shape.at(-2);
  };
  assert.equal(placesOf(7, 7), 49);
  assert.equal(placesOf(28, 28), 98);
  assert.equal(placesOf(784), 98);
  assert.equal(placesOf(197), 197);
});

test("what lies between can be read too", { skip: process.arch !== "x64" }, async () => {
  const x = input([80, 32]);
  const { inner, y } = mlp(x, [32, 64]);
  const graph = new Graph([["x", x]], Object.entries({ inner, act: gelu(inner), y }));
  const [got, wanted] = await both(graph, { x: as(randn([80, 32]), "float32") });
  for (const name of ["inner", "act", "y"]) assert.ok(difference(got[name], wanted[name]) < 1e-5, name);
});

test("a product alone, few rows, channels that fill no blocks, a bias that repeats and weights that change stay", () => {
  const stay = (x: Tensor, y: Tensor, more: [string, Tensor][] = []): void => {
    const graph = new Graph([["x", x], ...more], [["y", y]]);
    assert.deepEqual([...productsInBlocks(graph, 16).outputs.values()], [y]);
  };
  const x = input([80, 32]);
  stay(x, linear(x, weights(64, 32)));
  stay(x, mlp(x, [32, 40]).y);
  stay(x, linear(softmax(linear(x, weights(64, 32))), weights(32, 64)));
  stay(x, linear(linear(x, weights(64, 32), weights(1)), weights(32, 64)));
  const few = input([3, 32]);
  stay(few, mlp(few, [32, 64]).y);
  const w = input([64, 32]);
  stay(x, linear(linear(x, w), weights(32, 64)), [["w", w]]);
});

/** An MLP of weights that change, [dim, hidden, dim], and its gradients. */
function training(shape: readonly number[], hidden: number, act = gelu): Graph {
  const dim = shape.at(-1)!;
  const x = input(shape);
  const params = [input([hidden, dim]), input([hidden]), input([dim, hidden]), input([dim])];
  const [w1, b1, w2, b2] = params;
  const y = linear(act(linear(x, w1, b1)), w2, b2);
  const dy = input(y.shape);
  const names = ["x", "w1", "b1", "w2", "b2"];
  const reached = gradients(y, [x, ...params], { seed: dy });
  return new Graph(
    [...names.map((name, i) => [name, [x, ...params][i]] as const), ["dy", dy]],
    [["y", y], ...names.map((name, i) => [`d${name}`, reached[i]] as const)],
  );
}

for (const [what, shape] of Object.entries({ "rows that fill blocks": [2, 144, 32], "rows that do not": [4, 89, 32] }))
  test(`an MLP in training and its gradients in blocks, ${what}`, { skip }, async () => {
    const graph = training(shape, 48);
    const made = productsInBlocks(graph, 16);
    // Two products forward, two of their inputs' gradients, two of their weights' and one of a bias's.
    assert.deepEqual(
      ["Gemm", "Conv"].map((name) => count(made, name)),
      [0, 7],
    );
    const [wanted, got] = await plainAndBlocked(graph, randomFeeds(graph));
    for (const name of graph.outputs.keys()) assert.ok(difference(got[name], wanted[name]) < 1e-5, name);
  });

test("a gate of two products in training", { skip }, async () => {
  const x = input([256, 32]);
  const [gate, value, out] = [input([64, 32]), input([64, 32]), input([32, 64])];
  const y = linear(silu(linear(x, gate)).mul(linear(x, value)), out);
  const dy = input(y.shape);
  const reached = gradients(y, [x, gate, value, out], { seed: dy });
  const graph = new Graph(Object.entries({ x, gate, value, out, dy }), [
    ["y", y],
    ...reached.map((d, i) => [`d${i}`, d] as const),
  ]);
  assert.equal(count(productsInBlocks(graph, 16), "Gemm"), 0);
  const [wanted, got] = await plainAndBlocked(graph, randomFeeds(graph));
  for (const name of graph.outputs.keys()) assert.ok(difference(got[name], wanted[name]) < 1e-5, name);
});

test("a sum over rows of an MLP that does not learn, rows that come in no fours", { skip }, async () => {
  const x = input([262, 32]);
  const { y } = mlp(x, [32, 64]);
  const graph = new Graph([["x", x]], Object.entries({ y, sum: columnSums(y) }));
  const [wanted, got] = await plainAndBlocked(graph, randomFeeds(graph));
  for (const name of ["y", "sum"]) assert.ok(difference(got[name], wanted[name]) < 1e-5, name);
});

test("in training few rows, narrow blocks, what mixes channels and what could make no number stay", () => {
  const products = (graph: Graph, size = 16): number => count(productsInBlocks(graph, size), "Gemm");
  const all = 6;
  assert.equal(products(training([252, 32], 64)), all);
  assert.equal(products(training([258, 32], 64)), all); // rows are reordered by fours
  assert.equal(products(training([256, 32], 64)), 0);
  assert.equal(products(training([256, 32], 64), 8), all);
  assert.equal(products(training([256, 32], 64, softmax)), all);
  // Rows are completed with zeros.
  assert.equal(products(training([256, 32], 64, (x) => x.div(x))), all);
});
