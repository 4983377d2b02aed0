import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { classFolders, json, oriel, picture, quick, refused, temporaryFolder } from "./helpers.ts";

// What people give by mistake: a clear sentence, 1 or 2, nothing half-written.

const folder = temporaryFolder();
const at = (...parts: string[]): string => join(folder, ...parts);
const train = (data: string, ...words: string[]): string[] => ["train", data, ...quick, "--out", "never", ...words];

before(async () => {
  await classFolders(at("pictures"), 12);
  await json(folder, "train", "pictures", ...quick, "--out", "run");
});

test("an unknown model", async () => {
  await refused(
    folder,
    ["train", "pictures", "--model", "resnet20"],
    2,
    /no model called "resnet20"/,
    /resnet20_cifar/,
  );
  await refused(folder, ["bench", "resnet20"], 2, /no model called "resnet20"/);
  assert.ok(!existsSync(at("runs")));
});

test("what is missing is said with what it is for; what is empty, as a variable of the shell may be, is no answer", async () => {
  await refused(folder, ["train", "pictures"], 2, /--model is missing: .*`oriel models` lists them/);
  await refused(folder, ["train", ""], 2, /<data> is empty/);
  await refused(folder, train("pictures", "--out", ""), 2, /--out is empty/);
  await refused(folder, ["train", "--config", ""], 2, /no such file/);
});

test("data that is not there, without classes, with one class", async () => {
  await refused(folder, train("picturs"), 2, /no file or folder picturs/, /pictures/);
  mkdirSync(at("empty"));
  await refused(folder, train("empty"), 2, /no pictures in empty/);
  if (existsSync("/proc/self")) await refused(folder, train("pictures", "--out", "/proc/none"), 1, /cannot be written/);
  mkdirSync(at("loose"));
  writeFileSync(at("loose", "1.png"), await picture("red", 1).png().toBuffer());
  await refused(folder, train("loose"), 2, /there is 1 picture, but no class folders/, /folder of its own/);
  await classFolders(at("single"), 4, ["red"]);
  await refused(folder, train("single"), 2, /one class only, red/);
  assert.ok(!existsSync(at("never")));
});

test("pictures that cannot be read are told of, counted and left out; too many end the run with a list", async () => {
  await classFolders(at("mixed"), 60, ["red", "blue"]);
  writeFileSync(at("mixed", "red", "0.png"), "");
  const { status, stderr } = await oriel(
    folder,
    ...train("mixed", "--out", "mixed-run", "--val", "0.5", "--batch", "4"),
  );
  assert.equal(status, 0, stderr);
  assert.match(stderr, /left out mixed\/red\/0\.png: .+/);
  const found = await json<{ total: number; skipped: number }>(
    folder,
    "evaluate",
    "mixed-run/best.safetensors",
    "mixed",
    "--all",
  );
  assert.deepEqual([found.total, found.skipped], [119, 1]);

  const whole = readFileSync(at("mixed", "red", "1.png"));
  writeFileSync(at("mixed", "red", "1.png"), whole.subarray(0, whole.length / 2)); // truncated
  writeFileSync(at("mixed", "blue", "2.png"), "this is no picture");
  writeFileSync(at("mixed", "blue", "3.png"), "nor this");
  const said = await refused(
    folder,
    train("mixed", "--out", "mixed-stopped"),
    1,
    /4 of 120 pictures cannot be read so far, more than 1 %/,
    /replace or remove/,
  );
  for (const name of ["red/0.png", "red/1.png", "blue/2.png", "blue/3.png"])
    assert.match(said, new RegExp(`mixed/${name}: `));
});

test("pictures to learn from of which none can be read", async () => {
  for (const name of ["red", "blue"]) {
    mkdirSync(at("unreadable", name), { recursive: true });
    writeFileSync(at("unreadable", name, "1.png"), "this is no picture");
  }
  await classFolders(at("readable"), 2, ["red", "blue"]);
  const words = train("unreadable", "--val", "readable", "--batch", "2", "--out", "unread-run");
  await refused(
    folder,
    words,
    1,
    /none of the pictures to learn from can be read/,
    /left out unreadable\/red\/1\.png: /,
  );
});

test("predict: broken pictures are left out, and the status tells", async () => {
  writeFileSync(at("broken.png"), "nothing");
  const { status, stdout, stderr } = await oriel(
    folder,
    "predict",
    "run/best.safetensors",
    "pictures/red/0.png",
    "broken.png",
    "absent.png",
    "--json",
  );
  assert.equal(status, 1);
  assert.deepEqual(
    (JSON.parse(stdout) as { image: string }[]).map(({ image }) => image),
    ["pictures/red/0.png"],
  );
  assert.match(stderr, /left out broken\.png: [^()]+\nleft out absent\.png: there is no such picture\n/);
  assert.match(stderr, /2 of 3 pictures were left out/);
});

test("validation labels: one may be missing, one that training never saw is an error", async () => {
  await classFolders(at("fewer"), 4, ["red", "blue"]);
  const { status, stderr } = await oriel(folder, ...train("pictures", "--val", "fewer", "--out", "fewer-run"));
  assert.equal(status, 0, stderr);
  assert.match(stderr, /nothing validates a class, of which there are pictures to learn from alone: green/);
  const found = await json<{ classes: { name: string; total: number }[] }>(
    folder,
    "evaluate",
    "fewer-run/best.safetensors",
    "fewer",
  );
  assert.equal(found.classes.find(({ name }) => name === "green")?.total, 0);
  await classFolders(at("other"), 4, ["red"]);
  await classFolders(at("other", ".."), 0, []);
  mkdirSync(at("other", "purple"));
  writeFileSync(at("other", "purple", "1.png"), await picture("blue", 1).png().toBuffer());
  await refused(folder, train("pictures", "--val", "other"), 2, /not among the 3 trained on/, /purple \(nearest: /);
  await refused(folder, ["evaluate", "run/best.safetensors", "other"], 2, /not among the 3 trained on/);
});

test("a checkpoint of another model: what it is for, and what is nearest", async () => {
  const said = await refused(
    folder,
    [...train("pictures", "--weights", "run/best.safetensors"), "--model", "swin_micro_32"],
    1,
    /none of the 97 tensors in the file is one of swin_micro_32; the file says it holds resnet20_cifar/,
    /use it with --model resnet20_cifar/,
  );
  assert.match(said, /patch_embed\.proj\.weight .*is missing; nearest: /);
  const deeper = await refused(
    folder,
    [...train("pictures", "--weights", "run/best.safetensors"), "--model", "resnet56_cifar"],
    1,
    /180 tensors differ from those of resnet56_cifar; the file says it holds resnet20_cifar/,
  );
  assert.equal(deeper.match(/ is not in the file/g)?.length, 180);
  await refused(
    folder,
    ["evaluate", "run/best.safetensors", "pictures", "--model", "swin_micro_32"],
    1,
    /differ from those of swin_micro_32/,
  );
});

test("truncated and foreign checkpoints", async () => {
  const whole = readFileSync(at("run", "best.safetensors"));
  const cases: [string, Buffer, RegExp][] = [
    ["torn.safetensors", whole.subarray(0, whole.length - 1000), /truncated/],
    ["header.safetensors", whole.subarray(0, 300), /truncated/],
    ["empty.safetensors", Buffer.alloc(0), /empty file|truncated/],
    ["foreign.safetensors", readFileSync(at("pictures", "red", "0.png")), /PNG picture/],
    ["torn.onnx", readFileSync(at("run", "model.onnx")).subarray(0, 5000), /cut short/],
    ["text.onnx", Buffer.from("hello"), /no ONNX model/],
  ];
  for (const [name, bytes, message] of cases) {
    writeFileSync(at(name), bytes);
    await refused(folder, ["evaluate", name, "pictures"], 1, message);
    await refused(folder, ["predict", name, "pictures/red/0.png"], 1, message);
  }
  await refused(folder, ["predict", "run/bets.safetensors", "pictures"], 2, /no such file/, /beside it are best\.safe/);
  await refused(folder, ["predict", "run/modl.onnx", "pictures"], 2, /no such file/, /beside it are model\.onnx/);
  await refused(folder, ["export", "torn.safetensors", "torn-export.onnx"], 1, /truncated/);
  assert.ok(!existsSync(at("torn-export.onnx")));
});

test("weights that do not say whose they are, and a run's folder instead of a file in it", async () => {
  await json(folder, "convert", "run/best.safetensors", "plain.pth");
  const look = (...words: string[]): string[] => ["predict", ...words, "pictures/red/0.png"];
  await refused(folder, look("plain.pth"), 1, /not what model and classes they are for/, /name the model with --model/);
  await refused(folder, ["export", "plain.pth", "plain.onnx"], 1, /not what model and classes/, /oriel convert/);
  const named = ["--model", "resnet20_cifar"];
  await refused(folder, look("plain.pth", ...named), 2, /do not say what their classes are/, /by --classes/);
  await refused(folder, look("plain.pth", ...named, "--classes", "a,b"), 2, /for 3 classes, not for 2/);
  const [{ top }] = await json<{ top: { label: string }[] }[]>(folder, ...look("run/best.safetensors", ...named));
  assert.deepEqual(top.map(({ label }) => label).sort(), ["blue", "green", "red"]);
  await refused(folder, look("run"), 2, /several files of weights/, /best\.safetensors/, /name one of them/);
  await refused(folder, train("pictures", "--model", "plain.pth"), 2, /plain\.pth holds weights, not a model/);
});

test("a loss that is no number: the step, the learning rate, the first tensor", async () => {
  await refused(
    folder,
    train("pictures", "--out", "nan", "--lr", "1e30", "--warmup", "0", "--epochs", "5"),
    1,
    /step \d+, with learning rate \d/,
    /first tensor that is not finite is .+/,
    /--lr/,
  );
  assert.deepEqual(
    readdirSync(at("nan")).filter((name) => name.endsWith(".part")),
    [],
  );
});

test("a folder that cannot be written", async () => {
  writeFileSync(at("file"), "");
  await refused(folder, train("pictures", "--out", "file/run"), 1, /run folder file\/run cannot be written/, /--out/);
  await refused(folder, ["export", "run/best.safetensors", "file/model.onnx"], 1, /not a folder|does not exist/);
});

test("an image size that is too small for the model, or for pictures too large", async () => {
  await refused(
    folder,
    train("pictures", "--image-size", "100000"),
    2,
    /--image-size is 100000, expected at most 16384/,
  );
  await refused(
    folder,
    [...train("pictures", "--image-size", "1"), "--model", "swin_micro_32"],
    2,
    /image/,
    /swin_micro_32/,
  );
});

test("batches that cannot be filled or divided", async () => {
  await refused(folder, train("pictures", "--batch", "4000"), 2, /batch of 4000 cannot be filled/);
  await refused(folder, train("pictures", "--batch", "9", "--accumulate", "2"), 2, /does not divide/);
  rmSync(at("never"), { recursive: true, force: true });
});
