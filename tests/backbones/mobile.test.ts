import assert from "node:assert/strict";
import { after, test } from "node:test";
import { gradients } from "../../src/autodiff/gradients.ts";
import { parameterCount } from "../../src/backbones/cost.ts";
import { findModel } from "../../src/backbones/index.ts";
import { deepen, divisible } from "../../src/backbones/mobile.ts";
import * as mobilenetv2 from "../../src/backbones/mobilenetv2.ts";
import { UsageError } from "../../src/base/errors.ts";
import { input } from "../../src/graph/tensor.ts";
import { parametersOf } from "../../src/nn/module.ts";
import { Rng } from "../../src/nn/rng.ts";
import { trace } from "../../src/nn/trace.ts";
import { openNode } from "../../src/runtime/node.ts";
import { answersOf, assertMaps } from "./maps.ts";

const runtime = await openNode();
after(() => runtime.close());

test("MobileNetV2 with dynamic ReLU: parameters beside each norm, and a gradient for each", async () => {
  const entry = await findModel("mobilenetv2_micro_32");
  const plain = parameterCount(entry.create({ activation: "relu" }));
  assert.equal(plain, parameterCount(entry.create()));
  const image = input([2, 3, 32, 32]);
  for (const [activation, each] of [
    ["dynamic-relu-a", () => 1],
    ["dynamic-relu-b", (channels: number) => channels],
  ] as const) {
    const model = entry.create({ activation });
    // The channels of every norm that an activation follows: stem, blocks (inner ones twice), head.
    const channels = [16, 16, 48, 48, 72, 72, 72, 72, 96, 96, 128];
    const added = channels.map((c) => (c + 1) * (c / 4) + (c / 4 + 1) * 4 * each(c)).reduce((a, b) => a + b);
    assert.equal(parameterCount(model) - plain, added);
    const parameters = parametersOf(model).map((w) => w.tensor);
    const found = trace(model, { training: true }, () => gradients(model.embed(image).mean(), parameters)).result;
    assert.deepEqual(
      found.map((g) => g.shape),
      parameters.map((p) => p.shape),
    );
  }
  assert.throws(
    () => entry.create({ activation: "tanh" }),
    (error) => error instanceof UsageError && /relu6 or relu or dynamic-relu-a/.test(error.message),
  );
});

test("channels are rounded and stages deepened as published", () => {
  assert.deepEqual(
    [0.35 * 16, 0.75 * 24, 1.4 * 96, 12].map((c) => divisible(c)),
    [8, 24, 136, 16],
  );
  const [stage] = deepen([[1, 1, 2].map((repeats) => ({ block: "inverted", kernel: 3, channels: 80, repeats }))], 1.2);
  assert.equal(
    stage.reduce((sum, { repeats = 1 }) => sum + repeats, 0),
    5,
  );
});

test("stochastic depth grows by the block and stays one step below the rate", () => {
  // timm 1.0.31, drop_path_rate=0.3: every block of mobilenetv2_100 that has a shortcut.
  const published = [0.03529, 0.07059, 0.08824, 0.12353, 0.14118, 0.15882, 0.19412, 0.21176, 0.24706, 0.26471];
  const rates: number[] = [];
  class Watched extends Rng {
    override bernoulli(keep: number, shape: readonly number[]) {
      rates.push(1 - keep);
      return super.bernoulli(keep, shape);
    }
  }
  const model = mobilenetv2.create(mobilenetv2.variants.mobilenetv2_100.config, { dropPath: 0.3 });
  trace(model, { training: true, rng: new Watched(input([], "uint32")) }, () => model.forward(input([2, 3, 64, 64])));
  assert.equal(rates.length, published.length);
  for (const [i, rate] of rates.entries()) assert.ok(Math.abs(rate - published[i]) < 1e-5, `${rate}, ${published[i]}`);
});

test("FBNet-C divides by deviations as its published weights learned to", async () => {
  // timm 1.0.31 in float64: fbnetc_100(bn_eps=1e-3), which is what it makes with pretrained=True.
  const model = (await findModel("fbnetc_100")).create({ imageSize: 64 });
  assertMaps(await answersOf(runtime, model, [1, 3, 64, 64], (image) => [model.embed(image)]), [
    [
      [1, 1984],
      [8.519744532881612, 7.871369323105971],
    ],
  ]);
});
