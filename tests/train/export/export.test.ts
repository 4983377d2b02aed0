import assert from "node:assert/strict";
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import * as ort from "onnxruntime-node";
import { findModel } from "../../../src/backbones/index.ts";
import { createImage, type Dataset, decodeNode, openDataset, prepare, splitDataset } from "../../../src/data/index.ts";
import { writeOnnx } from "../../../src/graph/index.ts";
import { bindWeights, initialWeights } from "../../../src/nn/index.ts";
import { openNode } from "../../../src/runtime/node.ts";
import { Classifier } from "../../../src/tasks/index.ts";
import { loadCheckpoint, saveCheckpoint } from "../../../src/train/checkpoint/checkpoint.ts";
import { evaluateTransform, inferenceGraph } from "../../../src/train/checkpoint/model.ts";
import { encodeModelMetadata, readModelMetadata } from "../../../src/train/checkpoint/model-metadata.ts";
import { type EvaluateOptions, evaluate } from "../../../src/train/evaluate/evaluate.ts";
import { predict } from "../../../src/train/evaluate/predict.ts";
import { softmaxOf } from "../../../src/train/evaluate/tally.ts";
import { exportModel } from "../../../src/train/export/export.ts";
import { exportTrainStep } from "../../../src/train/export/export-step.ts";
import { openExported } from "../../../src/train/export/exported.ts";
import type { TrainEvent } from "../../../src/train/run/events.ts";
import { train } from "../../../src/train/run/train.ts";
import { fileSource } from "../../../src/weights/file-source.ts";
import { SafetensorsFile } from "../../../src/weights/safetensors.ts";
import { small, temporaryFolder, writePictures } from "../files.ts";

const home = temporaryFolder();
const data = join(home, "pictures");
const run = join(home, "run");
const best = join(run, "best.safetensors");
const losses: number[] = [];
let pictures: string[];

before(async () => {
  await writePictures(data);
  pictures = ["blue/0.png", "green/1.png", "red/2.png"].map((name) => join(data, name));
  await train(
    { ...small, data, val: 0.25, epochs: 5, out: run, lr: 2e-3, dropPath: 0.1, freeze: ["patch_embed"], ema: 0.5 },
    { onEvent: (event: TrainEvent) => event.type === "step" && losses.push(event.loss) },
  );
});

test("an answer that is no number is none", async () => {
  const { tensors, metadata } = await loadCheckpoint(best);
  for (const name of ["head.fc.bias", "ema.head.fc.bias"]) tensors.get(name)?.data.fill(Number.NaN);
  const broken = join(home, "broken.safetensors");
  await saveCheckpoint(broken, tensors, metadata);
  const said = { code: "non-finite", message: /answers with a logit of NaN \(at .*broken\.safetensors\)/ };
  await assert.rejects(evaluate(broken, data, { threads: 1, workers: 0 }), said);
  await assert.rejects(predict(broken, pictures, { threads: 1 }), said);
});

test("an exported model says how it is used", async () => {
  const { model, classes, preprocessing, input } = readModelMetadata(
    new Uint8Array(readFileSync(join(run, "model.onnx"))),
  );
  assert.deepEqual(
    [model, classes, input, preprocessing.imageSize],
    ["swin_micro_32", ["blue", "green", "red"], "float32", 16],
  );
  const licensed = await exportModel(best, join(home, "licensed.onnx"), { licence: "MIT" });
  const { files, difference, ...told } = licensed;
  assert.deepEqual(readModelMetadata(new Uint8Array(readFileSync(join(home, "licensed.onnx")))), told);
  assert.deepEqual(files, [join(home, "licensed.onnx")]);
  assert.ok(difference <= 1e-4);
});

test("what a page has trained opens as what was exported does", async () => {
  const { create, name, preprocessing } = await findModel("swin_micro_32");
  const model = new Classifier(create(), 3);
  const weights = initialWeights(model, 0);
  weights.get("head.fc.bias")!.set([0, 50, 0]);
  const description = { model: name, classes: ["a", "b", "c"], preprocessing };
  const graph = bindWeights(inferenceGraph(model, preprocessing.imageSize), model, weights);
  const runtime = await openNode();
  const made = await openExported(runtime, writeOnnx(graph, { metadata: encodeModelMetadata(description) }));
  assert.deepEqual([made.model, made.classes, made.preprocessing], [name, description.classes, preprocessing]);
  assert.equal((await made.predict(createImage(50, 40), { topk: 1 }))[0].label, "b");
  await runtime.close();
});

test("plain ONNX Runtime gives what predict gives", async () => {
  await assert.rejects(predict(best, pictures[0] as unknown as string[]), /the pictures are no list/);
  const own = await predict(best, pictures, { topk: 3, threads: 1 });
  assert.deepEqual(
    own.map((p) => p.top[0].label),
    ["blue", "green", "red"],
  );
  const session = await ort.InferenceSession.create(join(run, "model.onnx"));
  const { classes, preprocessing } = readModelMetadata(new Uint8Array(readFileSync(join(run, "model.onnx"))));
  const view = prepare(evaluateTransform(preprocessing));
  const all = new Float32Array(3 * 3 * 16 * 16);
  for (const [i, path] of pictures.entries())
    view.apply(await decodeNode(readFileSync(path), path), { seed: 0, epoch: 0, index: 0, copy: 0 }, all, i * 768);
  const { logits } = await session.run({ image: new ort.Tensor("float32", all, [3, 3, 16, 16]) });
  for (const [i, { top }] of own.entries()) {
    const probabilities = softmaxOf((logits.data as Float32Array).slice(i * 3, i * 3 + 3));
    for (const { label, probability } of top)
      assert.ok(Math.abs(probabilities[classes.indexOf(label)] - probability) < 1e-5);
  }
});

test("an exported model is fused, by default with standard operators alone", async () => {
  const holds = (name: string, text: string): boolean => readFileSync(join(home, name)).includes(text);
  await exportModel(best, join(home, "cpu.onnx"), { target: "webgpu" });
  await exportModel(best, join(home, "plain.onnx"));
  assert.deepEqual([holds("cpu.onnx", "BiasGelu"), holds("plain.onnx", "BiasGelu")], [true, false]);
  const [a, b] = await Promise.all(
    ["cpu.onnx", "plain.onnx"].map((name) => predict(join(home, name), pictures, { topk: 3, threads: 1 })),
  );
  for (const [i, { top }] of a.entries())
    for (const [k, { probability }] of top.entries()) assert.ok(Math.abs(b[i].top[k].probability - probability) < 1e-5);
});

test("an exported model that takes bytes gives the same", async () => {
  await exportModel(best, join(home, "bytes.onnx"), { input: "uint8" });
  const [a, b, c] = await Promise.all(
    [best, join(run, "model.onnx"), join(home, "bytes.onnx")].map((path) =>
      predict(path, pictures, { topk: 3, threads: 1 }),
    ),
  );
  for (const other of [b, c])
    for (const [i, { top }] of a.entries())
      for (const [k, { label, probability }] of top.entries()) {
        assert.equal(other[i].top[k].label, label);
        assert.ok(Math.abs(other[i].top[k].probability - probability) < 1e-5);
      }
});

test("a checkpoint and its export are judged alike, labels matched by name", async () => {
  const own = await evaluate(best, data, { threads: 1, workers: 0, all: true });
  assert.equal(own.total, 48);
  assert.ok(own.top1 >= 0.9);
  assert.deepEqual(
    own.classes.map((c) => c.total),
    [16, 16, 16],
  );
  const exported = await evaluate(join(run, "model.onnx"), data, { threads: 1, workers: 0, all: true });
  assert.deepEqual(exported.confusion, own.confusion);
  assert.ok(Math.abs(exported.loss - own.loss) < 1e-5);
});

test("of a run's own pictures those judge it that were set aside, unless all are asked for", async () => {
  const judged = async (source: string, pictures: string | Dataset, options: EvaluateOptions = {}) => {
    const warnings: string[] = [];
    const onEvent = (event: TrainEvent) => void (event.type === "warning" && warnings.push(event.message));
    const { total } = await evaluate(source, pictures, { threads: 1, workers: 0, onEvent, ...options });
    return { total, warnings: warnings.join() };
  };
  const some = splitDataset(await openDataset(data), { fraction: 0.25 }).val;
  const others = await writePictures(join(home, "others"), { count: 15 });
  for (const source of [best, join(run, "model.onnx")]) {
    const own = await judged(source, data);
    assert.equal(own.total, 12);
    assert.match(own.warnings, /learnt from 36 of these 48 pictures: .* by the 12 pictures that its run set aside/);
    const all = await judged(source, data, { all: true });
    assert.equal(all.total, 48);
    assert.match(all.warnings, /learnt from 36 of these 48 pictures: on others it will be right less often/);
  }
  assert.deepEqual(await judged(best, some), { total: 12, warnings: "" });
  assert.deepEqual(await judged(best, others), { total: 45, warnings: "" });
  const alike = await writePictures(join(home, "alike"), { seed: 7 });
  assert.deepEqual(await judged(best, alike), { total: 48, warnings: "" }, "others of the same names");
  const learnt = splitDataset(await openDataset(data), { fraction: 0.25 }).train;
  assert.match((await judged(best, learnt)).warnings, /learnt from 36 of these 36 pictures: on others/);
  const added = join(data, "blue", "added.png");
  copyFileSync(join(data, "blue", readdirSync(join(data, "blue"))[0]), added);
  const changed = await judged(best, data);
  rmSync(added);
  assert.equal(changed.total, 49);
  assert.match(changed.warnings, /have changed since the model learnt from them: all count/);
  const apart = join(home, "apart");
  await writePictures(join(apart, "train"));
  assert.equal((await judged(best, apart)).total, 12);
});

test("numbers and words that cannot be are refused", async () => {
  const file = join(home, "none.onnx");
  await assert.rejects(evaluate(best, data, { batch: Number.NaN }), /batch is NaN; it must be a whole number/);
  await assert.rejects(evaluate(best, data, { worst: -1 }), /worst is -1/);
  await assert.rejects(predict(best, pictures, { topk: 0, threads: 1 }), /topk is 0; it must be a whole number/);
  await assert.rejects(predict(best, [join(data, "blue")], { threads: 1 }), /this is a folder/);
  await assert.rejects(exportTrainStep(join(run, "config.json"), file, { batches: -1 }), /batches is -1/);
  const wrong = { input: "int8", output: "softmax", target: "ios", opset: 12 };
  for (const [key, value] of Object.entries(wrong))
    await assert.rejects(exportModel(best, file, { [key]: value }), new RegExp(`${key} is .*${value}.*\n.* are known`));
  assert.ok(!existsSync(file));
});

test("nothing is written over a checkpoint", async () => {
  const before = readFileSync(best);
  await assert.rejects(exportModel(best, best), /the file to write is .*best.safetensors[\s\S]*ends in .onnx/);
  const beside = best.replace("safetensors", "onnx");
  await assert.rejects(exportTrainStep(best, beside), /best.safetensors is there already, and is no exported step's/);
  await assert.rejects(exportTrainStep(best, join(run, "config.onnx")), /config.json is there already/);
  assert.ok(!existsSync(beside) && before.equals(readFileSync(best)));
});

test("an exported step wants batches of pictures that can be read", async () => {
  const broken = join(home, "broken");
  for (const name of ["a", "b"]) {
    mkdirSync(join(broken, name), { recursive: true });
    for (let i = 0; i < 2; i++) writeFileSync(join(broken, name, `${i}.png`), "no picture");
  }
  const told = { ...small, data: broken, val: 0.5, batch: 1 };
  writeFileSync(join(home, "broken.json"), JSON.stringify(told));
  await assert.rejects(
    exportTrainStep(join(home, "broken.json"), join(home, "broken-step.onnx"), { batches: 2 }),
    /none of the pictures|cannot be read/,
  );
});

test("the exported step, run by ONNX Runtime alone, gives the losses of the run", async () => {
  const file = join(home, "step.onnx");
  const described = await exportTrainStep(join(run, "config.json"), file, { batches: 20 });
  const sources = [
    await fileSource(join(home, described.files.state)),
    await fileSource(join(home, described.files.batches!)),
  ];
  const [state, batches] = await Promise.all(sources.map((source) => SafetensorsFile.open(source)));
  const session = await ort.InferenceSession.create(file);
  const feeds: Record<string, ort.Tensor> = {};
  for (const name of described.state)
    feeds[name] = new ort.Tensor("float32", await state.readFloat32(name), state.info(name).shape);
  assert.equal(losses.length, 20);
  for (const [i, { lr, step, seed }] of described.schedule.entries()) {
    feeds.image = new ort.Tensor("float32", await batches.readFloat32(`image.${i}`), batches.info(`image.${i}`).shape);
    feeds.target = new ort.Tensor(
      "int32",
      Int32Array.from(await batches.readFloat32(`target.${i}`)),
      batches.info(`target.${i}`).shape,
    );
    feeds.lr = new ort.Tensor("float32", [lr], []);
    feeds.step = new ort.Tensor("float32", [step], []);
    feeds.seed = new ort.Tensor("uint32", Uint32Array.of(seed), []);
    const out = await session.run(feeds);
    assert.ok(
      Math.abs(Number(out.loss.data[0]) - losses[i]) < 1e-3,
      `step ${step}: ${out.loss.data[0]} instead of ${losses[i]}`,
    );
    for (const name of described.state) feeds[name] = out[described.next + name];
  }
  await Promise.all(sources.map((source) => source.close?.()));
});
