import assert from "node:assert/strict";
import { test } from "node:test";
import { Graph } from "../../src/graph/graph.ts";
import { input, type Tensor } from "../../src/graph/tensor.ts";
import { Rng } from "../../src/nn/rng.ts";
import type { HostTensor } from "../../src/runtime/runtime.ts";
import { numbers, range } from "../support/arrays.ts";
import { runGraph } from "../support/check.ts";

const [draws, size] = [8, 4096];

/** The draws of a step, of mean 0 and variance 1. */
async function sample(step: number): Promise<Float64Array[]> {
  const seed = input([], "uint32");
  const rng = new Rng(seed);
  const graph = new Graph(
    [["seed", seed]],
    range(draws).map((d) => [`${d}`, rng.uniform([size])]),
  );
  const found = await runGraph(graph, { seed: { dtype: "uint32", shape: [], data: Uint32Array.of(step) } });
  return range(draws).map((d) => Float64Array.from(numbers(found[d]), (u) => (u - 0.5) * Math.sqrt(12)));
}

/** How far the products of a's numbers with b's, `lag` places on, are from 0 on average, in standard deviations. */
function relation(a: Float64Array, b: Float64Array, lag = 0): number {
  let sum = 0;
  for (let i = 0; i + lag < size; i++) sum += a[i] * b[i + lag];
  return sum / Math.sqrt(size - lag);
}

test("numbers of a draw, draws of a step and steps have nothing to do with each other; a seed gives the same again", async () => {
  const [one, two] = [await sample(1), await sample(2)];
  assert.deepEqual(await sample(1), one);
  const all = [...one, ...two];
  const relations = all.flatMap((a, i) => [
    ...[1, 2, 3, 7, 14, 64, 196].map((lag) => relation(a, a, lag)),
    ...all.slice(0, i).flatMap((b) => [0, 1, 2].map((lag) => relation(a, b, lag))),
  ]);
  assert.ok(Math.max(...relations.map(Math.abs)) < 4.5, `one of ${Math.max(...relations.map(Math.abs))}`);
  const mean = relations.reduce((sum, r) => sum + r * r, 0) / relations.length;
  assert.ok(mean < 1.2, `their mean square is ${mean}`);
  for (const a of all) {
    assert.ok(Math.abs(a.reduce((sum, x) => sum + x, 0)) < 4 * Math.sqrt(size));
    assert.ok(Math.abs(relation(a, a) / Math.sqrt(size) - 1) < 0.06);
  }
});

test("parts of a batch draw what the whole batch does", async () => {
  const [seed, part] = [input([], "uint32"), input([], "uint32")];
  const draws = async (rows: number, at?: number): Promise<number[][]> => {
    const rng = new Rng(seed, at === undefined ? undefined : part);
    const inputs: [string, Tensor][] = [
      ["seed", seed],
      ...(at === undefined ? [] : [["part", part] as [string, Tensor]]),
    ];
    const graph = new Graph(inputs, [
      ["a", rng.uniform([rows, 5])],
      ["b", rng.uniform([rows, 1, 1])],
    ]);
    const given = (value: number): HostTensor => ({ dtype: "uint32", shape: [], data: Uint32Array.of(value) });
    const found = await runGraph(graph, { seed: given(9), ...(at === undefined ? {} : { part: given(at) }) });
    return ["a", "b"].map((name) => [...numbers(found[name])]);
  };
  const [whole, parts] = [await draws(6), await Promise.all([0, 1, 2].map((at) => draws(2, at)))];
  for (const k of [0, 1])
    assert.deepEqual(
      parts.flatMap((part) => part[k]),
      whole[k],
    );
});
