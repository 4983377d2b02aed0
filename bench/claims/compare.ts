import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import { modelCost } from "../../src/backbones/cost.ts";
import { findModel } from "../../src/backbones/index.ts";
import { type TrainConfigInput, train } from "../../src/train/index.ts";

/** What one side of a comparison has of its own: a model, options of it, … */
type Choice = Pick<TrainConfigInput, "model"> & Partial<TrainConfigInput>;

/**
 * Trains every choice with the same pictures, schedule and seeds, and prints what each costs and reaches:
 *
 *     node dist/bench/claims/SCRIPT.js TRAIN VAL [--epochs N] [--seeds 1,2,3] [--threads N]
 */
export async function compare(choices: Readonly<Record<string, Choice>>, usual: { epochs: number }): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { epochs: { type: "string" }, seeds: { type: "string", default: "1,2,3" }, threads: { type: "string" } },
  });
  const [data, val] = positionals;
  if (!data || !val) {
    console.error(
      `usage: ${basename(process.argv[1])} <training pictures> <validation pictures> [--epochs N] [--seeds 1,2,3] [--threads N]`,
    );
    process.exit(2);
  }
  const epochs = Number(values.epochs ?? usual.epochs);
  const threads = values.threads === undefined ? undefined : Number(values.threads);

  const names = Object.keys(choices);
  const width = Math.max(...names.map((name) => name.length));
  for (const [name, { model, modelOptions = {} }] of Object.entries(choices)) {
    const { macs, params } = modelCost(await findModel(model), { classes: 10, modelOptions });
    console.log(
      `${name.padEnd(width)}  ${(params / 1e3).toFixed(0)} k parameters  ${(macs / 1e6).toFixed(2)} M multiply-adds`,
    );
  }
  const reached = new Map<string, number[]>(names.map((name) => [name, []]));
  const folder = await mkdtemp(join(tmpdir(), "oriel-claim-"));
  try {
    for (const seed of values.seeds.split(",").map(Number))
      for (const [i, name] of names.entries()) {
        const run = { data, val, epochs, seed, threads, out: join(folder, `${i}-${seed}`) };
        const { top1 = Number.NaN } = await train({ ...run, ...choices[name] });
        reached.get(name)?.push(top1);
        console.log(`seed ${seed}  ${name.padEnd(width)}  ${percent(top1)}`);
      }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  console.log(`\ntop-1 after ${epochs} ${epochs === 1 ? "epoch" : "epochs"}, for each seed, and the mean`);
  for (const [name, top1] of reached) {
    const mean = top1.reduce((a, b) => a + b, 0) / top1.length;
    console.log(`${name.padEnd(width)}  ${top1.map(percent).join("  ")}  ${percent(mean)}`);
  }
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
