import assert from "node:assert/strict";
import { test } from "node:test";
import { gradients } from "../../src/autodiff/gradients.ts";
import { Graph } from "../../src/graph/graph.ts";
import { input } from "../../src/graph/tensor.ts";
import { GlobalResponseNorm } from "../../src/nn/index.ts";
import { numbers, randn } from "../support/arrays.ts";
import { as, difference, runGraph } from "../support/check.ts";

test("global response norm, as its paper's loop; a channel that is zero everywhere has a gradient", async () => {
  const [batch, places, channels] = [2, 6, 4];
  const norm = new GlobalResponseNorm(channels);
  const x = input([batch, 2, 3, channels]);
  const y = norm.forward(x);
  const [dx] = gradients(y.mul(y).sum(), [x]);
  const graph = new Graph(
    [
      ["x", x],
      ["weight", norm.weight],
      ["bias", norm.bias],
    ],
    [
      ["y", y],
      ["dx", dx],
    ],
  );
  const feeds = { x: as(randn([batch, 2, 3, channels]), "float32"), weight: as(randn([channels]), "float32") };
  for (let i = 1; i < batch * places * channels; i += channels) feeds.x.data[i] = 0;
  const bias = as(randn([channels]), "float32");
  const answers = await runGraph(graph, { ...feeds, bias });

  const [values, weight, shift] = [feeds.x, feeds.weight, bias].map(numbers);
  const wanted = new Float32Array(values.length);
  for (let n = 0; n < batch; n++) {
    const at = (p: number, c: number): number => (n * places + p) * channels + c;
    const norms = Array.from({ length: channels }, (_, c) =>
      Math.hypot(...Array.from({ length: places }, (_, p) => values[at(p, c)])),
    );
    const mean = norms.reduce((a, b) => a + b) / channels;
    for (let p = 0; p < places; p++)
      for (let c = 0; c < channels; c++) {
        const i = at(p, c);
        wanted[i] = weight[c] * values[i] * (norms[c] / (mean + 1e-6)) + shift[c] + values[i];
      }
  }
  assert.ok(difference(answers.y, { ...answers.y, data: wanted }) < 1e-5);
  assert.ok(numbers(answers.dx).every(Number.isFinite));
});
