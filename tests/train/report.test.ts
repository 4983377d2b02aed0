import assert from "node:assert/strict";
import { appendFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import sharp from "sharp";
import { Tally } from "../../src/train/evaluate/tally.ts";
import { lineChart } from "../../src/train/report/chart.ts";
import { percent } from "../../src/train/report/html.ts";
import { writeReport } from "../../src/train/report/index.ts";
import { parseConfig } from "../../src/train/run/config.ts";
import { temporaryFolder } from "./files.ts";

const home = temporaryFolder();

/** A run folder of so many classes and epochs, without a run. */
function folderOf(classes: readonly string[], epochs: number, wrong: number): string {
  const folder = join(home, `${classes.length}-${epochs}-${wrong}`);
  mkdirSync(folder);
  writeFileSync(join(folder, "config.json"), JSON.stringify(parseConfig({ data: "a & b", model: "<model>" })));
  const step = { type: "step", stepsPerEpoch: 1, loss: 1, accuracy: 0.5, lr: 0.1 };
  const epoch = {
    type: "epoch",
    loss: 1,
    accuracy: 0.5,
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

test("a chart's numbers are equally far apart, as its lines are", () => {
  const ticks = (low: number, high: number, format?: (v: number, more?: number) => string): string[] => {
    const series = [{ name: "", color: 1 as const, points: [[0, low], [1, high]] as const }]; // biome-ignore format: two points
    const svg = lineChart({ title: "", x: "", y: "", series, format });
    return [...svg.matchAll(/text-anchor="end">([^<]+)</g)].map(([, text]) => text);
  };
  assert.deepEqual(ticks(0.686, 0.697), ["0.685", "0.6875", "0.69", "0.6925", "0.695", "0.6975"]);
  assert.deepEqual(ticks(1.6e-4, 3.5e-4), ["1.5e-4", "2e-4", "2.5e-4", "3e-4", "3.5e-4"]);
  const asPercent = (v: number, more = 0): string => percent(v, more);
  assert.deepEqual(ticks(0.56, 0.667, asPercent), ["55.0 %", "57.5 %", "60.0 %", "62.5 %", "65.0 %", "67.5 %"]);
  assert.deepEqual(ticks(0, 0.01, asPercent), ["0.0 %", "0.2 %", "0.4 %", "0.6 %", "0.8 %", "1.0 %"]);
});

test("pictures that training left out are counted too, and a mistake is shown whatever its format", async () => {
  const folder = folderOf(["cat", "dog", "owl"], 1, 1);
  const skip = (picture: string): string => `\n${JSON.stringify({ type: "skip", picture, reason: "torn" })}`;
  appendFileSync(join(folder, "metrics.jsonl"), skip("a.png") + skip("b.png") + skip("a.png"));
  const bitmap = Buffer.alloc(58); // of one pixel
  bitmap.write("BM");
  for (const [value, at] of [[54, 10], [40, 14], [1, 18], [1, 22]]) bitmap.writeInt32LE(value, at); // biome-ignore format: a header
  bitmap.writeUInt16LE(24, 28);
  await writeReport(folder, { picture: async () => bitmap });
  const html = readFileSync(join(folder, "report.html"), "utf8");
  assert.match(html, /<b>2<\/b><span>unreadable pictures left out/);
  assert.match(html, /<img[^>]+src="data:image\/png/);
});

test("a run that was not judged has no report yet", async () => {
  const folder = join(home, "unjudged");
  mkdirSync(folder);
  writeFileSync(join(folder, "config.json"), JSON.stringify({ data: "a", model: "b" }));
  await assert.rejects(writeReport(folder), /has not been evaluated/);
});
