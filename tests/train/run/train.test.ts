import assert from "node:assert/strict";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { UsageError } from "../../../src/base/errors.ts";
import { type Dataset, openDataset, splitDataset } from "../../../src/data/index.ts";
import { loadCheckpoint, saveCheckpoint } from "../../../src/train/checkpoint/checkpoint.ts";
import type { TrainConfigInput } from "../../../src/train/run/config.ts";
import type { TrainEvent } from "../../../src/train/run/events.ts";
import type { ResumeInput } from "../../../src/train/run/resume.ts";
import { readRunConfig } from "../../../src/train/run/run-folder.ts";
import { train } from "../../../src/train/run/train.ts";
import { rejection, small, temporaryFolder, writePictures } from "../files.ts";

const home = temporaryFolder();
const data = join(home, "pictures");
before(async () => {
  await writePictures(data);
});

const config = (name: string, more: Partial<TrainConfigInput> = {}): TrainConfigInput => ({
  ...small,
  data,
  val: 0.25,
  epochs: 2,
  out: join(home, name),
  lr: 2e-3,
  ...more,
});

async function watched(
  given: TrainConfigInput | ResumeInput,
  signal?: AbortSignal,
  onEvent?: (event: TrainEvent) => void,
) {
  const events: TrainEvent[] = [];
  const result = await train(given, {
    signal,
    onEvent: (event) => {
      events.push(event);
      onEvent?.(event);
    },
  });
  const of = <T extends TrainEvent["type"]>(type: T) =>
    events.filter((e): e is Extract<TrainEvent, { type: T }> => e.type === type);
  return { result, of, events };
}

test("a run learns, and leaves its folder", async () => {
  const { result, of, events } = await watched(config("learns", { epochs: 5 }));
  assert.equal(result.outcome, "finished");
  const compiled = events.flatMap((e, i) => (e.type === "compile" ? [[e.program, i] as const] : []));
  assert.deepEqual(
    compiled.map(([program]) => program),
    ["train", "evaluate"],
  );
  const started = events.findIndex((e) => e.type === "begin");
  assert.ok(compiled[1][1] < started, "nothing is drawn once steps run: that would hold up the caller's thread");
  assert.ok(result.top1! >= 0.9, `${result.top1}`);
  assert.deepEqual(readdirSync(join(home, "learns")).sort(), [
    "best.safetensors",
    "config.json",
    "evaluation.json",
    "last.safetensors",
    "metrics.jsonl",
    "model.onnx",
    "report.html",
  ]);
  const [begin] = of("begin");
  assert.deepEqual([begin.stepsPerEpoch, begin.steps, begin.step], [4, 20, 0]);
  assert.deepEqual(
    of("step").map((e) => e.step),
    Array.from({ length: 20 }, (_, i) => i + 1),
  );
  assert.equal(of("epoch").length, 5);
  const lines = readFileSync(join(home, "learns", "metrics.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as TrainEvent);
  assert.equal(lines.filter((e) => e.type === "step").length, 20);
  assert.equal(lines.at(-1)!.type, "end");
  const report = readFileSync(join(home, "learns", "report.html"), "utf8");
  assert.match(report, /<svg/);
  assert.doesNotMatch(report, /(src|href)="https?:/);
});

test("a run's config.json runs it again, to the same bytes", async () => {
  const first = config("once", {
    epochs: 1,
    dropPath: 0.1,
    mixup: 0.5,
    erasing: 0.5,
    repeats: 2,
    classWeights: true,
    balanced: true,
  });
  await train(first);
  const again = await readRunConfig(first.out!);
  await train({ ...again, out: join(home, "twice") });
  for (const name of ["last.safetensors", "best.safetensors"])
    assert.ok(readFileSync(join(home, "once", name)).equals(readFileSync(join(home, "twice", name))), name);
});

test("a folder that holds a run is not written over", async () => {
  mkdirSync(join(home, "taken"));
  writeFileSync(join(home, "taken", "metrics.jsonl"), "");
  const error = await rejection(train(config("taken")));
  assert.ok(error instanceof UsageError);
  assert.match(
    error.message,
    /taken holds a run already\n {2}help: go on with it by --resume, or give another folder by --out/,
  );
});

test("a run folder that cannot be made is told of", async () => {
  writeFileSync(join(home, "file"), "");
  const error = await rejection(train(config("file/run")));
  assert.equal(error.code, "not-writable");
  assert.match(error.message, /part of the path is a file/);
});

test("wrong things are asked back before anything is written", async () => {
  assert.match((await rejection(train(config("a", { model: "swim_micro_32" })))).message, /did you mean swin_micro_32/);
  assert.match(
    (await rejection(train(config("a", { freeze: ["layer.0"] })))).message,
    /no parameter matches "layer.0"/,
  );
  assert.match(
    (await rejection(train(config("a", { batch: 9, accumulate: 2 })))).message,
    /a batch of 9 does not divide into 2 parts/,
  );
  assert.match((await rejection(train(config("a", { augment: "rand-m99" })))).message, /RandAugment/);
  for (const [
    key,
    help,
  ] of [["dropPath", "--drop-path"], ["imageSize", "--image-size"], ["inChannels", "three channels"]] as const) // biome-ignore format: a table
    assert.match(
      (await rejection(train(config("a", { modelOptions: { [key]: 1 } })))).message,
      new RegExp(`${key} is none of the model's options in training\n  help: .*${help}`),
    );
  const single = await writePictures(join(home, "single"), { count: 1 });
  assert.match(
    (await rejection(train(config("a", { data: single, batch: 2 })))).message,
    /no class has a second picture, so that of 3 none is left to validate with/,
  );
  assert.ok(!existsSync(join(home, "a")));
});

test("training stops when validation gets no better", async () => {
  // A rate of almost nothing changes nothing.
  const { result, of } = await watched(config("patience", { epochs: 9, patience: 2, lr: 1e-12 }));
  assert.equal(result.outcome, "stopped");
  const best = of("epoch")
    .filter((e) => e.best)
    .at(-1)!.epoch;
  assert.equal(result.epochs, best + 2);
});

test("frozen parameters come out as they went in", async () => {
  const { of } = await watched(config("frozen", { epochs: 1, freeze: ["backbone"], ema: 0.5 }));
  const model = of("load").find((e) => e.what === "model")!;
  assert.ok(model.what === "model" && model.trained === 128 * 3 + 3);
  const { tensors } = await loadCheckpoint(join(home, "frozen", "last.safetensors"));
  const other = await watched(config("free", { epochs: 1, lr: 1e-12 }));
  const free = (await loadCheckpoint(join(other.result.folder, "last.safetensors"))).tensors;
  const path = "layers.1.blocks.0.attn.qkv.weight";
  assert.ok(tensors.get(path)!.data.every((x, i) => Math.abs(x - free.get(path)!.data[i]) < 1e-9));
  assert.equal(tensors.has(`optimizer.m.${path}`), false);
  assert.ok(tensors.has("ema.head.fc.weight"));
});

test("an interruption saves, and going on ends as if there had been none", async () => {
  const whole = config("whole");
  await train(whole);
  const stop = new AbortController();
  const cut = config("cut");
  const { result } = await watched(cut, stop.signal, (event) => {
    if (event.type === "step" && event.step === 3) stop.abort();
  });
  assert.deepEqual([result.outcome, result.step, result.top1], ["interrupted", 3, undefined]);
  const { metadata } = await loadCheckpoint(join(home, "cut", "last.safetensors"));
  const { lossInEpoch, accuracyInEpoch, ...where } = metadata.progress;
  assert.deepEqual(where, { epoch: 0, stepInEpoch: 3, step: 3 });
  assert.ok(lossInEpoch > 0 && accuracyInEpoch > 0);
  const resumed = await watched({ ...cut, resume: true });
  assert.equal(resumed.of("begin")[0].step, 3);
  for (const name of ["last.safetensors", "best.safetensors"])
    assert.ok(readFileSync(join(home, "cut", name)).equals(readFileSync(join(home, "whole", name))), name);
  const steps = readFileSync(join(home, "cut", "metrics.jsonl"), "utf8")
    .split("\n")
    .filter((line) => line.includes('"type":"step"'));
  assert.equal(steps.length, 8);
});

test("an interruption during evaluation goes on with the evaluation", async () => {
  const stop = new AbortController();
  const cut = config("cut-late");
  const { result } = await watched(cut, stop.signal, (event) => {
    if (event.type === "evaluate" && event.epoch === 1) stop.abort();
  });
  assert.deepEqual([result.outcome, result.step, result.epochs], ["interrupted", 8, 1]);
  await train({ ...cut, resume: true });
  assert.ok(
    readFileSync(join(home, "cut-late", "last.safetensors")).equals(
      readFileSync(join(home, "whole", "last.safetensors")),
    ),
  );
  assert.deepEqual(epochs("cut-late"), epochs("whole"));
});

/** What each epoch of a run is said to have found: of all its steps, whenever they were made. */
const epochs = (run: string): unknown[] =>
  readFileSync(join(home, run, "metrics.jsonl"), "utf8")
    .split("\n")
    .filter((line) => line.includes('"type":"epoch"'))
    .map((line) => {
      const { imagesPerSecond, seconds, time, ...found } = JSON.parse(line);
      return found;
    });

test("a run goes on as it was told, but for what is given, and says what that changes", async () => {
  const told = { mixup: 0.5, smoothing: 0.2, schedule: "polynomial", loss: "bce" } as const;
  await train(config("told", { ...told, epochs: 1 }));
  const out = join(home, "told");
  const { of } = await watched({ out: `${out}/`, resume: true, epochs: 2, lr: 1e-3 });
  const { minLr, ...now } = await readRunConfig(out);
  assert.deepEqual({ ...now, ...told, epochs: 2, lr: 1e-3, out }, now);
  assert.equal(minLr, 1e-5); // a hundredth, as it was
  assert.deepEqual(
    of("resume")[0].changes.map(({ key, was, is }) => [key, was, is]),
    [
      ["epochs", 1, 2],
      ["lr", 2e-3, 1e-3],
    ],
  );
});

test("going on needs a run, but no checkpoint", async () => {
  const error = await rejection(train(config("nothing", { resume: true })));
  assert.ok(error instanceof UsageError);
  assert.match(error.message, /there is no run in .*nothing to go on with/);
  assert.ok(!existsSync(join(home, "nothing")));
  mkdirSync(join(home, "begun"));
  const { resume: _, ...begun } = await readRunConfig(join(home, "whole"));
  writeFileSync(join(home, "begun", "config.json"), JSON.stringify({ ...begun, epochs: 1 }));
  const { result, of } = await watched({ out: join(home, "begun"), resume: true });
  assert.deepEqual([of("resume")[0].anew, of("begin")[0].step, result.step], [true, 0, 4]);
});

test("pictures may move while a run is stopped, but stay the same ones", async () => {
  const then = await writePictures(join(home, "then"));
  const stop = new AbortController();
  const cut = config("moves", { data: then });
  await watched(cut, stop.signal, (event) => {
    if (event.type === "step" && event.step === 3) stop.abort();
  });
  renameSync(then, join(home, "moved"));
  writeFileSync(join(home, "moved", "red", "new.png"), "");
  const out = join(home, "moves");
  const error = await rejection(train({ out, resume: true, data: join(home, "moved") }));
  assert.match(error.message, /36 to learn from and 12 to validate with were the pictures, now 37 .* and 12 /);
  rmSync(join(home, "moved", "red", "new.png"));
  const { result } = await watched({ out, resume: true, data: `${join(home, "moved")}/` });
  assert.deepEqual([result.outcome, result.step], ["finished", 8]);
  // A checkpoint of an earlier version knows where they lie alone.
  const last = join(out, "last.safetensors");
  const { tensors, metadata } = await loadCheckpoint(last);
  await saveCheckpoint(last, tensors, { ...metadata, pictures: undefined });
  assert.equal((await train({ out, resume: true })).step, 8);
  renameSync(join(home, "moved"), then);
  assert.match(
    (await rejection(train({ out, resume: true, data: then }))).message,
    /data was ".*moved.*", is ".*then"/,
  );
});

test("nothing is no config", async () => {
  assert.match((await rejection(train(undefined as never))).message, /a config is an object/);
});

test("a run does not go on as another one", async () => {
  const error = await rejection(train({ ...config("whole"), resume: true, batch: 4, seed: 2 }));
  assert.ok(error instanceof UsageError);
  assert.match(error.message, /batch was 8, is 4\n {2}seed was 0, is 2/);
  const other = await rejection(train({ ...config("whole"), resume: true, model: "resnet20_cifar" }));
  assert.equal(other.code, "mismatch");
  assert.match(other.message, /the file says it holds swin_micro_32/);
  const elsewise = await rejection(train({ ...config("whole"), resume: true, modelOptions: { window: 2 } }));
  assert.match(elsewise.message, /modelOptions was not given, is {"window":2}/);
});

test("a loss that is not a number stops the run, and says where it began", async () => {
  const first = config("diverges", { epochs: 1 });
  await train(first);
  const good = readFileSync(join(home, "diverges", "last.safetensors"));
  const checkpoint = await loadCheckpoint(join(home, "diverges", "last.safetensors"));
  // A weight so large that what it makes overflows, though the weight itself is finite.
  const path = "layers.1.blocks.0.mlp.fc1.weight";
  checkpoint.tensors.get(path)!.data.fill(3e38);
  const spoilt = join(home, "spoilt.safetensors");
  await saveCheckpoint(spoilt, checkpoint.tensors, checkpoint.metadata);
  for (const streams of [1, 2]) {
    const error = await rejection(
      train(config(`spoilt-${streams}`, { weights: spoilt, epochs: 1, threads: 2, streams })),
    );
    assert.equal(error.code, "non-finite");
    assert.match(
      error.message,
      /the loss is NaN at step 1, with learning rate [\d.e-]+; the first tensor that is not finite is the output of \w+ in layers\.1\.blocks\.0\.mlp\.fc1/,
    );
    assert.ok(!existsSync(join(home, `spoilt-${streams}`, "last.safetensors")));
  }
  // And one that an update breaks, after a good checkpoint.
  const later = await rejection(
    train({ ...first, resume: true, epochs: 3, lr: 1e30, clip: 0, schedule: "constant", warmup: 0 }),
  );
  assert.equal(later.code, "non-finite");
  assert.match(later.message, /at step [56], with learning rate 1e\+30/);
  assert.match(later.message, /last\.safetensors is the last good state/);
  assert.ok(readFileSync(join(home, "diverges", "last.safetensors")).equals(good));
});

test("a run whose export fails has its report, and says why", async () => {
  const blocked = config("blocked", { epochs: 1 });
  const onEvent = (event: TrainEvent) => {
    if (event.type === "epoch") mkdirSync(join(home, "blocked", "model.onnx", "inside"), { recursive: true });
  };
  const error = await rejection(train(blocked, { onEvent }));
  assert.match(error.message, /model\.onnx/);
  for (const name of ["report.html", "evaluation.json", "best.safetensors"])
    assert.ok(existsSync(join(home, "blocked", name)), name);
});

test("a run that cannot begin leaves its name free", async () => {
  const other = join(home, "other-model.safetensors");
  const { metadata } = await loadCheckpoint(join(home, "whole", "best.safetensors"));
  const tensor = { shape: [1], data: new Float32Array(1) };
  await saveCheckpoint(other, new Map([["elsewhere.weight", tensor]]), { ...metadata, model: "resnet20_cifar" });
  await rejection(train(config("never", { weights: other })));
  assert.ok(!existsSync(join(home, "never")));
});

const noFullDevice = existsSync("/dev/full") ? false : "this system has no /dev/full";
test("a full disk while saving stops the run and leaves the checkpoint before", { skip: noFullDevice }, async () => {
  const full = config("full", { epochs: 1 });
  await train(full);
  const before = readFileSync(join(home, "full", "last.safetensors"));
  symlinkSync("/dev/full", join(home, "full", "last.safetensors.part")); // every write there fails as on a full disk
  const error = await rejection(train({ ...full, resume: true, epochs: 2 }));
  assert.equal(error.code, "not-saved");
  assert.match(error.message, /no space left while saving .*last\.safetensors/);
  assert.ok(readFileSync(join(home, "full", "last.safetensors")).equals(before));
});

test("broken pictures are left out and told of; too many stop the run", async () => {
  const folder = await writePictures(join(home, "broken"), { count: 44 });
  writeFileSync(join(folder, "red", "0.png"), "");
  const { result, of } = await watched(config("with-broken", { data: folder, epochs: 1 }));
  assert.equal(result.outcome, "finished");
  assert.deepEqual(
    of("skip").map((e) => e.picture.endsWith(join("red", "0.png"))),
    [true],
  );
  mkdirSync(join(home, "unreadable", "red"), { recursive: true });
  writeFileSync(join(home, "unreadable", "red", "0.png"), "no picture");
  const blind = await rejection(train(config("blind", { val: join(home, "unreadable"), epochs: 1 })));
  assert.match(blind.message, /none of the pictures to judge by can be read/);
  // What had been learned by then is there, and goes on once there are pictures to judge by.
  copyFileSync(join(folder, "red", "1.png"), join(home, "unreadable", "red", "0.png"));
  const seeing = await watched({ ...config("blind", { val: join(home, "unreadable"), epochs: 1 }), resume: true });
  assert.equal(seeing.result.outcome, "finished");
  assert.equal(seeing.of("step").length, 0);
  assert.ok(seeing.of("epoch")[0].loss > 0);
  for (let i = 1; i < 6; i++) writeFileSync(join(folder, "red", `${i}.png`), "no picture");
  const error = await rejection(train(config("too-broken", { data: folder, epochs: 1 })));
  assert.equal(error.code, "broken-pictures");
});

test("pictures that are no files train as files do, and stay open", async () => {
  const { train: some, val } = splitDataset(await openDataset(data, { split: "train" }), { fraction: 0.25, seed: 1 });
  const inMemory = (dataset: Dataset): Dataset => ({
    classes: dataset.classes,
    length: dataset.length,
    label: (i) => dataset.label(i),
    name: (i) => `picture ${i}`,
    read: (i) => dataset.read(i),
    close: () => Promise.reject(new Error("closed")),
  });
  const given = config("memory", { data: "stripes made here", epochs: 1, seed: 1 });
  const own = await train(given, { pictures: { train: inMemory(some), val: inMemory(val) } });
  const files = await train(config("files", { epochs: 1, seed: 1 }));
  assert.equal(own.top1, files.top1);
  assert.equal((await readRunConfig(own.folder)).data, "stripes made here");
});
