import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { findModel } from "../../src/backbones/index.ts";
import { toTheirs } from "../../src/backbones/names.ts";
import { initialWeights, weightsOf } from "../../src/nn/module.ts";
import { Classifier } from "../../src/tasks/classify.ts";
import { readModelMetadata } from "../../src/train/checkpoint/model-metadata.ts";
import { type StoredTensor, saveSafetensors } from "../../src/weights/index.ts";
import { classFolders, json, oriel, quick, refused, temporaryFolder } from "./helpers.ts";

// Weights under someone else's names, for other classes and another image, trained on.

const folder = temporaryFolder();
const model = "swin_micro_32";

/** Writes random weights of the model as transformers would name them, or only some of them. */
async function writeWeights(file: string, only: (path: string) => boolean = () => true): Promise<void> {
  const entry = await findModel(model);
  const classifier = new Classifier(entry.create(), 10);
  const values = initialWeights(classifier, 0);
  const tensors = weightsOf(classifier)
    .filter((w) => only(w.path))
    .flatMap(({ path, tensor }) => {
      const names = toTheirs(path, entry.names.transformers);
      const [rows, ...rest] = tensor.shape as number[];
      const bytes = new Uint8Array(values.get(path)!.buffer);
      const size = bytes.length / names.length;
      return names.map((name, i): [string, StoredTensor] => [
        name,
        { dtype: "F32", shape: [rows / names.length, ...rest], data: bytes.slice(i * size, (i + 1) * size) },
      ]);
    });
  await saveSafetensors(join(folder, file), tensors, { format: "pt", license: "MIT", source: "a test" });
}

before(async () => {
  await classFolders(join(folder, "pictures"), 8);
  await writeWeights("theirs.safetensors");
});

const trains = (out: string, weights: string): string[] => [
  ...["train", "pictures", ...quick, "--model", model, "--image-size", "16", "--out", out, "--weights", weights],
];

test("train --weights: adapts them, tells what became of them, and trains on", async () => {
  const { status, stdout, stderr } = await oriel(folder, ...trains("run", "theirs.safetensors"), "--json");
  assert.equal(status, 0, stderr);
  const { epochs, weights } = JSON.parse(stdout.trim().split("\n").at(-1)!);
  assert.equal(epochs, 1);
  assert.equal(weights.from, "theirs.safetensors");
  assert.equal(weights.convention, "transformers");
  assert.ok(weights.share > 0.99 && weights.share < 1);
  assert.deepEqual(
    weights.rows.filter((row: { status: string }) => row.status !== "loaded").map((row: object) => Object.values(row)),
    [
      ["resized", "layers.2.blocks.0-3.attn.relative_position_bias_table", 4, 4 * 9 * 4, "[49, 4] to [9, 4]"],
      ["reset", "head.fc.weight", 1, 3 * 128, "other classes, [10, 128] to [3, 128]"],
      ["reset", "head.fc.bias", 1, 3, "other classes, [10] to [3]"],
    ],
  );
  assert.equal(weights.totals.reset, 3 * 128 + 3);
  assert.match(
    stderr,
    /weights from theirs\.safetensors \(transformers names\), parameters: 961\.\d\d k loaded, 144 resized, 387 reset/,
  );
  assert.match(
    stderr,
    /resized +layers\.2\.blocks\.0-3\.attn\.relative_position_bias_table +4 +144 +\[49, 4\] to \[9, 4\]/,
  );
  assert.doesNotMatch(stderr, /warning/);
  const { licence, source } = JSON.parse(readFileSync(join(folder, "run/config.json"), "utf8"));
  assert.deepEqual({ licence, source }, { licence: "MIT", source: "a test" });
  const exported = readModelMetadata(new Uint8Array(readFileSync(join(folder, "run/model.onnx"))));
  assert.deepEqual([exported.licence, exported.source], ["MIT", "a test"]);
});

test("train --weights: a warning where little is for the model, an error where nothing is", async () => {
  await writeWeights("stem.safetensors", (path) => path.startsWith("patch_embed"));
  const { status, stderr } = await oriel(folder, ...trains("few", "stem.safetensors"));
  assert.equal(status, 0, stderr);
  assert.match(stderr, /warning: less than half of the model comes from these weights/);
  await refused(
    folder,
    [...trains("none", "run/best.safetensors"), "--model", "resnet20_cifar"],
    1,
    /none of the \d+ tensors in the file is one of resnet20_cifar/,
    /conv1\.weight \[16,3,3,3\] is missing; nearest: /,
  );
});

test("info --names: the weights as others name them", async () => {
  type Listed = { names: string; weights: { name: string; shape: number[] }[] };
  const { names, weights } = await json<Listed>(folder, "info", model, "--classes", "10", "--names", "transformers");
  assert.equal(names, "transformers");
  assert.deepEqual(weights[0], { name: "swin.embeddings.patch_embeddings.projection.weight", shape: [32, 3, 2, 2] });
  assert.deepEqual(weights.at(-1), { name: "classifier.bias", shape: [10] });
  const own = await json<Listed>(folder, "info", "resnet20_cifar", "--names", "timm");
  assert.ok(own.weights.some(({ name, shape }) => name === "bn1.num_batches_tracked" && shape.length === 0));
  const { stdout } = await oriel(folder, "info", "cswin_micro_32", "--names", "official");
  assert.match(stdout, /stage1\.0\.attns\.0\.get_v\.weight +\[16, 1, 3, 3\]/);
  await refused(folder, ["info", "cswin_micro_32", "--names", "transformers"], 2, /no names of .*transformers/);
});
