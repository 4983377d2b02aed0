import assert from "node:assert/strict";
import { test } from "node:test";
import { Graph } from "../../src/graph/graph.ts";
import { constant, input, scalar } from "../../src/graph/tensor.ts";
import { greater, where } from "../../src/ops/index.ts";
import { alignNumbers } from "../../src/passes/index.ts";
import type { HostTensor } from "../../src/runtime/runtime.ts";
import { randn } from "../support/arrays.ts";
import { as, runtime } from "../support/check.ts";

const ranksOf = (graph: Graph): number[][] =>
  graph.nodes
    .filter(({ op }) => ["Add", "Mul", "Greater", "Where"].includes(op.name))
    .map((node) => node.inputs.map((x) => x!.rank));

test("numbers that meet an axis of length 1 get as many axes, and results stay the same", async () => {
  const [x, rate] = [input([6, 5, 1, 1]), input([])];
  const y = x.mul(rate).add(constant(Float32Array.of(2), [1], "float32")); // a number that is computed, and a constant
  const z = where(greater(y, scalar(0)), x, rate);
  const graph = new Graph(Object.entries({ x, rate }), Object.entries({ y, z }));
  const aligned = alignNumbers(graph);
  assert.deepEqual(ranksOf(aligned), [
    [4, 4],
    [4, 4],
    [4, 4],
    [4, 4, 4],
  ]);
  const feeds: Record<string, HostTensor> = { x: as(randn([6, 5, 1, 1]), "float32"), rate: as(randn([]), "float32") };
  const results = await Promise.all(
    [graph, aligned].map(async (g) => {
      const program = await runtime.compile(g, { optimize: "none" });
      const { y, z } = (await program.run(feeds)) as Record<string, HostTensor>;
      await program.release();
      return [y, z];
    }),
  );
  assert.deepEqual(results[1], results[0]);
});

test("what the engine walks fast stays as it was drawn", () => {
  const [x, row, column] = [input([6, 5]), input([5]), input([6, 1])];
  const outputs = Object.entries({ a: x.mul(0.5), b: x.add(row), c: column.mul(x), d: column.add(input([6, 1])) });
  const graph = new Graph([], outputs);
  assert.deepEqual([...alignNumbers(graph).outputs.values()], [...graph.outputs.values()]);
});
