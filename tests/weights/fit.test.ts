import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { findModel } from "../../src/backbones/index.ts";
import { toTheirs } from "../../src/backbones/names.ts";
import { OrielError } from "../../src/base/errors.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import type { Values } from "../../src/nn/adapt.ts";
import { Linear } from "../../src/nn/layers.ts";
import { initialWeights, Module, weightsOf } from "../../src/nn/module.ts";
import { Classifier } from "../../src/tasks/classify.ts";
import { checkAnyLoaded, type Fit, fitTable, fitWeights, loadedShare } from "../../src/weights/fit.ts";

type Options = Parameters<Awaited<ReturnType<typeof findModel>>["create"]>[0];

const classifier = async (name: string, classes = 10, options: Options = {}) =>
  new Classifier((await findModel(name)).create(options), classes);

/** A model's weights as a file would hold them. */
const fileOf = (model: Classifier): Map<string, Values> => {
  const values = initialWeights(model, 1);
  return new Map(
    weightsOf(model).map(({ path, tensor }) => [path, { shape: tensor.shape as number[], data: values.get(path)! }]),
  );
};

const rows = (fit: Fit, status: string): string[] =>
  fitTable(fit).rows.flatMap(({ status: s, name, tensors, note }) =>
    s === status ? [`${name} (${tensors})${note ? `: ${note}` : ""}`] : [],
  );

test("a file of the model itself is loaded bit for bit, and every parameter counted", async () => {
  const model = await classifier("resnet20_cifar");
  const file = fileOf(model);
  const fit = fitWeights(model, file);
  assert.deepEqual(fit.values, new Map([...file].map(([name, { data }]) => [name, data])));
  assert.equal(loadedShare(fit), 1);
  const { totals } = fitTable(fit);
  const counts = weightsOf(model).filter((w) => w.kind === "parameter");
  assert.equal(
    totals.loaded,
    counts.reduce((sum, w) => sum + (w.tensor.shape as number[]).reduce((a, b) => a * b, 1), 0),
  );
  assert.deepEqual([totals.resized, totals.reset, totals["left over"]], [0, 0, 0]);
});

test("any module takes a file; without a backbone it has no classifier that would be loaded whole or not at all", () => {
  class Own extends Module {
    fc1 = new Linear(4, 3);
    fc2 = new Linear(3, 2);
    forward(x: Tensor): Tensor {
      return this.fc2.forward(this.fc1.forward(x));
    }
  }
  const model = new Own();
  const values = initialWeights(model, 1);
  const file = new Map(
    weightsOf(model).map(({ path, tensor }) => [path, { shape: tensor.shape as number[], data: values.get(path)! }]),
  );
  file.delete("fc2.bias");
  const fit = fitWeights(model, file);
  assert.deepEqual([...fit.values.keys()], ["fc1.weight", "fc1.bias", "fc2.weight"]);
  assert.deepEqual(rows(fit, "reset"), ["fc2.bias (1): not in the file"]);
});

test("classes, channels, image and window: what is resized, from what to what, and what starts afresh", async () => {
  const file = fileOf(await classifier("swin_micro_32"));
  const smaller = fitWeights(await classifier("swin_micro_32", 3, { imageSize: 12, inChannels: 1 }), file);
  assert.deepEqual(rows(smaller, "resized"), [
    "patch_embed.proj.weight (1): [32, 3, 2, 2] to [32, 1, 2, 2]",
    "layers.1.blocks.0-1.attn.relative_position_bias_table (2): [49, 2] to [25, 2]",
    "layers.2.blocks.0-3.attn.relative_position_bias_table (4): [49, 4] to [9, 4]",
  ]);
  assert.deepEqual(rows(smaller, "reset"), [
    "head.fc.weight (1): other classes, [10, 128] to [3, 128]",
    "head.fc.bias (1): other classes, [10] to [3]",
  ]);
  assert.deepEqual(rows(smaller, "left over"), []);
  assert.ok(!smaller.values.has("head.fc.weight"));
  assert.equal(smaller.values.get("patch_embed.proj.weight")!.length, 32 * 4);

  const vit = fitWeights(
    await classifier("vit_tiny_patch16_224", 10, { imageSize: [96, 128] }),
    fileOf(await classifier("vit_tiny_patch16_224")),
  );
  assert.deepEqual(rows(vit, "resized"), ["pos_embed (1): [1, 197, 192] to [1, 49, 192]"]);
  assert.equal(loadedShare(vit), 1);
});

test("whatever has another shape for another image is made for it, in every family", async () => {
  const names = [
    "gcvit_xxtiny",
    "maxvit_tiny_tf_224",
    "spectformer_xs_224",
    "spectformer_h_s_224",
    "deit_tiny_patch16_224",
  ];
  const sized = [...names, "deit_tiny_distilled_patch16_224", "volo_d1_224", "iformer_small_224"];
  const pairs = sized.map((name) => [name, 224, name, 320] as const);
  for (const [name, size, larger, other] of [...pairs, ["tiny_vit_21m_224", 224, "tiny_vit_21m_384", 384] as const]) {
    // Two shapes suffice: what a table is made of is tested where it is made.
    const at = async (model: string, imageSize: number) => weightsOf(await classifier(model, 10, { imageSize }));
    const [before, after] = [await at(name, size), await at(larger, other)];
    const tables = after.filter(({ tensor }, i) => String(tensor.shape) !== String(before[i].tensor.shape));
    assert.ok(tables.length > 0, name);
    for (const { path, tensor, adapt } of tables) {
      const shape = before.find((w) => w.path === path)!.tensor.shape as number[];
      const values = { shape, data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(0.5) };
      const made = adapt?.(values, tensor.shape as number[]);
      // What is the same everywhere stays so.
      assert.ok(
        made?.every((x) => Math.abs(x - 0.5) < 1e-6),
        `${name} ${path}`,
      );
    }
  }
});

test("as many classes, but others: the classifier starts afresh", async () => {
  const model = await classifier("swin_micro_32");
  const fit = fitWeights(model, fileOf(model), { otherClasses: true });
  assert.deepEqual(rows(fit, "reset"), ["head.fc.* (2): other classes"]);
});

test("a deeper model's file: what is left over is told together", async () => {
  const fit = fitWeights(await classifier("resnet20_cifar"), fileOf(await classifier("resnet44_cifar")));
  assert.equal(loadedShare(fit), 1);
  assert.deepEqual(rows(fit, "left over"), ["layer1-3.3-6.conv1-2.weight (24)", "layer1-3.3-6.bn1-2.* (96)"]);
});

test("a file that lacks a part: the rest is loaded, what is missing starts afresh", async () => {
  const model = await classifier("swin_micro_32");
  const file = new Map([...fileOf(model)].filter(([name]) => !/^(head|layers\.2)/.test(name)));
  const fit = fitWeights(model, file);
  assert.deepEqual(rows(fit, "reset"), [
    "layers.2.downsample.norm.* (2): not in the file",
    "layers.2.downsample.reduction.weight (1): not in the file",
    "layers.2.blocks.0-3.norm1-2.* (16): not in the file",
    "layers.2.blocks.0-3.attn.* (20): not in the file",
    "layers.2.blocks.0-3.mlp.* (16): not in the file",
    "head.fc.* (2): not in the file",
  ]);
  assert.ok(loadedShare(fit) < 0.5);
});

describe("kept otherwise, the same in the model", () => {
  test("query, key and value apart", async () => {
    const model = await classifier("vit_tiny_patch16_224", 10, { imageSize: 32 });
    const { names } = await findModel("vit_tiny_patch16_224");
    const file = fileOf(model);
    const apart = new Map(
      [...file].flatMap(([path, { shape, data }]) => {
        const theirs = toTheirs(path, names.transformers);
        const size = data.length / theirs.length;
        return theirs.map((name, i): [string, Values] => [
          name,
          { shape: [shape[0] / theirs.length, ...shape.slice(1)], data: data.slice(i * size, (i + 1) * size) },
        ]);
      }),
    );
    const fit = fitWeights(model, apart, { names });
    assert.equal(fit.convention, "transformers");
    assert.deepEqual(fit.values, new Map([...file].map(([name, { data }]) => [name, data])));
    const [name, first] = [...apart].find(([key]) => key.endsWith("attention.key.weight"))!;
    apart.set(name, { shape: [first.shape[0], 7], data: new Float32Array(first.shape[0] * 7) });
    assert.deepEqual(rows(fitWeights(model, apart, { names }), "reset"), [
      "blocks.0.attn.qkv.weight (1): its parts do not go together",
    ]);
  });
  test("axes of one, and kernels that lie flat", async () => {
    const model = await classifier("vit_tiny_patch16_224", 10, { imageSize: 32 });
    const file = fileOf(model);
    const flat = file.get("patch_embed.proj.weight")!;
    file.set("patch_embed.proj.weight", { shape: [192, 3 * 16 * 16], data: flat.data });
    file.set("norm.bias", { shape: [1, 1, 192], data: file.get("norm.bias")!.data });
    const fit = fitWeights(model, file);
    assert.deepEqual(rows(fit, "resized"), []);
    assert.equal(loadedShare(fit), 1);
    assert.deepEqual(fit.values.get("patch_embed.proj.weight"), flat.data);
  });
});

test("nothing for the model: an error with the nearest names of both sides", async () => {
  const model = await classifier("swin_micro_32");
  const fit = fitWeights(model, fileOf(await classifier("resnet20_cifar")));
  assert.equal(fit.values.size, 0);
  assert.throws(
    () => checkAnyLoaded(fit, { model: "swin_micro_32", path: "weights.pth" }),
    (error) =>
      error instanceof OrielError &&
      error.code === "mismatch" &&
      /none of the \d+ tensors in the file is one of swin_micro_32/.test(error.message) &&
      /patch_embed\.proj\.weight \[32,3,2,2\] is missing; nearest: \S+/.test(error.message),
  );
});
