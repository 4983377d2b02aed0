import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { train } from "../../src/train/index.ts";

// MetaFormer's claim that the skeleton matters more than what mixes its tokens (Yu et al. 2022, table 5), on CIFAR-10 with
// poolformer_micro_32: attention replaced by pooling loses little, no mixing at all loses much.  Pooling and no mixing have the same
// parameters, attention has its own besides; one schedule for all, three seeds.
//
//     node dist/bench/claims/poolformer-mixer.js ../shared/data/cifar10-train.tar ../shared/data/cifar10-test.tar [epochs] [seeds]

const [data, val, epochs = "3", seeds = "3"] = process.argv.slice(2);
if (!data || !val) {
  console.error("usage: poolformer-mixer.js <training pictures> <validation pictures> [epochs] [seeds]");
  process.exit(2);
}
const choices = ["pooling", "attention", "identity"] as const;
const rows = new Map<string, number[]>(choices.map((choice) => [choice, []]));
const folder = await mkdtemp(join(tmpdir(), "oriel-claim-"));
try {
  for (let seed = 1; seed <= Number(seeds); seed++)
    for (const mixer of choices) {
      const { top1 } = await train({
        data,
        val,
        model: "poolformer_micro_32",
        modelOptions: { mixer },
        epochs: Number(epochs),
        seed,
        out: join(folder, `${mixer}-${seed}`),
      });
      rows.get(mixer)?.push(top1 ?? Number.NaN);
      console.log(`seed ${seed}  ${mixer.padEnd(9)}  ${percent(top1 ?? Number.NaN)}`);
    }
} finally {
  await rm(folder, { recursive: true, force: true });
}
console.log("\nmixer      top-1 of each seed           mean");
for (const [mixer, top1] of rows) {
  const mean = top1.reduce((a, b) => a + b, 0) / top1.length;
  console.log(`${mixer.padEnd(9)}  ${top1.map(percent).join("  ").padEnd(27)}  ${percent(mean)}`);
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
