/**
 * What loading costs: milliseconds of one core for each stage of a 224² training view, how fast the whole loader goes, and by how much
 * it holds back the training step of a model beside it.
 *
 *     node dist/bench/loading.js [folder, list or archive] [--ops] [--beside swin_tiny_patch4_window7_224]
 */
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import sharp from "sharp";
import { Random } from "../src/base/philox.ts";
import { openWorkload } from "../src/cli/bench/workload.ts";
import {
  type Dataset,
  decodeNode,
  type Image,
  imagenet,
  Loader,
  openDataset,
  parseRandAugment,
  prepare,
  randAugment,
  randAugmentOps,
  randomErase,
  randomResizedCrop,
  type Transform,
} from "../src/data/index.ts";
import { median } from "./peers/table.ts";

const { values: flags, positionals } = parseArgs({
  options: { ops: { type: "boolean", default: false }, beside: { type: "string" } },
  allowPositionals: true,
});

/** Photograph-like noise of several grains: 500×375, about 60 kB each. */
async function photographs(count: number): Promise<Uint8Array[]> {
  const grain = async (width: number, height: number, seed: number): Promise<Buffer> => {
    const random = new Random(seed, width);
    const raw = Buffer.from(Array.from({ length: width * height * 3 }, () => random.below(256)));
    return sharp(raw, { raw: { width, height, channels: 3 } })
      .resize(500, 375)
      .png()
      .toBuffer();
  };
  return Promise.all(
    Array.from({ length: count }, async (_, seed) => {
      const fine = await sharp(await grain(125, 94, seed))
        .ensureAlpha(0.35)
        .png()
        .toBuffer();
      return sharp(await grain(12, 9, seed))
        .composite([{ input: fine }])
        .jpeg({ quality: 88 })
        .toBuffer();
    }),
  );
}

const inMemory = (files: readonly Uint8Array[]): Dataset => ({
  classes: ["a", "b"],
  length: files.length,
  label: (i) => i % 2,
  name: (i) => `picture ${i}`,
  read: async (i) => files[i],
});

/** Mean processor milliseconds of one call, the first tenth left out. */
async function cost(rounds: number, work: (round: number) => unknown): Promise<number> {
  for (let i = 0; i < rounds / 10; i++) await work(i);
  const before = process.cpuUsage();
  for (let i = 0; i < rounds; i++) await work(i);
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000 / rounds;
}

const print = (what: string, ms: number): void => console.log(`${what.padEnd(34)} ${ms.toFixed(2).padStart(7)} ms`);

async function stages(dataset: Dataset): Promise<void> {
  const count = Math.min(dataset.length, 16);
  const files = await Promise.all(Array.from({ length: count }, (_, i) => dataset.read(i)));
  const images: Image[] = await Promise.all(files.map((bytes, i) => decodeNode(bytes, dataset.name(i))));
  const [{ width, height }] = images;
  console.log(`${count} pictures, the first of ${width}×${height}; processor time for each`);
  const rounds = 200;
  const crop = { scale: [0.08, 1], ratio: [3 / 4, 4 / 3] } as const;
  const views = images.map((image, i) =>
    randomResizedCrop(image, [224, 224], new Random(1, i), { ...crop, filter: "bicubic" }),
  );
  const policy = parseRandAugment("rand-m9-mstd0.5-inc1");
  const fill = imagenet.mean.map((m) => Math.round(m * 255));
  const out = new Float32Array(3 * 224 * 224);
  const evaluate = prepare({ kind: "evaluate", size: 224 });
  const plain = prepare({ kind: "evaluate", size: 224, cropPct: 1 });
  const key = { seed: 1, epoch: 0, copy: 0 };
  print("decode", await cost(rounds, (i) => decodeNode(files[i % count], "")));
  for (const filter of ["bilinear", "bicubic"] as const) {
    print(
      `random resized crop, ${filter}`,
      await cost(rounds, (i) =>
        randomResizedCrop(images[i % count], [224, 224], new Random(2, i), { ...crop, filter }),
      ),
    );
  }
  print(
    "RandAugment m9, 2 of 15",
    await cost(2 * rounds, (i) => randAugment(views[i % count], policy, new Random(3, i), { filter: "random", fill })),
  );
  print("normalise", await cost(rounds, (i) => plain.apply(views[i % count], { ...key, index: i }, out, 0)));
  print(
    "random erasing, pixel, always",
    await cost(rounds, (i) => randomErase(out, 0, [224, 224], { prob: 1 }, new Random(4, i))),
  );
  print(
    "evaluation view, from decoded",
    await cost(rounds, (i) => evaluate.apply(images[i % count], { ...key, index: i }, out, 0)),
  );
  if (flags.ops) {
    for (const [name, op] of Object.entries(randAugmentOps)) {
      print(
        `  ${name}`,
        await cost(40, (i) =>
          op(views[i % count], 0.9, i % 2 ? 1 : -1, { filter: i % 4 < 2 ? "bilinear" : "bicubic", fill }),
        ),
      );
    }
  }
}

const transform: Transform = {
  kind: "train",
  size: 224,
  randAugment: "rand-m9-mstd0.5-inc1",
  erasing: { prob: 0.25 },
};

async function whole(dataset: Dataset, workers: number): Promise<void> {
  await using loader = new Loader(dataset, { batchSize: 8, transform, workers, cacheBytes: 0 });
  let seen = 0;
  let started = 0;
  let before = process.cpuUsage();
  for (let epoch = 0; seen < 400; epoch++) {
    for await (const { label } of loader.batches({ epoch })) {
      if (started === 0) {
        started = performance.now(); // the first batch pays for starting the threads
        before = process.cpuUsage();
      } else {
        seen += label.length;
      }
    }
  }
  const seconds = (performance.now() - started) / 1000;
  const { user, system } = process.cpuUsage(before);
  const cpu = (user + system) / 1e6;
  const rates = `${(seen / seconds).toFixed(0)} images/s, ${(seen / cpu).toFixed(0)} for each core in use, ${((cpu / seen) * 1000).toFixed(2)} ms of processor for each`;
  console.log(`${`loader, ${workers} worker${workers === 1 ? "" : "s"}`.padEnd(34)} ${rates}`);
}

/** Steps with a batch from the loader for each, and steps on one batch while the loader has nothing to do, in turns. */
async function beside(dataset: Dataset, model: string): Promise<void> {
  const batchSize = 8;
  const work = await openWorkload(model, "training", { batch: batchSize, imageSize: 224 });
  await using loader = new Loader(dataset, { batchSize, transform, cacheBytes: 0 });
  async function* batches(): AsyncGenerator<unknown> {
    for (let epoch = 0; ; epoch++) yield* loader.batches({ epoch });
  }
  const arriving = batches();
  const timed = async (steps: number, before: () => Promise<unknown>): Promise<number> => {
    let start = 0;
    for (let i = -3; i < steps; i++) {
      if (i === 0) start = performance.now(); // batches that had been waiting are used up
      await before();
      await work.step();
    }
    return (performance.now() - start) / steps / batchSize;
  };
  const [alone, loading, ratios]: number[][] = [[], [], []];
  await timed(6, () => arriving.next());
  for (let round = 0; round < 5; round++) {
    loading.push(await timed(12, () => arriving.next()));
    alone.push(await timed(12, async () => {}));
    ratios.push(loading[round] / alone[round]);
  }
  await arriving.return(undefined);
  await work.close();
  console.log(
    `${model}, batch ${batchSize}: a step alone ${median(alone).toFixed(1)} ms an image, with loading beside it ` +
      `${median(loading).toFixed(1)}, ${median(ratios).toFixed(2)} times (${Math.min(...ratios).toFixed(2)}–${Math.max(...ratios).toFixed(2)})`,
  );
}

const [path] = positionals;
const dataset = path === undefined ? inMemory(await photographs(64)) : await openDataset(path);
if (flags.beside) await beside(dataset, flags.beside);
else {
  await stages(dataset);
  for (const workers of [0, 1, Math.max(availableParallelism(), 2)]) await whole(dataset, workers);
}
