import assert from "node:assert/strict";
import { test } from "node:test";
import { Graph } from "../../src/graph/graph.ts";
import { OpenDim, type Shape } from "../../src/graph/shape.ts";
import { input } from "../../src/graph/tensor.ts";
import { gemm } from "../../src/ops/index.ts";
import { biasesApart } from "../../src/passes/index.ts";
import { randn } from "../support/arrays.ts";
import { as, difference, runGraph } from "../support/check.ts";

const width = 128;

/** 2 aᵀ b + bias, or less of it. */
function product(rows: Shape[number], { bias = [width], beta = 1 }: { bias?: Shape; beta?: number } = {}): Graph {
  const [a, b, c] = [input([8, rows]), input([width, 8]), input(bias)];
  const y = gemm(a, b, c, { alpha: 2, beta, transA: true, transB: true });
  return new Graph(Object.entries({ a, b, c }), [["y", y]]);
}
const names = (graph: Graph): string[] => graph.nodes.map(({ op }) => op.name);

test("a large product's bias is added behind it, to the same result", async () => {
  for (const bias of [[width], [1, width], [512, 1], [512, width]]) {
    const drawn = product(512, { bias });
    const apart = biasesApart(drawn);
    assert.deepEqual(names(apart).slice(-2), ["Gemm", "Add"]);
    const feeds = Object.fromEntries(
      [...drawn.inputs].map(([name, { shape }]) => [name, as(randn(shape as number[]), "float32")]),
    );
    const [wanted, found] = await Promise.all(
      [drawn, apart].map((graph) => runGraph(graph, feeds, { optimize: "none" })),
    );
    assert.ok(difference(found.y, wanted.y) < 1e-6);
  }
});

test("of rows of unknown number, eight images count", () => {
  assert.deepEqual(names(biasesApart(product(new OpenDim("N", 64)))).at(-1), "Add");
  assert.deepEqual(names(biasesApart(product(new OpenDim("N", 1)))).at(-1), "Gemm");
});

test("small products, and those that weigh the bias, stay as they are", () => {
  for (const graph of [product(511), product(512, { beta: 0.5 })])
    assert.deepEqual(names(biasesApart(graph)).at(-1), "Gemm");
});
