import assert from "node:assert/strict";
import { test } from "node:test";
import { Graph } from "../../src/graph/graph.ts";
import { input } from "../../src/graph/tensor.ts";
import { gelu, geluTanh } from "../../src/ops/index.ts";
import { forOpset } from "../../src/passes/index.ts";
import { randn } from "../support/arrays.ts";
import { as, difference, runGraph } from "../support/check.ts";

const named = (graph: Graph): string[] => graph.nodes.map(({ op }) => op.name);

for (const [name, activate] of Object.entries({ gelu, geluTanh }))
  test(`before opset 20, ${name} is drawn from others`, async () => {
    const x = input([40]);
    const graph = new Graph([["x", x]], [["y", activate(x)]]);
    const older = forOpset(graph, 18);
    assert.ok(named(graph).includes("Gelu") && !named(older).includes("Gelu"));
    assert.equal(forOpset(graph, 20), graph);
    const feeds = { x: as(randn([40]), "float32") };
    const [wanted, got] = [await runGraph(graph, feeds), await runGraph(older, feeds)];
    assert.ok(difference(got.y, wanted.y) < 1e-6);
  });
