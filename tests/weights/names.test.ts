import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { z } from "zod";
import { findModel, listModels } from "../../src/backbones/index.ts";
import { toOurs, toTheirs } from "../../src/backbones/names.ts";
import { fnv1a } from "../../src/base/philox.ts";
import { weightsOf } from "../../src/nn/module.ts";
import { Classifier } from "../../src/tasks/classify.ts";
import { namesIn, translate } from "../../src/weights/translate.ts";
import { goldenModel, readGolden } from "../golden-check.ts";
import { sharedFile } from "../train/files.ts";

const models = await listModels();

describe("names read both ways, and no two weights share one", () => {
  for (const entry of models.filter((m) => Object.keys(m.names).length > 0))
    test(entry.name, () => {
      const paths = weightsOf(new Classifier(entry.create(), 10)).map((w) => w.path);
      for (const [convention, map] of Object.entries(entry.names)) {
        const theirs = paths.map((path) => toTheirs(path, map));
        assert.equal(new Set(theirs.flat()).size, theirs.flat().length, convention);
        for (const [i, names] of theirs.entries())
          assert.deepEqual(
            names.map((name) => toOurs(name, map)),
            names.map((_, part) => ({ path: paths[i], part, parts: names.length })),
            convention,
          );
      }
    });
});

// Checkpoints that the other libraries wrote, as `files/names.py` sums them up.
const known = z
  .array(z.object({ model: z.string(), convention: z.string(), tensors: z.int(), hash: z.int() }))
  .parse(JSON.parse(readFileSync("tests/weights/files/names.json", "utf8")));

describe("names and shapes are those that the other libraries write", () => {
  for (const { model: name, convention, tensors, hash } of known)
    test(`${name}, ${convention}`, async () => {
      const entry = await findModel(name);
      const lines = namesIn(new Classifier(entry.create(), 1000), entry.names[convention])
        .map(({ name, shape }) => `${name} [${shape}]\n`)
        .sort((a, b) => (a < b ? -1 : 1));
      assert.equal(lines.length, tensors);
      assert.equal(fnv1a(lines.join("")), hash, lines.join(""));
    });
});

test("ConvNeXt V2: others keep norms and linear layers in shapes of their own", async () => {
  const entry = await findModel("convnextv2_atto");
  for (const [convention, norm, linear] of [
    ["official", "stages.0.0.grn.gamma", "stages.0.0.pwconv1.weight"],
    [
      "transformers",
      "convnextv2.encoder.stages.0.layers.0.grn.weight",
      "convnextv2.encoder.stages.0.layers.0.pwconv1.weight",
    ],
  ]) {
    const listed = namesIn(new Classifier(entry.create(), 10), entry.names[convention]);
    const shapes = new Map(listed.map(({ name, shape }) => [name, shape]));
    assert.deepEqual(
      [shapes.get(norm), shapes.get(linear)],
      [
        [1, 1, 1, 160],
        [160, 40],
      ],
    );
  }
});

describe("names and shapes of every golden file", () => {
  const folders = ["tests/golden", sharedFile("golden").path].filter((folder) => existsSync(folder));
  const files = new Map(
    folders.flatMap((folder) =>
      readdirSync(folder)
        .filter((file) => file.endsWith(".json"))
        .map((file) => [file, join(folder, file)] as const),
    ),
  );
  for (const [file, path] of files)
    test(file, async (t) => {
      const golden = await readGolden(path);
      const entry = await goldenModel(golden.name);
      if (!entry) return t.skip("no such model");
      const [, inChannels, ...imageSize] = golden.input;
      const backbone = entry.create({ imageSize: imageSize as [number, number], inChannels });
      const listed = namesIn(new Classifier(backbone, golden.eval.shape[1]));
      assert.deepEqual(Object.fromEntries(listed.map(({ name, shape }) => [name, shape])), golden.shapes);
    });
});

/** Finds out whose names a file has that holds the weights of a model under them. */
async function recognised(name: string, rename: (path: string) => string[]) {
  const entry = await findModel(name);
  const paths = weightsOf(new Classifier(entry.create(), 10)).map((w) => w.path);
  const { convention, named } = translate(paths.flatMap(rename), new Set(paths), entry.names);
  return { convention, placed: named.size, paths, named };
}

describe("whose names a file has is seen by the names", () => {
  test("our own, also inside other modules and beside what is no backbone", async () => {
    for (const prefix of ["", "backbone.", "visual.trunk.", "state.model.encoder."]) {
      const { convention, placed, paths } = await recognised("vit_tiny_patch16_224", (path) => [
        `${prefix}${path}`,
        ...(path === "norm.weight" ? ["decode_head.conv.weight", "decode_head.conv.bias"] : []),
      ]);
      assert.deepEqual([convention, placed], ["timm", paths.length], prefix);
    }
  });
  test("the official repository's, with the classifier and without", async () => {
    const { names } = await findModel("swin_tiny_patch4_window7_224");
    const whole = await recognised("swin_tiny_patch4_window7_224", (path) => toTheirs(path, names.official));
    assert.deepEqual([whole.convention, whole.placed], ["official", whole.paths.length]);
    assert.deepEqual(whole.named.get("layers.1.downsample.norm.weight"), ["layers.0.downsample.norm.weight"]);
    const bare = await recognised("swin_tiny_patch4_window7_224", (path) =>
      path.startsWith("head") ? [] : toTheirs(path, names.official),
    );
    assert.deepEqual([bare.convention, bare.placed], ["official", bare.paths.length - 2]);
  });
  test("transformers', of whole models and of backbones alone; another model's root does no harm", async () => {
    const { names } = await findModel("deit_tiny_patch16_224");
    const named = (rename: (name: string) => string) =>
      recognised("deit_tiny_patch16_224", (path) => toTheirs(path, names.transformers).map(rename));
    for (const rename of [
      (name: string) => name,
      (name: string) => name.replace("vit.", ""),
      (name: string) => name.replace("vit.", "deit."),
      (name: string) => `model.${name}`,
    ]) {
      const { convention, placed, paths } = await named(rename);
      assert.deepEqual([convention, placed], ["transformers", paths.length]);
    }
  });
  test("a weight of which a part is missing is not placed", async () => {
    const { names } = await findModel("vit_tiny_patch16_224");
    const { named, placed, paths } = await recognised("vit_tiny_patch16_224", (path) =>
      toTheirs(path, names.transformers).filter((name) => !name.endsWith("layer.3.attention.attention.key.bias")),
    );
    assert.equal(placed, paths.length - 1);
    assert.ok(!named.has("blocks.3.attn.qkv.bias"));
    assert.deepEqual(
      named.get("blocks.4.attn.qkv.bias")?.map((name) => name.split(".").at(-2)),
      ["query", "key", "value"],
    );
  });
});
