import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { train } from "../../src/train/index.ts";

// Dynamic ReLU's claim that activations which depend on the image make the same MobileNetV2 better than ReLU does, with one function for
// all channels (A) and more so with one for each (B) (Chen et al. 2020, tables 1 and 4), on CIFAR-10 with mobilenetv2_micro_32: the same
// width, depth and schedule, three seeds.
//
//     node dist/bench/claims/dynamic-relu.js ../shared/data/cifar10-train.tar ../shared/data/cifar10-test.tar [epochs] [seeds]

const [data, val, epochs = "2", seeds = "3"] = process.argv.slice(2);
if (!data || !val) {
  console.error("usage: dynamic-relu.js <training pictures> <validation pictures> [epochs] [seeds]");
  process.exit(2);
}
const choices = ["relu", "dynamic-relu-a", "dynamic-relu-b"] as const;
const rows = new Map<string, number[]>(choices.map((choice) => [choice, []]));
const folder = await mkdtemp(join(tmpdir(), "oriel-claim-"));
try {
  for (let seed = 1; seed <= Number(seeds); seed++)
    for (const activation of choices) {
      const { top1 } = await train({
        data,
        val,
        model: "mobilenetv2_micro_32",
        modelOptions: { activation },
        epochs: Number(epochs),
        seed,
        out: join(folder, `${activation}-${seed}`),
      });
      rows.get(activation)?.push(top1 ?? Number.NaN);
      console.log(`seed ${seed}  ${activation.padEnd(14)}  ${percent(top1 ?? Number.NaN)}`);
    }
} finally {
  await rm(folder, { recursive: true, force: true });
}
console.log("\nactivation      top-1 of each seed           mean");
for (const [activation, top1] of rows) {
  const mean = top1.reduce((a, b) => a + b, 0) / top1.length;
  console.log(`${activation.padEnd(14)}  ${top1.map(percent).join("  ").padEnd(27)}  ${percent(mean)}`);
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
