import assert from "node:assert/strict";
import { test } from "node:test";
import { Progress } from "../../src/cli/progress.ts";
import type { TrainEvent } from "../../src/train/run/events.ts";

/** A run of two epochs of two steps, a second each. */
const events: TrainEvent[] = [
  { type: "load", what: "data", train: 8, val: 2, classes: 2 },
  { type: "begin", epochs: 2, stepsPerEpoch: 2, steps: 4, step: 0, batch: 4, folder: "run" },
  ...[1, 2].map(
    (step): TrainEvent => ({
      type: "step",
      epoch: 0,
      stepInEpoch: step,
      stepsPerEpoch: 2,
      step,
      steps: 4,
      loss: 2 / step,
      accuracy: 0.5,
      lr: 0.1,
      seconds: 1,
    }),
  ),
  { type: "evaluate", epoch: 0, done: 2, total: 2 },
  {
    type: "epoch",
    epoch: 1,
    epochs: 2,
    step: 2,
    loss: 1.5,
    accuracy: 0.5,
    top1: 0.75,
    top5: 1,
    valLoss: 1,
    best: true,
    imagesPerSecond: 4,
    seconds: 2,
  },
  { type: "skip", picture: "a.png", reason: "truncated" },
];

/** What a screen is given, a second passing between events. */
function drawn(screen: { isTTY: boolean; columns?: number }, shown: readonly TrainEvent[], seconds = 1): string {
  let [text, now] = ["", 0];
  const write = (part: string) => {
    text += part;
  };
  const progress = new Progress({ ...screen, write }, () => now);
  for (const event of shown) {
    progress.on(event);
    now += seconds;
  }
  progress.clear();
  return text;
}

test("on a terminal one line changes in place: epoch, steps, loss, accuracy, speed, time left", () => {
  const lines = drawn({ isTTY: true, columns: 140 }, events).split(/[\r\n]/);
  assert.ok(
    lines.some((line) =>
      /^epoch 1\/2 {2}━+╺─+ {2}1\/2 {2}loss 2\.000 {2}accuracy 50\.0 % {2}4 images\/s {2}3\.0 s left/.test(line),
    ),
    lines.join("\n"),
  );
  assert.ok(lines.some((line) => /^epoch 1\/2 {2}━+ {2}2\/2 {2}loss 1\.900 .* {2}2\.0 s left/.test(line)));
  assert.ok(lines.some((line) => line.includes("epoch 1/2  loss 1.500  accuracy 50.0 %  validation 75.0 %")));
  assert.equal(lines.at(-1), ""); // the changing line is taken away
});

test("a line is never wider than the terminal", () => {
  const lines = drawn({ isTTY: true, columns: 40 }, events)
    .split(/[\r\n]/)
    .filter((line) => line.includes("━"));
  for (const line of lines) assert.ok(line.replaceAll("\u001b[K", "").length < 40);
});

test("elsewhere plain lines, now and then", () => {
  const text = drawn({ isTTY: false }, events);
  for (const sign of ["\r", "\u001b", "━"]) assert.ok(!text.includes(sign));
  assert.deepEqual(
    text
      .trim()
      .split("\n")
      .map((line) => line.split("  ")[0]),
    [
      "8 pictures to learn from, 2 to validate with, 2 classes",
      "training for 2 epochs of 2 steps, 4 images each",
      "epoch 1/2",
      "left out a.png: truncated",
    ],
  );
  const done = { type: "begin", epochs: 2, stepsPerEpoch: 2, steps: 4, step: 4, batch: 4, folder: "run" } as const;
  assert.equal(drawn({ isTTY: false }, [done]), "nothing is left to train: of 2 epochs, 4 steps, 4 are done\n");
  const slow = drawn({ isTTY: false }, events, 20);
  assert.match(slow, /^epoch 1\/2 {2}2\/2 {2}loss 1\.900/m);
});
