import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { train } from "../../src/train/index.ts";

// CSWin's claim that stripes of both directions together beat stripes of one (Dong et al. 2021, section 4.4, table 7), on CIFAR-10
// with cswin_micro_32: the same parameters, multiply-adds and schedule, three seeds.
//
//     node dist/bench/claims/cswin-directions.js ../shared/data/cifar10-train.tar ../shared/data/cifar10-test.tar [epochs] [seeds]

const [data, val, epochs = "3", seeds = "3"] = process.argv.slice(2);
if (!data || !val) {
  console.error("usage: cswin-directions.js <training pictures> <validation pictures> [epochs] [seeds]");
  process.exit(2);
}
const choices = ["both", "vertical", "horizontal"] as const;
const rows = new Map<string, number[]>(choices.map((choice) => [choice, []]));
const folder = await mkdtemp(join(tmpdir(), "oriel-claim-"));
try {
  for (let seed = 1; seed <= Number(seeds); seed++)
    for (const directions of choices) {
      const { top1 } = await train({
        data,
        val,
        model: "cswin_micro_32",
        modelOptions: { directions },
        epochs: Number(epochs),
        seed,
        out: join(folder, `${directions}-${seed}`),
      });
      rows.get(directions)?.push(top1 ?? Number.NaN);
      console.log(`seed ${seed}  ${directions.padEnd(10)}  ${percent(top1 ?? Number.NaN)}`);
    }
} finally {
  await rm(folder, { recursive: true, force: true });
}
console.log("\ndirections   top-1 of each seed           mean");
for (const [directions, top1] of rows) {
  const mean = top1.reduce((a, b) => a + b, 0) / top1.length;
  console.log(`${directions.padEnd(11)}  ${top1.map(percent).join("  ").padEnd(27)}  ${percent(mean)}`);
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
