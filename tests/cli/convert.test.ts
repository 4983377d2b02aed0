import assert from "node:assert/strict";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { findModel } from "../../src/backbones/index.ts";
import { writeOnnx } from "../../src/graph/onnx/write.ts";
import { bindWeights } from "../../src/nn/bind.ts";
import { initialWeights, weightsOf } from "../../src/nn/module.ts";
import { Classifier } from "../../src/tasks/classify.ts";
import { inferenceGraph } from "../../src/train/checkpoint/model.ts";
import { openWeights, type StoredTensor, saveSafetensors } from "../../src/weights/index.ts";
import { classFolders, json, oriel, picture, quick, refused, temporaryFolder } from "./helpers.ts";

const folder = temporaryFolder();
const at = (name: string): string => join(folder, name);

before(async () => {
  const { create } = await findModel("resnet20_cifar");
  const model = new Classifier(create(), 4);
  const values = initialWeights(model, 0);
  const tensors = weightsOf(model).map(({ path, tensor }): [string, StoredTensor] => [
    path,
    { dtype: "F32", shape: tensor.shape as number[], data: new Uint8Array(values.get(path)!.buffer) },
  ]);
  await saveSafetensors(at("tiny.safetensors"), tensors, { source: "a test" });
  // As another tool would export it: it says nothing of itself.
  writeFileSync(at("tiny.onnx"), writeOnnx(bindWeights(inferenceGraph(model, 32), model, values)));
  writeFileSync(at("picture.png"), await picture("red", 0).png().toBuffer());
  writeFileSync(at("short.safetensors"), readFileSync(at("tiny.safetensors")).subarray(0, 50_000));
  await classFolders(at("pictures"), 8);
});

/** Bytes of a file's tensors, by name. */
async function bytesIn(file: string): Promise<Map<string, Buffer>> {
  const { tensors, close } = await openWeights(at(file));
  const found = new Map<string, Buffer>();
  for (const [name, tensor] of tensors) found.set(name, Buffer.from((await tensor.read()).data));
  await close();
  return found;
}

test("convert: each way round, every bit", async () => {
  const wanted = await bytesIn("tiny.safetensors");
  const { stdout } = await oriel(folder, "convert", "tiny.safetensors", "a.pth");
  assert.match(
    stdout,
    /wrote a\.pth: 97 tensors, .* of safetensors as torch\nnames, types and bits are those of the source/,
  );
  assert.deepEqual(await bytesIn("a.pth"), wanted);
  const made = await json<Record<string, unknown>>(folder, "convert", "a.pth", "a.onnx", "--model", "resnet20_cifar");
  assert.deepEqual([made.from, made.to, made.model, made.tensors], ["torch", "onnx", "resnet20_cifar", 97]);
  assert.ok((made.difference as number) <= 1e-4);
  assert.equal((await json<Record<string, unknown>>(folder, "convert", "a.onnx", "b.safetensors")).from, "onnx");
  const back = await bytesIn("b.safetensors");
  for (const [name, bytes] of wanted) assert.deepEqual(back.get(name), bytes, name);
});

test("convert: what cannot be done is said", async () => {
  const cases: [string[], number, RegExp][] = [
    [["tiny.safetensors", "b.txt"], 2, /b\.txt is not known by its name[\s\S]*\.safetensors.*\.onnx/],
    [["tiny.safetensors", "b.onnx"], 2, /do not say whose they are[\s\S]*--model/],
    [["tiny.safetensors", "b.onnx", "--model", "resnet20"], 2, /resnet20_cifar/],
    [["tiny.safetensors", "./tiny.safetensors"], 2, /the file to write is the one to read/],
    [["picture.png", "b.safetensors"], 1, /looks like a PNG picture/],
    [["short.safetensors", "b.pth"], 1, /truncated/],
  ];
  for (const [words, status, message] of cases) await refused(folder, ["convert", ...words], status, message);
  assert.throws(() => readFileSync(at("b.pth")));
});

test("train --model FILE.onnx: its run is whole once the file is gone", async () => {
  const words = ["train", "pictures", ...quick, "--out", "run", "--model", "tiny.onnx", "--image-size", "32"];
  const { status, stderr } = await oriel(folder, ...words);
  assert.equal(status, 0, stderr);
  const weights = ["evaluate", "a.onnx", "pictures", "--model", "resnet20_cifar"];
  await refused(folder, weights, 2, /classifier is for \d+ classes, not for 3/);
  rmSync(at("tiny.onnx"));
  const found = await json<{ total: number; classes: { name: string }[] }>(
    folder,
    "evaluate",
    "run/best.safetensors",
    "pictures",
  );
  assert.deepEqual([found.total, found.classes.map(({ name }) => name)], [3, ["blue", "green", "red"]]);
  for (const file of ["run/best.safetensors", "run/model.onnx"]) {
    const { stdout } = await oriel(folder, "predict", file, "picture.png");
    assert.match(stdout, /red|green|blue/, file);
  }
});
