import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { modelCost } from "../../src/backbones/cost.ts";
import { findModel } from "../../src/backbones/index.ts";
import { train } from "../../src/train/index.ts";

// Mobile-Former's claim that a few tokens and a bridge to them are worth more than a wider mobile stream of the same multiply-adds
// (Chen et al. 2022, section 4.1 and table 8), on CIFAR-10: the same pictures, schedule and seeds.
//
//     node dist/bench/claims/mobile-former-bridge.js ../shared/data/cifar10-train.tar ../shared/data/cifar10-test.tar [epochs] [seeds]

const [data, val, epochs = "1", seeds = "3"] = process.argv.slice(2);
if (!data || !val) {
  console.error("usage: mobile-former-bridge.js <training pictures> <validation pictures> [epochs] [seeds]");
  process.exit(2);
}
const models = { "with bridge": "mobile_former_micro_32", "mobile alone": "mobile_alone_micro_32" };
for (const [label, model] of Object.entries(models)) {
  const { macs, params } = modelCost(await findModel(model), { classes: 10 });
  console.log(
    `${label.padEnd(12)}  ${(macs / 1e6).toFixed(2)} M multiply-adds  ${(params / 1e3).toFixed(0)} k parameters`,
  );
}
const rows = new Map<string, number[]>(Object.keys(models).map((label) => [label, []]));
const folder = await mkdtemp(join(tmpdir(), "oriel-claim-"));
try {
  for (let seed = 1; seed <= Number(seeds); seed++)
    for (const [label, model] of Object.entries(models)) {
      const { top1 = Number.NaN } = await train({
        data,
        val,
        model,
        epochs: Number(epochs),
        batch: 128,
        seed,
        out: join(folder, `${model}-${seed}`),
      });
      rows.get(label)?.push(top1);
      console.log(`seed ${seed}  ${label.padEnd(12)}  ${percent(top1)}`);
    }
} finally {
  await rm(folder, { recursive: true, force: true });
}
console.log("\nstreams       top-1 of each seed           mean");
for (const [label, top1] of rows) {
  const mean = top1.reduce((a, b) => a + b, 0) / top1.length;
  console.log(`${label.padEnd(12)}  ${top1.map(percent).join("  ").padEnd(27)}  ${percent(mean)}`);
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
