import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gradients } from "../../src/autodiff/gradients.ts";
import { OrielError, UsageError } from "../../src/base/errors.ts";
import { Graph } from "../../src/graph/graph.ts";
import { OpenDim } from "../../src/graph/shape.ts";
import { input, type Tensor } from "../../src/graph/tensor.ts";
import { waitFor } from "../../src/ops/move.ts";
import { softmax } from "../../src/ops/norm.ts";
import { cost } from "../../src/passes/cost.ts";
import { memoryUse } from "../../src/passes/memory.ts";
import { recompute } from "../../src/passes/recompute.ts";
import { simplify } from "../../src/passes/simplify.ts";
import { array, numbers, randn } from "../support/arrays.ts";
import { as, runGraph } from "../support/check.ts";
import { openStep, record } from "./step.ts";

const repeated = (graph: Graph): number => graph.nodes.filter(({ scope }) => scope.startsWith("again:")).length;

/** A budget that leaves a share of what lies between what is fed and the peak. */
function budgetOf(graph: Graph, share: number): number {
  const { peak, held } = memoryUse(graph);
  return held + share * (peak - held);
}

const models = [
  { model: "swin_micro_32", batch: 16, share: 0.75 },
  { model: "cswin_micro_32", batch: 32, share: 0.85 },
  { model: "resnet20_cifar", batch: 16, share: 0.85 },
] as const;

for (const { model, batch, share } of models)
  test(`${model} in ${share} of its memory: the same bits, and the engine takes less`, async () => {
    const { graph, feeds } = await openStep(model, { batch });
    const budget = budgetOf(graph, share);
    const small = recompute(graph, { budget });
    assert.ok(memoryUse(small).peak <= budget);
    assert.ok(repeated(small) > 0);
    const [wanted, got] = [await runGraph(graph, feeds), await runGraph(small, feeds)];
    assert.deepEqual(Object.keys(got), Object.keys(wanted));
    for (const [name, { data }] of Object.entries(wanted)) assert.deepEqual(got[name].data, data, name);

    const [before, after] = [await record(graph, feeds), await record(small, feeds)];
    assert.ok(after.peak < ((1 + share) / 2) * before.peak, `${after.peak} of ${before.peak} bytes`);
  });

test("repetitions outlive the engine's merging of equal nodes, and ours", async () => {
  const { graph, feeds } = await openStep("swin_micro_32", { batch: 16 });
  const budget = budgetOf(graph, 0.75);
  const small = recompute(graph, { budget });
  const products = (names: Iterable<string>): number =>
    [...names].filter((name) => name.includes("again:") && /Gelu|LayerNorm|Softmax|Gemm/.test(name)).length;
  const drawn = products(small.nodes.map(({ op, scope }) => `${scope}/${op.name}`));
  assert.ok(drawn > 0);
  assert.equal(products((await record(small, feeds)).names), drawn);
  const simple = simplify(small);
  assert.equal(products(simple.nodes.map(({ op, scope }) => `${scope}/${op.name}`)), drawn);
  assert.ok(memoryUse(simple).peak <= budget);
});

test("what is enough changes nothing, what is too little says what the least is", async () => {
  const { graph } = await openStep("swin_micro_32", { batch: 32 });
  assert.equal(recompute(graph, { budget: memoryUse(graph).peak }), graph);
  let least = 0;
  assert.throws(
    () => recompute(graph, { budget: 1e6 }),
    (error) => {
      assert.ok(error instanceof OrielError);
      least = Number(/needs at least (\d+) MB of memory, the budget is 1 MB/.exec(error.message)?.[1]) * 1e6;
      return /accumulate/.test(error.message);
    },
  );
  const smallest = recompute(graph, { budget: least });
  assert.ok(memoryUse(smallest).peak <= least);
  // At most the forward pass again, which is a third of a step.
  const ratio = cost(smallest).products / cost(graph).products;
  assert.ok(ratio > 1.05 && ratio < 1.34, `${ratio} times the multiply-adds`);
  assert.throws(() => recompute(graph, { budget: 1, loss: "cost" }), UsageError);
});

test("light work is repeated before products are", async () => {
  const { graph } = await openStep("vit_tiny_patch16_224", { batch: 4 });
  const lighter = recompute(graph, { budget: budgetOf(graph, 0.8) });
  assert.equal(cost(lighter).products, cost(graph).products);
});

test("a batch in parts takes the memory of a part", async () => {
  const [whole, parts] = [
    await openStep("swin_micro_32", { batch: 32 }),
    await openStep("swin_micro_32", { batch: 32, accumulate: 4 }),
  ];
  const between = ({ graph }: { graph: Graph }): number => memoryUse(graph).peak - memoryUse(graph).held;
  assert.ok(between(parts) < 0.5 * between(whole));
  const [a, b] = [await record(whole.graph, whole.feeds), await record(parts.graph, parts.feeds)];
  assert.ok(b.peak < 0.5 * a.peak, `${b.peak} of ${a.peak} bytes`);
});

test("a budget a little below what is needed is told apart from it", () => {
  const x = input([300_000]);
  const loss = x.exp().square().sum();
  const [dx] = gradients(loss, [x]);
  const graph = new Graph([["x", x]], Object.entries({ loss, dx }));
  assert.throws(() => recompute(graph, { budget: 4.7e6 }), /at least 4\.9 MB of memory, the budget is 4\.7 MB/);
  assert.throws(
    () => recompute(graph, { budget: 4.8e6 }),
    /at least 4\.800004 MB of memory, the budget is 4\.800000 MB/,
  );
});

test("a batch of any size is repeated for, too", async () => {
  const x = input([new OpenDim("N"), 64]);
  const ws = Array.from({ length: 6 }, () => input([64, 64]));
  const loss = ws
    .reduce((y, w) => softmax(y.matmul(w)).exp(), x)
    .square()
    .sum();
  const named = ws.map((w, i): [string, Tensor] => [`w${i}`, w]);
  const outputs = gradients(loss, ws).map((dw, i): [string, Tensor] => [`dw${i}`, dw]);
  const graph = new Graph([["x", x], ...named], [["loss", loss], ...outputs]);
  assert.throws(() => recompute(graph, { budget: 1 }), /at least/);
});

test("a batch in parts, and a budget for each", async () => {
  const plain = await openStep("swin_micro_32", { batch: 16, accumulate: 2 });
  const memoryBudget = budgetOf(plain.graph, 0.8);
  const small = await openStep("swin_micro_32", { batch: 16, accumulate: 2, memoryBudget });
  assert.ok(memoryUse(small.graph).peak <= memoryBudget);
  const [wanted, got] = [await runGraph(plain.graph, plain.feeds), await runGraph(small.graph, small.feeds)];
  for (const [name, { data }] of Object.entries(wanted)) assert.deepEqual(got[name].data, data, name);
});

test("a graph drawn by hand: what is kept, and what is made twice", async () => {
  // Six layers of softmax: the gradient of each reads its result.
  const [x, w] = [input([64, 256]), input([64, 256])];
  let y: Tensor = x.mul(w);
  for (let i = 0; i < 6; i++) y = softmax(y.mul(3));
  const loss = y.square().sum();
  const [dw] = gradients(loss, [w]);
  const graph = new Graph(
    [
      ["x", x],
      ["w", w],
    ],
    [
      ["loss", loss],
      ["dw", dw],
    ],
  );
  const budget = memoryUse(graph).peak - 2 * 64 * 256 * 4;
  const small = recompute(graph, { budget });
  assert.ok(memoryUse(small).peak <= budget);
  const feeds = { x: as(randn([64, 256]), "float32"), w: as(randn([64, 256]), "float32") };
  const [wanted, got] = [await runGraph(graph, feeds), await runGraph(small, feeds)];
  assert.deepEqual(got.dw.data, wanted.dw.data);
});

describe("waiting", () => {
  test("is not merged away, and lets values through whatever the gate is", async () => {
    const [x, gate] = [input([2, 3]), input([4])];
    const graph = new Graph(
      [
        ["x", x],
        ["gate", gate],
      ],
      [["y", x.exp().add(waitFor(x, gate).exp())]],
    );
    const feeds = { x: as(randn([2, 3]), "float32") };
    const twice = numbers(feeds.x).map((value) => 2 * Math.exp(value));
    for (const drawn of [graph, simplify(graph)])
      for (const value of [0, Number.NaN, Infinity, -Infinity]) {
        const filled = array([4], [value, 1, 2, 3], "float32");
        const { names } = await record(drawn, { ...feeds, gate: filled });
        assert.equal(names.filter((name) => name.includes("Exp")).length, 2);
        const { y } = await runGraph(drawn, { ...feeds, gate: filled });
        numbers(y).forEach((got, i) => void assert.ok(Math.abs(got - twice[i]) < 1e-5 * twice[i]));
      }
  });
});

test("a process that trains in a budget stays small", async () => {
  const execute = promisify(execFile);
  const program = fileURLToPath(new URL("./step-program.js", import.meta.url));
  const [model, batch] = ["vit_tiny_patch16_224", 16];
  const { graph } = await openStep(model, { batch });
  const { peak } = memoryUse(graph);
  const budget = budgetOf(graph, 0.55);
  const run = async (...words: string[]): Promise<{ peak: number; losses: number[] }> =>
    JSON.parse((await execute(process.execPath, [program, model, String(batch), ...words])).stdout);
  const [plain, small] = [await run(), await run(String(budget))];
  assert.deepEqual(small.losses, plain.losses);
  // Half of what the estimate promises, at least.
  const saved = `${((plain.peak - small.peak) / 1e6).toFixed(0)} of ${((peak - budget) / 1e6).toFixed(0)} MB saved`;
  assert.ok(plain.peak - small.peak > (peak - budget) / 2, saved);
});
