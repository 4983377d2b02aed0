import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { findModel } from "../../../src/backbones/index.ts";
import { initialWeights, weightsOf } from "../../../src/nn/module.ts";
import { loadCheckpoint, saveCheckpoint } from "../../../src/train/checkpoint/checkpoint.ts";
import { loadWeights } from "../../../src/train/checkpoint/load-weights.ts";
import { createModel, type ModelDescription } from "../../../src/train/checkpoint/model.ts";
import { evaluate } from "../../../src/train/evaluate/evaluate.ts";
import type { Tensors } from "../../../src/train/step/state.ts";
import { saveSafetensors } from "../../../src/weights/save-safetensors.ts";
import type { StoredTensor } from "../../../src/weights/stored.ts";
import { rejection, sharedFile, temporaryFolder } from "../files.ts";

const home = temporaryFolder();

async function description(model: string, classes: readonly string[] = ["a", "b", "c"]): Promise<ModelDescription> {
  return { model, classes, preprocessing: (await findModel(model)).preprocessing };
}

async function initial(of: ModelDescription): Promise<Tensors> {
  const model = await createModel(of);
  const values = initialWeights(model, 1);
  return new Map(
    weightsOf(model).map((w) => [w.path, { shape: w.tensor.shape as number[], data: values.get(w.path)! }]),
  );
}

const progress = { epoch: 1, stepInEpoch: 2, lossInEpoch: 1.5, accuracyInEpoch: 0.75, step: 12 };
const saved = join(home, "swin.safetensors");
const swin = description("swin_micro_32");
const ready = (async () =>
  saveCheckpoint(saved, await initial(await swin), {
    ...(await swin),
    config: { epochs: 3, out: "here", workers: 7 },
    progress,
  }))();

test("a checkpoint comes back as it was saved, but for where it was made", async () => {
  await ready;
  const { metadata, tensors } = await loadCheckpoint(saved);
  const { model, classes, preprocessing } = await swin;
  assert.deepEqual(
    { ...metadata, version: "" },
    { model, classes, preprocessing, version: "", config: { epochs: 3 }, progress },
  );
  assert.deepEqual(tensors, await initial(await swin));
});

test("a truncated file, a foreign one and none are refused by a sentence", async () => {
  await ready;
  const bytes = readFileSync(saved);
  const cut = join(home, "cut.safetensors");
  writeFileSync(cut, bytes.subarray(0, bytes.length - 1000));
  assert.match((await rejection(loadCheckpoint(cut))).message, /truncated: expected at least \d+ bytes, found \d+/);
  writeFileSync(cut, "");
  assert.match((await rejection(loadCheckpoint(cut))).message, /empty|truncated/);
  const picture = join(home, "picture.safetensors");
  writeFileSync(picture, Buffer.from("89504e470d0a1a0a0000000d49484452", "hex"));
  assert.match((await rejection(loadCheckpoint(picture))).message, /it looks like a PNG picture/);
  const plain = join(home, "plain.safetensors");
  await saveSafetensors(plain, [["w", { dtype: "F32", shape: [1], data: new Uint8Array(4) }]]);
  assert.match((await rejection(loadCheckpoint(plain))).message, /no Oriel run wrote it/);
  assert.equal((await rejection(loadCheckpoint(join(home, "none")))).code, "not-found");
});

test("a checkpoint of another model is refused with every difference", async () => {
  await ready;
  const model = await createModel(await description("resnet20_cifar"));
  const error = await rejection(loadWeights(saved, model, { name: "resnet20_cifar" }));
  assert.equal(error.code, "mismatch");
  assert.match(error.message, /differ from those of resnet20_cifar; the file says it holds swin_micro_32/);
  const own = weightsOf(model).filter((w) => !w.path.startsWith(`${model.backbone.headName}.`)).length;
  const theirs = (await initial(await swin)).size;
  assert.ok(error.facts.details!.length >= own + theirs - 2);
  assert.ok(error.facts.details!.includes("conv1.weight [16,3,3,3] is not in the file"));
});

test("wrong shapes are told with both", async () => {
  const tensors = new Map(await initial(await swin));
  tensors.set("norm.weight", { shape: [7], data: new Float32Array(7) });
  const path = join(home, "shape.safetensors");
  await saveCheckpoint(path, tensors, { ...(await swin), config: {}, progress });
  const error = await rejection(loadWeights(path, await createModel(await swin), { name: "swin_micro_32" }));
  assert.deepEqual(error.facts.details, ["norm.weight is [128] in the model, [7] in the file"]);
});

test("a classifier for other classes starts afresh, and that is told", async () => {
  await ready;
  const five = await description("swin_micro_32", ["a", "b", "c", "d", "e"]);
  const { values, reset } = await loadWeights(saved, await createModel(five), {
    name: five.model,
    classes: five.classes,
  });
  assert.deepEqual(reset, ["head.fc.weight", "head.fc.bias"]);
  assert.equal(values.size, (await initial(five)).size - 2);
  // As many classes, but others: their logits would mean something else.
  const renamed = await loadWeights(saved, await createModel(await swin), {
    name: five.model,
    classes: ["x", "y", "z"],
  });
  assert.equal(renamed.reset.length, 2);
  const same = await loadWeights(saved, await createModel(await swin), { name: five.model, classes: ["a", "b", "c"] });
  assert.equal(same.reset.length, 0);
});

test("all classifiers of a model start afresh together", async () => {
  const path = join(home, "volo.safetensors");
  const three = await description("volo_micro_32");
  await saveCheckpoint(path, await initial(three), { ...three, config: {}, progress });
  const two = await description("volo_micro_32", ["a", "b"]);
  const { reset } = await loadWeights(path, await createModel(two), { name: two.model, classes: two.classes });
  assert.deepEqual(reset, ["head.weight", "head.bias", "aux_head.weight", "aux_head.bias"]);
});

test("plain weights load by their names; a moving average goes before its parameter", async () => {
  const tensors = await initial(await swin);
  const stored = (data: Float32Array, shape: readonly number[]): StoredTensor => ({
    dtype: "F32",
    shape,
    data: new Uint8Array(data.buffer),
  });
  const plain = join(home, "weights.safetensors");
  await saveSafetensors(plain, [
    ...[...tensors].map(([name, t]) => [name, stored(t.data, t.shape)] as const),
    ["layers.0.blocks.0.attn.relative_position_index", stored(new Float32Array(4), [4])],
  ]);
  const { values } = await loadWeights(plain, await createModel(await swin), { name: "swin_micro_32" });
  assert.deepEqual(values.get("norm.weight"), tensors.get("norm.weight")!.data);
  const averaged = new Map([
    ...tensors,
    ["ema.norm.weight", { shape: [128], data: new Float32Array(128).fill(7) }] as const,
  ]);
  const path = join(home, "ema.safetensors");
  await saveCheckpoint(path, averaged, { ...(await swin), config: {}, progress });
  assert.equal(
    (await loadWeights(path, await createModel(await swin), { name: "swin_micro_32" })).values.get("norm.weight")![0],
    7,
  );
});

const weights = sharedFile("checkpoints/resnet20-12fca82f.th");
const pictures = sharedFile("data/cifar10-test.tar");
test("ResNet-20 in a torch file gets 8103 ± 15 of CIFAR's 10,000 test pictures right", {
  skip: weights.skip || pictures.skip,
  timeout: 300_000,
}, async () => {
  const { total, correct, classes } = await evaluate(weights.path, pictures.path, { model: "resnet20_cifar" });
  assert.equal(total, 10_000);
  assert.ok(Math.abs(correct - 8103) <= 15, `${correct}`);
  // PyTorch's figures for each class, from the README beside the pictures.
  const known = {
    airplane: 748,
    automobile: 775,
    bird: 680,
    cat: 700,
    deer: 905,
    dog: 709,
    frog: 873,
    horse: 841,
    ship: 929,
    truck: 943,
  };
  for (const { name, correct } of classes)
    assert.ok(Math.abs(correct - known[name as keyof typeof known]) <= 8, `${name}: ${correct}`);
});
