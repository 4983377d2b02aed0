import assert from "node:assert/strict";
import { test } from "node:test";
import sharp from "sharp";
import { type Dataset, Loader } from "../../../src/data/index.ts";
import { runEvaluation } from "../../../src/train/evaluate/run-evaluation.ts";
import { softmaxOf, Tally } from "../../../src/train/evaluate/tally.ts";

const names = ["a", "b", "c", "d", "e", "f", "g"];

test("an answer that is no number is an error, not a guess", async () => {
  const dataset: Dataset = {
    classes: ["a", "b"],
    length: 2,
    name: (i) => `${i}.png`,
    label: (i) => i,
    read: async () =>
      sharp({ create: { width: 4, height: 4, channels: 3, background: "red" } })
        .png()
        .toBuffer(),
  };
  const transform = {
    kind: "evaluate",
    size: 4,
    cropPct: 1,
    interpolation: "bilinear",
    mean: [0, 0, 0],
    std: [1, 1, 1],
  } as const;
  await using loader = new Loader(dataset, { batchSize: 2, transform, workers: 0 });
  const judged = (logit: number) => runEvaluation(async () => Float32Array.of(logit, 0, 0, 1), loader);
  await assert.rejects(judged(Number.NaN), /answers with a logit of NaN/);
  assert.equal((await judged(1))?.top1, 1);
});

test("figures of a few answers, counted by hand", () => {
  const tally = new Tally(names.slice(0, 3), { worst: 2 });
  const ln = Math.log;
  // Probabilities: [.7 .2 .1] right, [.6 .3 .1] wrong, [.1 .1 .8] right, [.05 .9 .05] wrong.
  const logits = [0.7, 0.2, 0.1, 0.6, 0.3, 0.1, 0.1, 0.1, 0.8, 0.05, 0.9, 0.05].map(ln);
  tally.add(Float32Array.from(logits.slice(0, 9)), Int32Array.of(0, 1, 2), (i) => `first ${i}`);
  tally.add(Float32Array.from(logits.slice(9)), Int32Array.of(0), (i) => `second ${i}`);
  const found = tally.result(5);
  assert.deepEqual([found.total, found.correct, found.top1, found.top5, found.skipped], [4, 2, 0.5, 1, 5]);
  assert.ok(Math.abs(found.loss - -(ln(0.7) + ln(0.3) + ln(0.8) + ln(0.05)) / 4) < 1e-6);
  assert.deepEqual(found.classes, [
    { name: "a", total: 2, correct: 1, predicted: 2 },
    { name: "b", total: 1, correct: 0, predicted: 1 },
    { name: "c", total: 1, correct: 1, predicted: 1 },
  ]);
  assert.deepEqual(found.confusion, [
    [1, 1, 0],
    [1, 0, 0],
    [0, 0, 1],
  ]);
  assert.deepEqual(
    found.mistakes.map(({ image, label, predicted }) => [image, label, predicted]),
    [
      ["second 0", "a", "b"],
      ["first 1", "b", "a"],
    ],
  );
  assert.ok(Math.abs(found.mistakes[0].probability - 0.9) < 1e-6);
});

test("top-5 looks at the rank of the label, and equal logits do not help it", () => {
  const tally = new Tally(names);
  const falling = Float32Array.of(7, 6, 5, 4, 3, 2, 1);
  tally.add(falling, Int32Array.of(4), () => "fifth");
  tally.add(falling, Int32Array.of(5), () => "sixth");
  tally.add(new Float32Array(7), Int32Array.of(6), () => "all alike");
  assert.equal(tally.result().top5, 1 / 3);
});

test("of very many classes each has its figures, but not each against each", () => {
  const names = Array.from({ length: 21_841 }, (_, i) => `class ${i}`);
  const tally = new Tally(names);
  const logits = new Float32Array(names.length);
  logits[20_000] = 1;
  tally.add(logits, Int32Array.of(20_000), () => "right");
  tally.add(logits, Int32Array.of(3), () => "wrong");
  const { classes, confusion, top1 } = tally.result();
  assert.deepEqual([top1, confusion], [0.5, undefined]);
  assert.deepEqual(classes[20_000], { name: "class 20000", total: 1, correct: 1, predicted: 2 });
  assert.deepEqual(classes[3], { name: "class 3", total: 1, correct: 0, predicted: 0 });
});

test("only the worst mistakes are kept, the worst first", () => {
  const tally = new Tally(["a", "b"], { worst: 3 });
  const wrong = [0.5, 3, 1, 2, 0.1, 4];
  for (const by of wrong) tally.add(Float32Array.of(0, by), Int32Array.of(0), () => `by ${by}`);
  assert.deepEqual(
    tally.result().mistakes.map((m) => m.image),
    ["by 4", "by 3", "by 2"],
  );
  const none = new Tally(["a", "b"], { worst: 0 });
  none.add(Float32Array.of(0, 1), Int32Array.of(0), () => "by 1");
  assert.deepEqual(none.result().mistakes, []);
});

test("softmax of large logits is finite", () => {
  for (const p of softmaxOf(Float32Array.of(1000, 1000))) assert.ok(Math.abs(p - 0.5) < 1e-12);
});
