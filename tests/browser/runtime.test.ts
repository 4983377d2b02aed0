import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Page } from "playwright-core";
import { findModel } from "../../src/backbones/index.ts";
import { writeOnnx } from "../../src/graph/onnx/write.ts";
import { bindWeights } from "../../src/nn/bind.ts";
import { initialWeights } from "../../src/nn/module.ts";
import { openNode } from "../../src/runtime/node.ts";
import type { WebDevice, WebOptions } from "../../src/runtime/web.ts";
import { Classifier } from "../../src/tasks/classify.ts";
import { inferenceGraph } from "../../src/train/model.ts";
import { knownGaps } from "../runtime/gaps.ts";
import { runtimeCases } from "../runtime/suite.ts";
import { trainingLosses } from "../runtime/training.ts";
import { chromiumPath, openTestPage, type TestPage } from "./chromium.ts";
import { learnFrom } from "./dropped.ts";
import type { Oriel } from "./page.ts";

declare const oriel: Oriel;

const skip = chromiumPath ? false : "no Chromium was found; install it, or name it in CHROMIUM";

describe("Chromium", { skip }, () => {
  let tests: TestPage;
  let page: Page;
  before(async () => {
    tests = await openTestPage({
      page: new URL("./page.js", import.meta.url),
      "in-worker": new URL("./in-worker.js", import.meta.url),
      "wasm-worker": new URL("../../src/runtime/wasm-worker.js", import.meta.url),
      "webgpu-worker": new URL("../../src/runtime/webgpu-worker.js", import.meta.url),
    });
    page = await visit("/");
  });
  after(() => tests?.close());

  async function visit(path: string): Promise<Page> {
    const page = await tests.visit(path);
    await page.waitForFunction("globalThis.oriel");
    return page;
  }

  for (const device of ["wasm", "webgpu"] as const satisfies readonly WebDevice[])
    describe(`runtime: ${device}`, () => {
      for (const { name } of runtimeCases)
        test(name, { skip: knownGaps[device]?.[name] }, async () => {
          const failed = await page.evaluate(([device, name]) => oriel.runCase(device, name), [device, name] as const);
          assert.equal(failed, undefined, failed);
        });
    });

  test("the page says what it can run, and on how many threads", async () => {
    const [wasm, webgpu] = await page.evaluate(() => oriel.devices());
    assert.deepEqual(wasm, { device: "wasm", usable: true });
    assert.match(webgpu.note ?? "", /in software/);
    const plain = await visit("/plain/");
    assert.match((await plain.evaluate(() => oriel.devices()))[0].note ?? "", /one thread/);
    assert.equal(await plain.evaluate(() => oriel.open({ device: "wasm" })), "wasm");
    await plain.close();
  });

  test("the engine's files are found where they are said to be, and missed in words", async () => {
    const open = (options: WebOptions): Promise<string> => page.evaluate((options) => oriel.open(options), options);
    assert.equal(await open({ device: "wasm", wasmPaths: "engine" }), "wasm");
    assert.match(await open({ device: "wasm", wasmPaths: "missing/" }), /cannot be used here[\s\S]*help: .*wasmPaths/);
    assert.equal(await open({ device: "auto" }), "wasm");
    assert.match(await open({ device: "cpu" as "wasm" }), /there is no device "cpu"/);
    const bare = await visit("/missing/");
    const without = await bare.evaluate(() => oriel.open({ device: "wasm" }));
    assert.match(without, /its script did not load[\s\S]*help: .*oriel\/wasm-worker/);
    await bare.close();
  });

  test("a worker of the page opens the engine as the page does", async () => {
    const opened = page.evaluate(
      () =>
        new Promise((done) => {
          const worker = new Worker("in-worker.js", { type: "module" });
          worker.addEventListener("message", ({ data }) => done(data));
          worker.postMessage({ device: "wasm", wasmPaths: "engine" });
        }),
    );
    assert.equal(await opened, "wasm");
  });

  for (const model of ["swin_micro_32", "cswin_micro_32"]) {
    test(`${model} learns in WebAssembly as it does in Node`, async () => {
      const expected = await nodeLosses(model, 20);
      const losses = await page.evaluate((model) => oriel.train("wasm", model, { steps: 20 }), model);
      close(losses, expected, 1e-4);
    });
    test(`${model} learns on WebGPU as it does in Node, and nothing falls back`, async () => {
      const expected = await nodeLosses(model, 3);
      const losses = await page.evaluate((model) => oriel.train("webgpu", model, { steps: 3, strict: true }), model);
      close(losses, expected, 1e-3);
    });
  }

  test("a dropped ONNX file is looked into by ranges, imported, and learns as in Node", async () => {
    const model = new Classifier((await findModel("swin_micro_32")).create(), 10);
    const file = writeOnnx(bindWeights(inferenceGraph(model, 32), model, initialWeights(model, 3)));
    const weight = "layers.1.downsample.reduction.weight";
    const runtime = await openNode();
    const expected = await learnFrom(runtime, new Blob([file]), weight);
    await runtime.close();
    const bytes = Buffer.from(file).toString("base64");
    const found = await page.evaluate(([bytes, weight]) => oriel.drop(bytes, "swin.onnx", weight), [
      bytes,
      weight,
    ] as const);
    assert.equal(found.tensors, expected.tensors);
    assert.equal(found.sum, expected.sum);
    assert.ok(found.read < 0.2, `${found.read} of the file was read`);
    assert.ok(found.losses[3] < 0.9 * found.losses[0], `${found.losses}`);
    close(found.losses, expected.losses, 1e-4);
  });
});

async function nodeLosses(model: string, steps: number): Promise<number[]> {
  const runtime = await openNode();
  const losses = await trainingLosses(runtime, model, { steps });
  await runtime.close();
  return losses;
}

function close(actual: readonly number[], expected: readonly number[], tolerance: number): void {
  assert.equal(actual.length, expected.length);
  for (const [i, loss] of expected.entries())
    assert.ok(Math.abs(actual[i] - loss) <= tolerance, `step ${i + 1}: ${actual[i]}, expected ${loss}`);
}
