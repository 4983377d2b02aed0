import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import sharp from "sharp";
import { parseConfig } from "../../src/train/config.ts";
import { writeReport } from "../../src/train/report/index.ts";
import { Tally } from "../../src/train/tally.ts";
import { temporaryFolder } from "./files.ts";

const home = temporaryFolder();

/** A run folder of so many classes and epochs, without a run. */
function folderOf(classes: readonly string[], epochs: number, wrong: number): string {
  const folder = join(home, `${classes.length}-${epochs}-${wrong}`);
  mkdirSync(folder);
  writeFileSync(join(folder, "config.json"), JSON.stringify(parseConfig({ data: "a & b", model: "<model>" })));
  const step = { type: "step", stepsPerEpoch: 1, loss: 1, correct: 0.5, lr: 0.1 };
  const epoch = {
    type: "epoch",
    loss: 1,
    correct: 0.5,
    top1: 0.5,
    top5: 1,
    valLoss: 1,
    best: true,
    seconds: 61,
    imagesPerSecond: 10,
  };
  const lines = Array.from({ length: epochs }, (_, i) => [
    { ...step, epoch: i, step: i + 1 },
    { ...epoch, epoch: i + 1 },
  ]).flat();
  writeFileSync(join(folder, "metrics.jsonl"), `${lines.map((e) => JSON.stringify(e)).join("\n")}\n{"type":"st`);
  const tally = new Tally(classes);
  for (let i = 0; i < 3 * classes.length; i++) {
    const logits = new Float32Array(classes.length);
    logits[(i + (i < wrong ? 1 : 0)) % classes.length] = 4;
    tally.add(logits, Int32Array.of(i % classes.length), () => `pictures/${i}.png`);
  }
  writeFileSync(join(folder, "evaluation.json"), JSON.stringify(tally.result()));
  return folder;
}

for (const [count, epochs, wrong] of [
  [2, 1, 0],
  [10, 3, 5],
  [100, 2, 90],
] as const)
  test(`a report of ${count} classes after ${epochs} epochs, ${wrong} pictures wrong`, async () => {
    const names = Array.from({ length: count }, (_, i) => (i === 0 ? `<b>"first" & worst</b>` : `class ${i}`));
    const folder = folderOf(names, epochs, wrong);
    const png = await sharp({ create: { width: 300, height: 200, channels: 3, background: "#abc" } })
      .png()
      .toBuffer();
    await writeReport(folder, {
      picture: async (name) =>
        name.endsWith("/1.png") ? undefined : name.endsWith("/2.png") ? new Uint8Array(3) : png,
    });
    const html = readFileSync(join(folder, "report.html"), "utf8");
    assert.doesNotMatch(html, /NaN|undefined|Infinity|<b>"first|https?:/);
    assert.match(html, /&#60;model&#62;/);
    // Every row and column of the matrix has its name, every right cell its colour.
    assert.equal(html.match(/class="name"/g)?.length, 2 * count);
    assert.equal(html.match(/class="hit"/g)?.length, count);
    assert.equal(html.match(/<img/g)?.length ?? 0, Math.max(Math.min(wrong, 24) - 2, 0));
  });

test("a run that was not judged has no report yet", async () => {
  const folder = join(home, "unjudged");
  mkdirSync(folder);
  writeFileSync(join(folder, "config.json"), JSON.stringify({ data: "a", model: "b" }));
  await assert.rejects(writeReport(folder), /has not been evaluated/);
});
