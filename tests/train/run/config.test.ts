import assert from "node:assert/strict";
import { test } from "node:test";
import { imagenet } from "../../../src/backbones/backbone.ts";
import { UsageError } from "../../../src/base/errors.ts";
import { input } from "../../../src/graph/tensor.ts";
import type { Weight } from "../../../src/nn/module.ts";
import { oneCycle } from "../../../src/optim/schedule.ts";
import { parseConfig, trainSchema } from "../../../src/train/run/config.ts";
import {
  bytesOfText,
  idleValues,
  mixOf,
  resolveConfig,
  scheduleOf,
  streamsOf,
  trainTransform,
} from "../../../src/train/run/defaults.ts";

const least = { data: "photos", model: "swin_micro_32" };

const refusal = (given: Record<string, unknown>): string => {
  try {
    parseConfig({ ...least, ...given });
  } catch (error) {
    assert.ok(error instanceof UsageError);
    return error.message;
  }
  throw new Error("it was accepted");
};

test("what a config needs is data and a model", () => {
  const config = parseConfig(least);
  assert.equal(config.epochs, 30);
  assert.equal(config.optimizer, "adamw");
  assert.equal(config.resume, false);
});

test("every key has a line of help", () => {
  for (const [key, field] of Object.entries(trainSchema.shape)) assert.ok(field.description, key);
});

test("keys may be written as flags are", () => {
  assert.equal(parseConfig({ ...least, "image-size": 64 }).imageSize, 64);
});

test("a memory budget is a number and a unit", () => {
  assert.deepEqual(["1.5GB", "800 mb", "12kB", "7B"].map(bytesOfText), [1.5e9, 8e8, 12e3, 7]);
  assert.equal(parseConfig({ ...least, memoryBudget: "1.5GB" }).memoryBudget, "1.5GB");
  assert.match(refusal({ memoryBudget: "much" }), /memoryBudget is "much", expected a size such as 1.5GB/);
});

test("a wrong key or value is named, with what was expected", () => {
  assert.match(refusal({ epoch: 3 }), /there is no key "epoch"\n {2}help: did you mean epochs\?/);
  assert.match(refusal({ epochs: 0 }), /epochs is 0, expected at least 1/);
  assert.match(refusal({ epochs: 1.5 }), /epochs is 1.5, expected a whole number/);
  assert.match(refusal({ lr: "fast" }), /lr is "fast", expected a number/);
  assert.match(refusal({ smoothing: 1 }), /smoothing is 1, expected less than 1/);
  assert.match(refusal({ lr: Number.POSITIVE_INFINITY }), /lr is Infinity, expected a finite number/);
  assert.match(refusal({ betas: [0.9] }), /betas is \[0.9\], expected at least 2 values/);
  assert.match(refusal({ optimizer: "adam" }), /optimizer is "adam", expected one of adamw, sgd, lamb/);
  assert.match(
    refusal({ augment: "lite" }),
    /augment is "lite", expected none, light, or a RandAugment policy such as rand-/,
  );
  assert.match(refusal({ val: 1.5 }), /val is 1.5, expected less than 1\n.*fraction of every class/);
  assert.match(refusal({ val: true }), /val is true, expected a path, or a fraction between 0 and 1/);
  assert.match(refusal({ data: undefined }), /data is missing/);
  assert.match(refusal({ epochs: -1, sead: 3 }), /2 things in the config are wrong\n(.|\n)*epochs is -1(.|\n)*seed/);
});

const resolve = (given: Record<string, unknown>, imageSize = 32, pictures = 50_000) =>
  resolveConfig(parseConfig({ ...least, ...given }), { ...imagenet, imageSize }, pictures, "run");

test("defaults follow the optimizer, the batch and the pictures", () => {
  const adam = resolve({});
  assert.deepEqual([adam.batch, adam.lr, adam.clip, adam.weightDecay, adam.warmup], [64, 2e-3, 1, 0.05, 3]);
  assert.equal(resolve({ batch: 256 }).lr, 3e-3);
  assert.equal(resolve({ batch: 256 }, 224).lr, 1e-3);
  assert.equal(resolve({ batch: 256, weights: "a.safetensors" }, 224).lr, 1e-4);
  const sgd = resolve({ optimizer: "sgd", batch: 128 });
  assert.deepEqual([sgd.lr, sgd.clip, sgd.weightDecay], [0.05, 0, 1e-4]);
  assert.equal(resolve({ lr: 0.3 }).lr, 0.3);
  assert.equal(resolve({}, 224).batch, 16);
  assert.equal(resolve({}, 32, 60).batch, 4);
  assert.equal(resolve({ accumulate: 3 }, 32, 60).batch % 3, 0);
});

test("resolving what is resolved changes nothing", () => {
  const { resume: _, ...once } = resolve({ optimizer: "lamb", epochs: 7, weights: "x.safetensors" });
  assert.deepEqual(resolve(once), { ...once, resume: false });
});

test("values that contradict each other are refused, those that do nothing are told of", () => {
  assert.throws(() => resolve({ lr: 0.1, minLr: 0.2 }), /the learning rate falls from 0.1, so it cannot end at 0.2/);
  assert.throws(() => resolve({ epochs: 3, warmup: 3 }), /a warm-up of 3 epochs leaves nothing of 3/);
  assert.deepEqual(idleValues(resolve({ augment: "none", vflip: 0.5, hflip: 0 })), [
    "--vflip does nothing with --augment none",
  ]);
  const idle = resolve({ epochs: 3, lr: 0.1, minLr: 0.2, warmup: 3, schedule: "one-cycle" });
  assert.deepEqual(
    idleValues(idle),
    ["warmup", "min-lr"].map((key) => `--${key} does nothing with --schedule one-cycle`),
  );
  assert.ok(scheduleOf(idle, 10)(29) < 1e-6);
  assert.equal(scheduleOf(resolve({ lr: 0.1, minLr: 0.2, warmup: 0, schedule: "constant" }), 10)(9), 0.1);
  assert.deepEqual(idleValues(resolve({ schedule: "one-cycle", warmup: 1 })), [
    "--warmup does nothing with --schedule one-cycle",
  ]);
  assert.deepEqual(idleValues(resolve({ cropScale: 0.5, optimizer: "sgd", eps: 1e-3, imageSize: 32 })), [
    "--eps does nothing with --optimizer sgd",
    "--crop-scale does nothing with --image-size 32",
  ]);
  assert.deepEqual(idleValues(resolve({ cropScale: 0.5, imageSize: 224 })), []);
  // What a run writes down as its defaults is nothing that was asked for.
  for (const schedule of ["one-cycle", "constant"])
    assert.deepEqual(idleValues(resolve(resolve({ schedule, optimizer: "sgd", augment: "none" }))), []);
});

test("a small model on several threads takes parts of a batch side by side", () => {
  const weight = (size: number, kind: Weight["kind"] = "parameter"): Weight => ({
    path: "fc.weight",
    kind,
    tensor: input([size]),
  });
  const streams = (given: Record<string, unknown>, weights = [weight(1e6)]) =>
    streamsOf(resolve({ threads: 8, ...given }), weights);
  assert.equal(streams({}), 4);
  assert.equal(streams({ threads: 2 }), 2);
  assert.equal(streams({ threads: 1 }), 1);
  assert.equal(streams({ batch: 48 }), 3);
  assert.equal(streams({ batch: 31 }), 1);
  assert.equal(streams({ accumulate: 2 }), 1);
  assert.equal(streams({ memoryBudget: "1GB" }), 1);
  assert.equal(streams({ device: "webgpu" }), 1);
  assert.equal(streams({}, [weight(2e6)]), 1);
  assert.equal(streams({}, [weight(1e6), weight(10, "buffer")]), 1);
  assert.equal(streams({ streams: 2, batch: 4 }, [weight(2e6)]), 2);
  assert.equal(streams({ streams: 1 }), 1);
  assert.throws(() => streams({ streams: 3 }), /a batch of 64 does not divide into 3 streams\n.*multiple of --streams/);
  assert.throws(() => streams({ streams: 2, accumulate: 2 }), /leaves no parts of a batch/);
  assert.throws(() => streams({ streams: 2, device: "webgpu" }), /2 streams are for the processor/);
});

test("small pictures are padded and cropped, large ones cropped and resized", () => {
  const { imageSize, ...size32 } = { ...imagenet, imageSize: 32 };
  assert.equal(trainTransform(resolve({}), { ...size32, imageSize }).padding, 4);
  const large = trainTransform(resolve({}, 224), imagenet);
  assert.deepEqual([large.padding, large.scale], [undefined, [0.08, 1]]);
  const none = trainTransform(resolve({ augment: "none" }), imagenet);
  assert.deepEqual([none.padding, none.scale, none.ratio, none.hflip], [undefined, [1, 1], [1, 1], 0]);
  assert.equal(trainTransform(resolve({ augment: "rand-m9" }), imagenet).randAugment, "rand-m9");
});

test("mixing takes the smoothing over", () => {
  assert.equal(mixOf(parseConfig(least)), undefined);
  assert.deepEqual(mixOf(parseConfig({ ...least, mixup: 0.8, smoothing: 0.2 })), {
    alpha: 0.8,
    cutmixAlpha: 0,
    labelSmoothing: 0.2,
  });
});

test("schedules rise, fall and end where they should", () => {
  const rates = (given: Record<string, unknown>): number[] => {
    const schedule = scheduleOf(resolve({ epochs: 10, lr: 1, minLr: 0.01, warmup: 1, ...given }), 10);
    return [0, 9, 10, 55, 100].map((step) => Math.round(schedule(step) * 1000) / 1000);
  };
  // Warm-up is a straight line that reaches lr after 10 steps; 55 is half of the 90 steps that are left.
  assert.deepEqual(rates({}), [0.091, 0.909, 1, 0.505, 0.01]);
  assert.deepEqual(rates({ schedule: "polynomial" }), [0.091, 0.909, 1, 0.505, 0.01]);
  assert.deepEqual(rates({ schedule: "constant" }), [0.091, 0.909, 1, 1, 1]);
  // Factors of ten at 0.3, 0.6 and 0.9 of the way, down to minLr.
  assert.deepEqual(rates({ schedule: "step" }), [0.091, 0.909, 1, 0.1, 0.01]);
  assert.deepEqual(rates({ schedule: "step", minLr: undefined }), [0.091, 0.909, 1, 0.1, 0.001]);
  // torch.optim.lr_scheduler.OneCycleLR(max_lr=1, total_steps=100)
  const cycle = scheduleOf(resolve({ epochs: 10, lr: 1, schedule: "one-cycle" }), 10);
  assert.deepEqual(
    [0, 1, 10, 28, 29, 60, 98, 99].map((step) => Math.round(cycle(step) * 1e6) / 1e6),
    [0.04, 0.042814, 0.295164, 0.997186, 1, 0.58928, 0.000507, 0.000004],
  );
  for (const steps of [1, 2, 3])
    for (let step = 0; step < steps; step++) assert.ok(oneCycle({ lr: 1, steps })(step) <= 1, `${step} of ${steps}`);
});
