import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { findModel, listModels } from "../../src/backbones/index.ts";
import { prepare } from "../../src/data/transform.ts";
import { evaluateTransform } from "../../src/train/checkpoint/model.ts";
import { json, oriel, refused, temporaryFolder } from "./helpers.ts";

const folder = temporaryFolder();

interface Listed {
  name: string;
  params: number;
  macs: number;
  imageSize: number;
  paper: string;
}

test("models --json: name, params, macs, imageSize, paper", async () => {
  const models = await json<Listed[]>(folder, "models");
  assert.ok(models.length > 20);
  for (const { name, params, macs, imageSize, paper } of models) {
    assert.ok(Number.isInteger(params) && params > 1e5, name);
    assert.ok(Number.isInteger(macs) && macs > params / 10, name);
    assert.ok(Number.isInteger(imageSize) && imageSize >= 28, name);
    assert.match(paper, /https:\/\//);
  }
  const swin = models.find(({ name }) => name === "swin_tiny_patch4_window7_224");
  assert.equal(swin?.params, 28_288_354); // timm's
});

test("models: patterns match names and aliases", async () => {
  const named = async (pattern: string) => (await json<Listed[]>(folder, "models", pattern)).map(({ name }) => name);
  assert.deepEqual(await named("swin_tiny_patch4*"), ["swin_tiny_patch4_window7_224"]);
  assert.deepEqual(await named("CSWin_64_12211_tiny_224"), ["cswin_tiny_224"]);
  await refused(folder, ["models", "swim"], 2, /no model matches "swim"/, /did you mean .*swin/);
});

test("info: layers with shapes, parameters, multiply-adds, memory", async () => {
  const found = await json<{
    params: number;
    layers: { path: string; depth: number; shape: number[]; params: number; macs: number }[];
  }>(folder, "info", "swin_tiny_patch4_window7_224");
  const top = found.layers.filter(({ depth }) => depth === 0);
  assert.equal(found.params, 28_288_354);
  assert.equal(
    top.reduce((sum, { params }) => sum + params, 0),
    found.params,
  );
  assert.deepEqual(found.layers.find(({ path }) => path === "layers.1")?.shape, [1, 28, 28, 192]);
  const { stdout } = await oriel(folder, "info", "swin_tiny_patch4_window7_224");
  assert.match(stdout, /layers\.1 +\[1, 28, 28, 192\]/);
});

test("a model that was judged by bent pictures is shown, and judges, so", async () => {
  const { stdout } = await oriel(folder, "info", "maxxvitv2_rmlp_base_rw_384");
  assert.match(stdout, /pictures: resized to 384×384, whatever their shape/);
  const { preprocessing } = await findModel("tiny_vit_21m_512");
  assert.equal(evaluateTransform(preprocessing).cropMode, "squash");
});

test("every model's own view of a picture can be made", async () => {
  for (const { name, preprocessing } of await listModels())
    assert.doesNotThrow(() => prepare(evaluateTransform(preprocessing)), name);
});

test("info: what a file of weights holds, without reading them", async () => {
  const path = fileURLToPath(new URL("../../../tests/weights/files/zip.pth", import.meta.url));
  const info = await json<{
    format: string;
    path: string[];
    others: string[];
    metadata: Record<string, string>;
    tensors: { name: string; dtype: string; shape: number[] }[];
    values: number;
    dtypes: Record<string, { tensors: number; values: number; bytes: number }>;
  }>(folder, "info", path);
  assert.deepEqual([info.format, info.path, info.others], ["torch", ["model"], ["optimizer"]]);
  assert.deepEqual(info.metadata, { epoch: "3", arch: "tiny", best: "0.5" });
  assert.deepEqual(info.tensors[0], { name: "module.plain", dtype: "F32", shape: [6, 4] });
  assert.equal(
    info.values,
    Object.values(info.dtypes).reduce((sum, { values }) => sum + values, 0),
  );
  assert.deepEqual(info.dtypes.F16, { tensors: 1, values: 24, bytes: 48 });
  const { stdout } = await oriel(folder, "info", path);
  assert.match(stdout, /torch, zip form; under "model"; other entries with tensors, for --key: optimizer/);
  const part = await json<{ tensors: unknown[] }>(folder, "info", path, "--key", "optimizer");
  assert.deepEqual(part.tensors, [{ name: "state.0.momentum", dtype: "F32", shape: [2] }]);
  await refused(folder, ["info", "absent.safetensors"], 2, /no such file/);
});

test("info: a model that is not there, with the nearest names", async () => {
  await refused(folder, ["info", "swin_tny"], 2, /no model called "swin_tny"/, /swin_tiny_patch4_window7_224/);
});

test("help: every command has examples", async () => {
  const { status, stdout } = await oriel(folder, "--help");
  assert.equal(status, 0);
  const names = [...stdout.matchAll(/^ {2}([a-z]+) .*\S {2,}\S/gm)]
    .map(([, name]) => name)
    .filter((name) => name !== "help");
  assert.deepEqual(names, [
    "models",
    "info",
    "train",
    "evaluate",
    "predict",
    "export",
    "convert",
    "bench",
    "systems",
    "doctor",
  ]);
  for (const name of names) {
    const { status, stdout } = await oriel(folder, name, "--help");
    assert.equal(status, 0);
    assert.match(stdout, new RegExp(`Usage: oriel ${name}[\\s\\S]*Examples:\\n {2}oriel ${name}`));
    // Written to fit 80 columns: a short line ends a sentence.
    const [about] = stdout.split(/\n\n(?:Arguments|Options):/);
    for (const line of about.split("\n")) if (line.length < 60) assert.match(line, /\.$|^Usage|^$/, name);
  }
  assert.equal((await oriel(folder)).stdout, stdout);
  assert.match((await oriel(folder, "--version")).stdout, /^\d+\.\d+\.\d+\n$/);
});

test("unknown commands and flags: the nearest names", async () => {
  await refused(folder, ["trian"], 2, /no command "trian"/, /did you mean train/);
  await refused(folder, ["train", "x", "--epoch", "3"], 2, /no flag --epoch/, /did you mean --epochs/);
  await refused(folder, ["models", "zzzzz"], 2, /no model matches "zzzzz"\n {2}help: `oriel models` lists all/);
  await refused(
    folder,
    ["train", "x", "--model-options", "window"],
    2,
    /is "window", expected pairs such as key=value/,
  );
  await refused(folder, ["info"], 2, /info lacks its <model>/);
  await refused(folder, ["info", "a", "b"], 2, /too many arguments/);
  await refused(folder, ["info", "resnet50", "--depth", "0"], 2, /--depth is 0, expected at least 1/);
  await refused(folder, ["bench", "resnet50", "--batch", "many"], 2, /--batch is "many", expected a (whole )?number/);
});

test("machines read what went wrong where they read the result", async () => {
  const { status, stdout, stderr } = await oriel(folder, "info", "swim_tiny", "--json");
  const { error } = JSON.parse(stdout);
  assert.deepEqual([status, error.code, error.message], [2, "usage", 'there is no model called "swim_tiny"']);
  assert.match(error.help, /did you mean .*swin_tiny_patch4_window7_224/);
  assert.match(stderr, /^error: there is no model called "swim_tiny"/);
});

test("doctor: what this machine can run", async () => {
  const findings = await json<{ what: string; state: string; found: string }[]>(folder, "doctor");
  const of = (what: string) => findings.find((finding) => finding.what === what);
  for (const what of ["Node", "cores", "memory", "pictures", "engine", "device cpu"]) assert.ok(of(what), what);
  assert.equal(of("device cpu")?.state, "ok");
  for (const device of ["webgpu", "cuda"]) assert.ok(of(`device ${device}`)?.found, device);
});
