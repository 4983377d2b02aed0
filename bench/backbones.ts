/**
 * One model of each family beside ResNet-50: `node dist/bench/backbones.js [--rounds 5] [--batch 8] > docs/backbones.md`.
 *
 * Each model, ResNet-50 and a MatMul of 2048³ take turns, so that what else the machine does falls on all three.
 */
import { setTimeout } from "node:timers/promises";
import { parseArgs } from "node:util";
import { modelCost } from "../src/backbones/cost.ts";
import { findModel, listModels } from "../src/backbones/index.ts";
import { openMatmul, openWorkload } from "../src/cli/bench/workload.ts";
import { openNode } from "../src/runtime/node.ts";
import { median } from "./peers/table.ts";

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "5" }, batch: { type: "string", default: "8" } },
});
const [rounds, batch] = [Number(values.rounds), Number(values.batch)];

/** The first of its family that reads pictures, not thumbnails, unless a size that most papers compare is named here. */
const compared = [
  "vit_small_patch16_224",
  "resnet50",
  "poolformer_s12",
  "mobilenetv3_large_100",
  "mobile_former_294m",
  "mobilenetv2_100",
  "mnasnet_100",
  "ghostnetv2_100",
  "micronet_m1_224",
  "convnext_tiny",
  "tiny_vit_21m_224",
];

async function representatives(): Promise<string[]> {
  const all = await listModels();
  return [...new Set(all.map((model) => model.family))].map((family) => {
    const models = all.filter((model) => model.family === family);
    const large = models.filter((model) => model.preprocessing.imageSize >= 192);
    return (large.find((model) => compared.includes(model.name)) ?? large[0] ?? models[0]).name;
  });
}

/** Milliseconds of one step, when the threads of what ran before have gone to rest and its own are awake. */
const timed = async (step: () => Promise<void>): Promise<number> => {
  await setTimeout(40);
  await step();
  const start = performance.now();
  await step();
  return performance.now() - start;
};

const runtime = await openNode();
const reference = await openWorkload("resnet50", "inference", { batch });
const matmul = await openMatmul(runtime);
await reference.step();

interface Row {
  name: string;
  ms: number;
  ratio: number;
  macs: number;
}
const measured: Row[] = [];
let best = 0; // multiply-adds per second of the MatMul
for (const name of await representatives()) {
  process.stderr.write(`${name}\n`);
  const work = await openWorkload(name, "inference", { batch });
  await work.step();
  const [ours, theirs]: [number[], number[]] = [[], []];
  for (let round = 0; round < rounds; round++) {
    ours.push(await timed(work.step));
    theirs.push(await timed(reference.step));
    await setTimeout(40);
    for (let i = 0; i < 2; i++) best = Math.max(best, await matmul());
  }
  await work.close();
  measured.push({ name, ms: median(ours), ratio: median(ours) / median(theirs), macs: work.macs });
}
await reference.close();
await runtime.close();

const rows: string[] = [];
for (const { name, ms, ratio, macs } of measured) {
  const entry = await findModel(name);
  const own = modelCost(entry, { classes: 1000 });
  const cells = [
    entry.family,
    `\`${name}\``,
    String(entry.preprocessing.imageSize),
    (own.params / 1e6).toFixed(2),
    (own.macs / 1e9).toPrecision(3),
    (macs / (ms / 1000) / best).toFixed(2),
    ratio.toFixed(2),
  ];
  rows.push(`| ${cells.join(" | ")} |`);
}

console.log(`# Backbones

One model of each family; \`oriel models\` lists all. Parameters and multiply-adds, counted as timm does, are those of one image and 1000
classes. Inference at batch ${batch}, float32, on the engine's CPU provider: *utilisation* is the share of the best rate of a 2048³ MatMul in the
run, which convolutions in blocks can exceed, and *time* that of ResNet-50 beside it, at each model's own image size.
\`node dist/bench/backbones.js > docs/backbones.md\` makes this page.

| family | model | image | parameters, M | multiply-adds, G | utilisation | time ÷ ResNet-50 |
| --- | --- | --- | --- | --- | --- | --- |
${rows.join("\n")}`);
