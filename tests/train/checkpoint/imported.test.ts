import assert from "node:assert/strict";
import { copyFileSync, existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { findModel } from "../../../src/backbones/index.ts";
import { Graph } from "../../../src/graph/graph.ts";
import { readModel } from "../../../src/graph/onnx/model.ts";
import { writeOnnx, writeOnnxParts } from "../../../src/graph/onnx/write.ts";
import { OpenDim } from "../../../src/graph/shape.ts";
import { input } from "../../../src/graph/tensor.ts";
import { bindWeights } from "../../../src/nn/bind.ts";
import { initialWeights, weightsOf } from "../../../src/nn/module.ts";
import { softmax } from "../../../src/ops/norm.ts";
import { Classifier } from "../../../src/tasks/classify.ts";
import { inferenceGraph } from "../../../src/train/checkpoint/model.ts";
import { readModelMetadata } from "../../../src/train/checkpoint/model-metadata.ts";
import { evaluate } from "../../../src/train/evaluate/evaluate.ts";
import { predict } from "../../../src/train/evaluate/predict.ts";
import { exportModel } from "../../../src/train/export/export.ts";
import { exportTrainStep } from "../../../src/train/export/export-step.ts";
import { train } from "../../../src/train/run/train.ts";
import { fileSource } from "../../../src/weights/file-source.ts";
import { SafetensorsFile } from "../../../src/weights/safetensors.ts";
import { temporaryFolder, writePictures } from "../files.ts";

const home = temporaryFolder();
const data = join(home, "pictures");
const quick = { data, val: 0.25, batch: 8, threads: 1, workers: 0, seed: 3 } as const;
const read = (path: string): Uint8Array<ArrayBuffer> => new Uint8Array(readFileSync(path));

/** A small residual network with its batch norms, as another tool might export it: a softmax at its end, no metadata. */
async function foreign({ classes = 10, batch = new OpenDim("batch") as OpenDim | number } = {}): Promise<Graph> {
  const { create } = await findModel("resnet20_cifar");
  const model = new Classifier(create(), classes);
  const image = input([batch, 3, 32, 32]);
  const [[, logits]] = [...inferenceGraph(model, 32).bind(new Map([["image", image]])).outputs];
  const weights = weightsOf(model).map((w): [string, typeof image] => [w.path, w.tensor]);
  return bindWeights(
    new Graph([["pixels", image], ...weights], [["scores", softmax(logits)]]),
    model,
    initialWeights(model, 1),
  );
}

before(async () => void (await writePictures(data, { side: 32 })));

test("a model of another tool is fine-tuned: its weights, a new head, and a run folder that needs no other file", async () => {
  const file = join(home, "some.onnx");
  writeFileSync(file, writeOnnx(await foreign()));
  const out = join(home, "run");
  const { top1 } = await train({ ...quick, model: file, out, epochs: 6, lr: 3e-3 });
  assert.ok(top1! >= 0.5, `${top1}`);
  assert.equal(JSON.parse(readFileSync(join(out, "config.json"), "utf8")).model, file);
  rmSync(file);

  const source = await fileSource(join(out, "best.safetensors"));
  const best = await SafetensorsFile.open(source);
  const original = weightsOf(await foreignModule(out));
  for (const { path } of original) assert.ok(best.has(path), path);
  assert.deepEqual(best.info("linear.weight").shape, [3, 64]);
  assert.ok(original.some((w) => w.kind === "buffer" && w.path.endsWith("running_mean")));
  await source.close?.();

  const own = await evaluate(join(out, "best.safetensors"), data, { threads: 1, workers: 0 });
  const exported = await evaluate(join(out, "model.onnx"), data, { threads: 1, workers: 0 });
  assert.deepEqual(own.confusion, exported.confusion);
  const [seen] = await predict(join(out, "best.safetensors"), [join(data, "red/0.png")], { threads: 1 });
  assert.equal(seen.top.length, 3);

  const more = await train({ ...quick, model: file, out, epochs: 7, lr: 3e-3, resume: true });
  assert.equal(more.epochs, 7);
});

async function foreignModule(folder: string) {
  const { OnnxModule } = await import("../../../src/nn/onnx-module.ts");
  const model = readModel(read(join(folder, "imported.onnx")));
  const [add] = model.graph.nodes.filter((node) => node.op === "Gemm");
  return new OnnxModule(model, { outputs: [add.inputs[0]] });
}

test("as many classes keep the head; one picture a batch is told how to be more", async () => {
  const file = join(home, "three.onnx");
  writeFileSync(file, writeOnnx(await foreign({ classes: 3, batch: 1 })));
  const { openImported, importedClassifier } = await import("../../../src/train/checkpoint/imported.ts");
  const imported = await openImported(file);
  const model = importedClassifier(imported, ["a", "b", "c"]);
  const { head } = { head: model.backbone.headName };
  assert.deepEqual(initialWeights(model, 0).get(`${head}.weight`), imported.backbone.found.weight);
  const other = importedClassifier(imported, ["a", "b"]);
  assert.equal(initialWeights(other, 0).get(`${head}.weight`)!.length, 2 * 64);
  // A fixed batch grows where the file's reshapes leave it in front.
  assert.deepEqual(inferenceGraph(model, 32).outputs.get("logits")!.shape, [new OpenDim("N"), 3]);
});

test("weights in a file beside the model go with it", async () => {
  const { model, data: parts } = writeOnnxParts(await foreign(), { location: "apart.onnx.data" });
  const file = join(home, "apart.onnx");
  writeFileSync(file, model);
  writeFileSync(`${file}.data`, Buffer.concat(parts));
  const out = join(home, "apart");
  await train({ ...quick, model: file, out, epochs: 1 });
  assert.ok(existsSync(join(out, "apart.onnx.data")));
  rmSync(file);
  rmSync(`${file}.data`);
  const { total } = await evaluate(join(out, "best.safetensors"), data, { threads: 1, workers: 0, all: true });
  assert.equal(total, 48);
  const moved = join(home, "moved");
  renameSync(out, moved);
  for (const from of ["config.json", "last.safetensors"]) {
    const { classes } = await exportTrainStep(join(moved, from), join(home, `${from}.step.onnx`));
    assert.equal(classes.length, 3);
  }
});

test("exports: probabilities of bytes, weights apart, older operators, a server's folder, a page", async () => {
  const best = join(home, "run/best.safetensors");
  const picture = join(data, "green/1.png");
  const [wanted] = await predict(best, [picture], { threads: 1 });
  const close = async (file: string): Promise<void> => {
    const [got] = await predict(file, [picture], { threads: 1 });
    assert.deepEqual(
      got.top.map((t) => t.label),
      wanted.top.map((t) => t.label),
    );
    for (const [i, { probability }] of got.top.entries())
      assert.ok(Math.abs(probability - wanted.top[i].probability) < 1e-4);
  };
  const file = join(home, "whole.onnx");
  await exportModel(best, file, { input: "uint8", output: "probabilities", source: "a test", opset: 18 });
  await close(file);
  const { source, output } = readModelMetadata(read(file));
  assert.deepEqual([source, output], ["a test", "probabilities"]);
  assert.equal(readModel(read(file)).opsets[""], 18);
  const x = input([1]);
  const garbled = writeOnnx(new Graph([["x", x]], [["y", x.add(1)]]), {
    name: "garbled",
    metadata: { model: "garbled", labels: "cat, dog", preprocessing: "{}" },
  });
  assert.throws(() => readModelMetadata(garbled), { code: "foreign", message: /has as labels is none/ });
  const steps = { imageSize: 32, cropPct: 1, interpolation: "bicubic", mean: [0, 0, 0], std: [1, 1, 1] };
  const spoilt: Record<string, object | string>[] = [
    { labels: {} },
    { preprocessing: "null" },
    { preprocessing: { ...steps, mean: 0 } },
    { preprocessing: { ...steps, input: "int4" } },
  ];
  for (const wrong of spoilt) {
    const told = { labels: ["cat"], preprocessing: steps, ...wrong };
    const metadata = {
      model: "garbled",
      ...Object.fromEntries(Object.entries(told).map(([k, v]) => [k, JSON.stringify(v)])),
    };
    const bytes = writeOnnx(new Graph([["x", x]], [["y", x.add(1)]]), { name: "garbled", metadata });
    const key = Object.keys(wrong)[0] === "labels" ? "labels" : "(preprocessing|input)";
    assert.throws(() => readModelMetadata(bytes), { code: "foreign", message: new RegExp(`has as ${key} is none`) });
  }

  const apart = await exportModel(best, join(home, "beside.onnx"), { externalData: true });
  assert.deepEqual(apart.files, [join(home, "beside.onnx"), join(home, "beside.onnx.data")]);
  assert.ok(readFileSync(apart.files[0]).length < readFileSync(apart.files[1]).length / 2);
  await close(apart.files[0]);
  // What one file holds is 2 GB; with less, the same happens to a small model.
  const [most, own] = [2 ** 20, readFileSync(file).length];
  const large = await exportModel(best, join(home, "large.onnx"), { maxBytes: most / 4 });
  assert.ok(own > most / 4 && own < 2 * most);
  assert.deepEqual([large.files.length, readFileSync(large.files[0]).length < most / 4], [2, true]);
  await close(large.files[0]);
  const { files: one } = await exportModel(best, join(home, "one.onnx"), { maxBytes: 2 * most });
  assert.equal(one.length, 1);

  const { files } = await exportModel(best, join(home, "server"), { target: "triton" });
  assert.deepEqual(
    files,
    ["1/model.onnx", "config.pbtxt", "labels.txt"].map((name) => join(home, "server", name)),
  );
  assert.match(readFileSync(files[1], "utf8"), /name: "server"[\s\S]*dims: \[ 3, 32, 32 \][\s\S]*dims: \[ 3 \]/);
  assert.equal(readFileSync(files[2], "utf8"), "blue\ngreen\nred\n");
  await exportModel(best, join(home, "page.onnx"), { target: "web" });
});

test("an export that answers otherwise fails, and leaves what was there", async () => {
  const best = join(home, "run/best.safetensors");
  const file = join(home, "kept.onnx");
  copyFileSync(join(home, "run/model.onnx"), file);
  const before = read(file);
  const { checkExport } = await import("../../../src/train/export/check-export.ts");
  const told = await exportModel(best, file, {});
  assert.ok(told.difference <= 1e-4);
  assert.deepEqual(read(file), before);
  const { openModel } = await import("../../../src/train/checkpoint/imported.ts");
  const model = await openModel(told, best);
  const values = initialWeights(model, 9);
  const plain = inferenceGraph(model, 32);
  await assert.rejects(checkExport(file, { plain, values, told }), /answers otherwise/);
});
