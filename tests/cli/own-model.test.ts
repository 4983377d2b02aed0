import assert from "node:assert/strict";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { classFolders, json, oriel, refused, temporaryFolder } from "./helpers.ts";

// A model that a file of one's own registers is a model like any other, wherever one is named.

const folder = temporaryFolder();
const own = fileURLToPath(new URL("../../examples/own-model.js", import.meta.url));
const imported = ["--import", own];
const trained = ["--model", "convmixer_micro_16", "--epochs", "1", "--batch", "8", "--workers", "0", "--threads", "1"];
const best = join("run", "best.safetensors");

before(() => classFolders(join(folder, "pictures"), 8));

test("it trains, and is evaluated, exported and listed", async () => {
  const words = [...trained, ...imported, "--drop-path", "0.1", "--out", "run"];
  const { status, stderr } = await oriel(folder, "train", "pictures", ...words);
  assert.equal(status, 0, stderr);
  assert.match(stderr, /drop-path does nothing: convmixer_micro_16 drops no blocks/);
  assert.ok(existsSync(join(folder, "run", "report.html")));
  const { total } = await json<{ total: number }>(folder, "evaluate", best, "pictures", "--all", ...imported);
  assert.equal(total, 24);
  await json(folder, "export", best, "own.onnx", ...imported);
  assert.equal((await json<object[]>(folder, "models", "convmixer", ...imported)).length, 2);
  assert.match((await oriel(folder, "train", "--help")).stdout, /--import <file>/);
});

test("without its file it is unknown, which says what is missing; an exported one needs none", async () => {
  await refused(
    folder,
    ["train", "pictures", ...trained, "--out", "other"],
    2,
    /no model called "convmixer_micro_16"/,
    /--import/,
  );
  await refused(folder, ["evaluate", best, "pictures"], 2, /no model called "convmixer_micro_16"/, /--import/);
  const [{ top }] = await json<{ top: object[] }[]>(folder, "predict", "own.onnx", join("pictures", "red", "0.png"));
  assert.ok(top.length > 0);
});

test("a file that cannot be loaded is told of", async () => {
  await refused(folder, ["models", "--import", "missing.js"], 2, /--import missing\.js: no such file/);
  writeFileSync(join(folder, "broken.mjs"), "const = 1;");
  await refused(folder, ["models", "--import", "broken.mjs"], 2, /--import broken\.mjs: Unexpected token/);
  writeFileSync(join(folder, "empty.mjs"), "throw null;");
  await refused(folder, ["models", ...imported, "--import", "empty.mjs"], 2, /--import empty\.mjs: null/);
  writeFileSync(join(folder, "waits.mjs"), "await new Promise(() => {});");
  await refused(folder, ["models", "--import", "waits.mjs"], 13, /--import waits\.mjs: it waits for something/);
  writeFileSync(
    join(folder, "taken.mjs"),
    `import { registerFamily } from ${JSON.stringify(new URL("../../src/index.js", import.meta.url).href)};
     registerFamily("swin", { variants: { swin_x: { config: {} } }, create: () => {} });`,
  );
  await refused(folder, ["models", "--import", "taken.mjs"], 2, /there is a family called "swin" already/);
});
