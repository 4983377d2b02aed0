import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { Page } from "playwright-core";
import sharp from "sharp";
import { findModel } from "../../src/backbones/index.ts";
import { decodeNode } from "../../src/data/decode-node.ts";
import { writeOnnx } from "../../src/graph/onnx/write.ts";
import { bindWeights } from "../../src/nn/bind.ts";
import { initialWeights } from "../../src/nn/module.ts";
import { openNode } from "../../src/runtime/node.ts";
import type { WebDevice, WebOptions } from "../../src/runtime/web.ts";
import { Classifier } from "../../src/tasks/classify.ts";
import { inferenceGraph } from "../../src/train/checkpoint/model.ts";
import { predict } from "../../src/train/evaluate/predict.ts";
import { exportClassifier } from "../../src/train/export/export.ts";
import type { Likely } from "../../src/train/export/exported.ts";
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

  test("where WebAssembly is forbidden, what would allow it is said", async () => {
    const strict = await visit("/strict/");
    assert.match(await strict.evaluate(() => oriel.open({ device: "wasm" })), /help: .*'wasm-unsafe-eval'/);
    assert.match(await strict.evaluate(() => oriel.shrink()), /without WebAssembly[\s\S]*help: .*'wasm-unsafe-eval'/);
    await strict.close();
  });

  test("a family's file is all that a page fetches of the models", async () => {
    const bare = await visit("/plain/");
    assert.equal(await bare.evaluate(() => oriel.find("swin_micro_32")), "swin");
    const scripts = await bare.evaluate(() => oriel.scripts());
    assert.ok(scripts.some((name) => /\/swin-\w+\.js$/.test(name)));
    assert.ok(!scripts.some((name) => /\/(maxvit|volo|resnet)-\w+\.js$/.test(name)), scripts.join("\n"));
    assert.equal(await bare.evaluate(() => oriel.find("deit_tiny_patch16_224")), "vit");
    await bare.close();
  });

  test("a file behind an address comes with its progress, and what goes wrong is told", async () => {
    const fetched = (address: string) => page.evaluate((address) => oriel.fetched(address), address);
    const found = await fetched("page.js");
    assert.ok(typeof found !== "string" && found.length > 1000, JSON.stringify(found));
    assert.deepEqual(found.last, [found.length, found.length]);
    assert.match(String(await fetched("none.onnx")), /no such file \(at http.*none\.onnx\)/);
    const elsewhere = new URL("/page.js", page.url().replace("127.0.0.1", "localhost")).href;
    assert.match(String(await fetched(elsewhere)), /no answer[\s\S]*help: .*Access-Control-Allow-Origin/);
    assert.match(await page.evaluate(() => oriel.modelAt("/plain/")), /no ONNX model: it looks like a web page/);
  });

  test("pictures have the pixels that they have in Node, wherever a page has them from", async () => {
    const pictures = await madePictures();
    for (const [name, bytes] of Object.entries(pictures)) {
      const { data, ...size } = await decodeNode(bytes, name);
      const base64 = bytes.toString("base64");
      const kinds = name === "plain.png" ? (["file", "img", "canvas", "pixels"] as const) : (["file"] as const);
      for (const kind of kinds) {
        const found = await page.evaluate(([kind, bytes]) => oriel.read(kind, bytes), [kind, base64] as const);
        assert.ok(typeof found !== "string", `${name}: ${found}`);
        assert.deepEqual(
          { ...found, data: Buffer.from(found.data, "base64") },
          { ...size, data: Buffer.from(data) },
          `${name} as ${kind}`,
        );
      }
    }
    const text = Buffer.from("no picture").toString("base64");
    assert.match(
      String(await page.evaluate((text) => oriel.read("file", text), text)),
      /cannot read the picture: .*a\.png[\s\S]*help/,
    );
  });

  test("an exported model says of pictures what it says in Node, whatever it takes and gives", async () => {
    const folder = mkdtempSync(join(tmpdir(), "oriel-exported-"));
    try {
      const entry = await findModel("swin_micro_32");
      const model = new Classifier(entry.create(), 10);
      const trained = {
        description: { model: entry.name, classes: [..."abcdefghij"], preprocessing: entry.preprocessing },
        model,
        values: initialWeights(model, 3),
      };
      const pictures = await madePictures();
      const files = Object.entries(pictures).map(([name, bytes]) => {
        writeFileSync(join(folder, name), bytes);
        return join(folder, name);
      });
      for (const options of [{}, { input: "uint8", output: "probabilities" }] as const) {
        const file = join(folder, "model.onnx");
        await exportClassifier(trained, file, options);
        const expected = (await predict(file, files, { topk: 3 })).map(({ top }) => top);
        const bytes = readFileSync(file).toString("base64");
        const encoded = Object.values(pictures).map((picture) => picture.toString("base64"));
        const found = await page.evaluate(([bytes, files]) => oriel.classify(bytes, files), [bytes, encoded] as const);
        assert.deepEqual(labels(found), labels(expected));
        for (const [i, top] of expected.entries())
          close(
            found[i].map((one) => one.probability),
            top.map((one) => one.probability),
            1e-5,
          );
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test("a worker of the page opens the engine and reads pictures as the page does", async () => {
    const opened = page.evaluate(
      () =>
        new Promise((done) => {
          const worker = new Worker("in-worker.js", { type: "module" });
          worker.addEventListener("message", ({ data }) => done(data));
          worker.postMessage({ device: "wasm", wasmPaths: "engine" });
        }),
    );
    assert.equal(await opened, "wasm 255,255,255,255,255,255");
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

const labels = (answers: readonly Likely[][]) => answers.map((top) => top.map(({ label }) => label));

/** Of sizes that no model takes; turned by EXIF, with a colour profile, with transparency. */
async function madePictures(): Promise<Record<string, Buffer>> {
  const [width, height] = [61, 43];
  const values = Uint8Array.from({ length: width * height * 4 }, (_, i) => 128 + 120 * Math.sin(i * i * 0.0007));
  for (let i = 3; i < values.length; i += 4) values[i] = i % 3 === 0 ? 0 : 255;
  const clear = sharp(values, { raw: { width, height, channels: 4 } });
  const opaque = () => clear.clone().removeAlpha();
  return {
    "plain.png": await opaque().png().toBuffer(),
    "clear.png": await clear.png().toBuffer(),
    "wide-gamut.png": await opaque().png().withIccProfile("p3").toBuffer(),
    "turned.jpg": await opaque().jpeg().withMetadata({ orientation: 6 }).toBuffer(),
  };
}

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
