import assert from "node:assert/strict";
import { test } from "node:test";
import { Graph } from "../../src/graph/graph.ts";
import { OpenDim } from "../../src/graph/shape.ts";
import { input } from "../../src/graph/tensor.ts";
import { smallTransposes } from "../../src/passes/index.ts";
import { randn } from "../support/arrays.ts";
import { as, runGraph } from "../support/check.ts";

const transposed = (shape: Parameters<typeof input>[0], perm: number[]): Graph => {
  const x = input(shape);
  return new Graph([["x", x]], [["y", x.permute(...perm)]]);
};
const transposes = (graph: Graph): boolean => graph.nodes.some(({ op }) => op.name === "Transpose");

test("many small matrices are gathered, to the same result", async () => {
  const cases: [number[], number[]][] = [
    [
      [20, 1, 3, 5],
      [0, 1, 3, 2],
    ],
    [
      [4, 5, 2, 1, 3],
      [0, 1, 4, 3, 2],
    ],
    [
      [16, 8, 8],
      [0, 2, 1],
    ],
    [
      [1, 30, 1, 2, 7],
      [1, 0, 4, 2, 3],
    ],
  ];
  for (const [shape, perm] of cases) {
    const graph = transposed(shape, perm);
    const gathered = smallTransposes(graph);
    assert.equal(transposes(gathered), false);
    const x = as(randn(shape), "float32");
    assert.deepEqual(await runGraph(gathered, { x }), await runGraph(graph, { x }, { optimize: "none" }));
  }
});

test("what the engine transposes fast stays as it was drawn", () => {
  const others: [Parameters<typeof input>[0], number[]][] = [
    [
      [15, 3, 3],
      [0, 2, 1],
    ], // few
    [
      [64, 16, 16],
      [0, 2, 1],
    ], // not small
    [
      [32, 3, 3],
      [1, 0, 2],
    ], // another order
    [
      [3, 3],
      [1, 0],
    ], // one
    [
      [new OpenDim("N"), 3, 3],
      [0, 2, 1],
    ],
  ];
  for (const [shape, perm] of others) assert.ok(transposes(smallTransposes(transposed(shape, perm))));
});
