import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { classFolders, json, oriel, picture, quick, refused, temporaryFolder } from "./helpers.ts";

// One run on pictures that are easy to tell apart, and all that can be done with it.

const folder = temporaryFolder();
const repository = fileURLToPath(new URL("../../..", import.meta.url));

/** The losses that a run wrote down. */
const lossesOf = (run: string): number[] =>
  readFileSync(join(folder, run, "metrics.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { type: string; loss: number })
    .filter(({ type }) => type === "step")
    .map(({ loss }) => loss);

before(async () => {
  await classFolders(join(folder, "pictures"), 20);
  const { status, stdout, stderr } = await oriel(
    folder,
    "train",
    "pictures",
    ...quick,
    "--epochs",
    "2",
    "--out",
    "run",
    "--json",
  );
  assert.equal(status, 0, stderr);
  const result = JSON.parse(stdout.trim().split("\n").at(-1)!);
  assert.deepEqual(Object.keys(result), ["outcome", "epochs", "step", "top1", "seconds", "folder"]);
  assert.deepEqual([result.outcome, result.epochs, result.step], ["finished", 2, 12]);
  assert.equal(result.folder, "run");
  assert.match(stderr, /54 pictures to learn from, 6 to validate with, 3 classes/);
  assert.match(stderr, /epoch 2\/2 {2}loss \d/);
});

test("train: a run folder", () => {
  assert.deepEqual(
    readdirSync(join(folder, "run")).filter((name) => name !== "evaluation.json"),
    ["best.safetensors", "config.json", "last.safetensors", "metrics.jsonl", "model.onnx", "report.html"],
  );
  assert.match(readFileSync(join(folder, "run", "report.html"), "utf8"), /<html/);
  assert.equal(lossesOf("run").length, 12);
});

test("train: a config file takes the flags' keys, and flags stand above it", async () => {
  writeFileSync(
    join(folder, "own.json"),
    `\uFEFF${JSON.stringify({ data: "pictures", model: "resnet20_cifar", epochs: 3, batch: 8, "weight-decay": 0, workers: 0 })}`,
  );
  const { epochs } = await json<{ epochs: number }>(
    folder,
    "train",
    "--config",
    "own.json",
    "--epochs",
    "1",
    "--out",
    "from-config",
  );
  assert.equal(epochs, 1);
  assert.equal(JSON.parse(readFileSync(join(folder, "from-config", "config.json"), "utf8")).weightDecay, 0);
  writeFileSync(
    join(folder, "wrong.json"),
    JSON.stringify({ data: "pictures", model: "resnet20_cifar", epoch: 3, lr: -1 }),
  );
  await refused(
    folder,
    ["train", "--config", "wrong.json"],
    2,
    /wrong\.json/,
    /epoch: there is no such key; did you mean epochs/,
    /lr is -1, expected more than 0/,
  );
  writeFileSync(join(folder, "torn.json"), '{"data": ');
  await refused(folder, ["train", "--config", "torn.json"], 2, /not JSON/);
  await refused(folder, ["train", "--config", "absent.json"], 2, /no such file/);
});

test("train: config.json of a run folder runs again, to the same bytes", async () => {
  const again = await json<{ folder: string }>(folder, "train", "--config", "run/config.json", "--threads", "1");
  assert.notEqual(again.folder, "run");
  const bytes = (run: string) => readFileSync(join(folder, run, "last.safetensors"));
  assert.ok(bytes("run").equals(bytes(again.folder)));
});

test("train: a finished run is not written over, and going on with it changes nothing", async () => {
  const before = readFileSync(join(folder, "run", "last.safetensors"));
  await refused(folder, ["train", "pictures", ...quick, "--out", "run"], 2, /holds a run already/, /--resume/);
  const { epochs } = await json<{ epochs: number }>(
    folder,
    "train",
    "--config",
    "run/config.json",
    "--resume",
    "--threads",
    "1",
  );
  assert.equal(epochs, 2);
  assert.ok(before.equals(readFileSync(join(folder, "run", "last.safetensors"))));
});

test("train --resume: the run's own config lies below the flags, wherever its folder is now", async () => {
  await json(folder, "train", "pictures", ...quick, "--mixup", "0.3", "--out", "moves/");
  renameSync(join(folder, "moves"), join(folder, "moved"));
  const goesOn = async (...words: string[]) => {
    const { status, stdout, stderr } = await oriel(folder, "train", "--resume", ...words);
    assert.equal(status, 0, stderr);
    assert.match(stdout, /run folder: moved\n/);
    return stderr;
  };
  assert.match(await goesOn("--config", "moved/config.json"), /going on after epoch 1/);
  const said = await goesOn("pictures", "--out", "moved/", "--model", "resnet20_cifar", "--epochs", "2");
  assert.match(said, /goes on with changes: epochs was 1, is 2\n/);
  assert.equal(JSON.parse(readFileSync(join(folder, "moved", "config.json"), "utf8")).mixup, 0.3);
  const another = await json<{ folder: string }>(folder, "train", "--config", "moved/config.json", "--epochs", "1");
  assert.match(another.folder, /^runs/);
  const others = ["train", "--resume", "--out", "moved", "--weights", "run/best.safetensors"];
  await refused(folder, others, 2, /goes on only as it began/, /weights was not given, is "run\/best/);
  await refused(folder, ["train", "--resume"], 2, /does not say which run/, /--out/);
  await refused(
    folder,
    ["train", "pictures", "--resume", "--out", "moves"],
    2,
    /there is no run in moves to go on with/,
  );
});

interface Evaluated {
  total: number;
  correct: number;
  top1: number;
  top5: number;
  skipped: number;
  classes: { name: string; total: number; correct: number }[];
}

test("evaluate: a checkpoint and the exported model answer alike", async () => {
  const found = await json<Evaluated>(folder, "evaluate", "run/best.safetensors", "pictures", "--all");
  assert.equal(found.total, 60);
  assert.equal(found.skipped, 0);
  assert.equal(found.top1, found.correct / found.total);
  assert.equal(found.top5, 1); // of three classes
  assert.deepEqual(found.classes.map(({ name, total }) => [name, total]), [["blue", 20], ["green", 20], ["red", 20]]); // biome-ignore format: a table
  assert.equal(
    found.classes.reduce((sum, { correct }) => sum + correct, 0),
    found.correct,
  );
  const exported = await json<Evaluated>(folder, "evaluate", "run/model.onnx", "pictures", "--all");
  assert.deepEqual(exported.classes, found.classes);
  const { stdout } = await oriel(folder, "evaluate", "run/best.safetensors", "pictures");
  assert.match(stdout, /top-1 \d+\.\d\d % \(\d+ of 6\)[\s\S]*class[\s\S]*Taken for/);
});

test("every command takes its flags from a file", async () => {
  writeFileSync(join(folder, "judge.json"), JSON.stringify({ batch: 7, worst: 0, all: true }));
  const judge = ["evaluate", "run/best.safetensors", "pictures", "--config", "judge.json"];
  const found = await json<Evaluated & { mistakes: object[] }>(folder, ...judge);
  assert.deepEqual([found.total, found.mistakes], [60, []]);
  writeFileSync(join(folder, "judge.json"), JSON.stringify({ epochs: 3 }));
  await refused(folder, judge, 2, /epochs/);
});

test("predict: pictures and folders, a checkpoint and an exported model", async () => {
  const words = ["pictures/red/0.png", "pictures/blue", "--topk", "2"];
  const found = await json<{ image: string; top: { label: string; probability: number }[] }[]>(
    folder,
    "predict",
    "run/best.safetensors",
    ...words,
  );
  assert.equal(found.length, 21);
  assert.equal(found[0].image, "pictures/red/0.png");
  for (const { top } of found) {
    assert.equal(top.length, 2);
    assert.ok(top[0].probability >= top[1].probability && top[0].probability + top[1].probability <= 1.000001);
  }
  await json(folder, "export", "run/best.safetensors", "bytes.onnx", "--input", "uint8", "--licence", "MIT");
  for (const model of ["run/model.onnx", "bytes.onnx"]) {
    const exported = await json<typeof found>(folder, "predict", model, ...words);
    exported.forEach(({ top }, i) => {
      assert.equal(top[0].label, found[i].top[0].label);
      assert.ok(Math.abs(top[0].probability - found[i].top[0].probability) < 1e-4);
    });
  }
});

test("predict: a folder is read as training reads it, links that lead around among it", async () => {
  mkdirSync(join(folder, "linked", "inside"), { recursive: true });
  writeFileSync(join(folder, "linked", "1.PNG"), readFileSync(join(folder, "pictures", "red", "0.png")));
  symlinkSync("..", join(folder, "linked", "inside", "around"), "junction");
  const found = await json<{ image: string }[]>(folder, "predict", "run/best.safetensors", "linked");
  assert.deepEqual(found.map(({ image }) => image), [join("linked", "1.PNG")]); // biome-ignore format: a line
});

test("predict: odd pictures are handled as people expect", async () => {
  const odd = join(folder, "odd");
  mkdirSync(odd, { recursive: true });
  const blue = () => picture("blue", 1);
  await blue().toColourspace("rgb16").png().toFile(join(odd, "16-bit.png"));
  await blue().greyscale().png().toFile(join(odd, "grey.png"));
  await blue().toColourspace("cmyk").jpeg().toFile(join(odd, "cmyk.jpg"));
  await blue().png({ palette: true, colours: 8 }).toFile(join(odd, "palette.png"));
  await blue().ensureAlpha(0.9).png().toFile(join(odd, "transparent.png"));
  await blue().withMetadata({ orientation: 6 }).jpeg().toFile(join(odd, "rotated.jpg"));
  await picture("blue", 1, 1).png().toFile(join(odd, "one-pixel.png"));
  const found = await json<{ image: string; top: { label: string }[] }[]>(
    folder,
    "predict",
    "run/best.safetensors",
    "odd",
  );
  assert.equal(found.length, 7);
  const usual = (await json<typeof found>(folder, "predict", "run/best.safetensors", "pictures/blue/1.png"))[0].top[0]
    .label;
  for (const { image, top } of found) if (!/grey|one-pixel/.test(image)) assert.equal(top[0].label, usual, image);
});

test("export --train-step: onnxruntime-node alone gives the losses of the run", async () => {
  writeFileSync(join(folder, "own-name.json"), readFileSync(join(folder, "run", "config.json")));
  await json(folder, "export", "own-name.json", "step.onnx", "--train-step", "--batches", "12");
  const script = join(repository, "examples", "train-step.mjs");
  const { stdout } = await promisify(execFile)(process.execPath, [script, "step.json"], { cwd: folder });
  const losses = stdout.trim().split("\n").map(Number);
  const trained = lossesOf("run");
  assert.equal(losses.length, 12);
  losses.forEach((loss, i) => {
    assert.ok(
      Math.abs(loss - trained[i]) < 1e-4 * Math.abs(trained[i]) + 1e-6,
      `step ${i + 1}: ${loss}, trained ${trained[i]}`,
    );
  });
});

test("export --train-step: not of weights alone, and without what is for a model", async () => {
  const step = (from: string, ...words: string[]) => ["export", from, "none.onnx", "--train-step", ...words];
  await refused(folder, step("run/best.safetensors"), 2, /weights alone/, /help: take last\.safetensors/);
  await refused(
    folder,
    step("run/last.safetensors", "--preprocess", "--opset", "17"),
    2,
    /for --preprocess, --opset\n/,
  );
  assert.ok(!existsSync(join(folder, "none.onnx")));
});

test("export: only to .onnx, and not into a folder that is not there", async () => {
  await refused(folder, ["export", "run/best.safetensors", "model.txt"], 2, /ends in \.onnx/);
  await refused(folder, ["export", "run/best.safetensors", "nowhere/model.onnx"], 1, /folder does not exist/);
  assert.ok(!existsSync(dirname(join(folder, "nowhere/model.onnx"))));
});

test("bench: inference and training, each in a process of its own", async () => {
  const found = await json<
    Record<string, unknown> & { training: Record<string, number>; inference: Record<string, number> }
  >(folder, ...["bench", "swin_micro_32", "--batch", "2", "--rounds", "1", "--profile"]);
  assert.deepEqual(Object.keys(found), ["model", "batch", "matmulRate", "inference", "training", "profile"]);
  assert.deepEqual(Object.keys(found.inference), ["msPerImage", "utilisation"]);
  assert.deepEqual(Object.keys(found.training), ["msPerImage", "utilisation", "peakBytes", "firstStepSeconds"]);
  for (const figure of [...Object.values(found.inference), ...Object.values(found.training)]) assert.ok(figure > 0);
});
