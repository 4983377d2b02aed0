import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { OrielError, UsageError } from "../../src/base/errors.ts";
import {
  type Batch,
  BrokenPictures,
  type Dataset,
  Loader,
  type LoaderOptions,
  splitDataset,
  type TrainTransform,
  type Transform,
} from "../../src/data/index.ts";
import { memoryDataset } from "./helpers.ts";

const train: Transform = {
  kind: "train",
  size: 8,
  randAugment: "rand-m9-n3-mstd0.5-inc1",
  colorJitter: 0.4,
  erasing: { prob: 0.5 },
};
const evaluate: Transform = { kind: "evaluate", size: 8 };
const quiet = (limit = 1): BrokenPictures => new BrokenPictures({ limit, report: () => {} });

async function collect(
  dataset: Dataset,
  options: Partial<LoaderOptions>,
  at: { epoch?: number; startStep?: number } = {},
): Promise<Batch[]> {
  await using loader = new Loader(dataset, { batchSize: 4, transform: train, workers: 0, ...options });
  const batches: Batch[] = [];
  for await (const batch of loader.batches(at)) batches.push(batch);
  return batches;
}

describe("batches", () => {
  test("shapes, labels and the last one", async () => {
    const dataset = await memoryDataset(10);
    const full = await collect(dataset, {});
    assert.deepEqual(
      full.map(({ step, shape }) => [step, shape[0]]),
      [
        [0, 4],
        [1, 4],
      ],
    );
    const [first] = full;
    assert.deepEqual(first.shape, [4, 3, 8, 8]);
    assert.equal(first.image.length, 4 * 3 * 8 * 8);
    assert.ok(first.image.every(Number.isFinite));
    assert.deepEqual(
      [...first.label],
      Array.from(first.index, (i) => i % 3),
    );
    assert.equal(first.target, undefined);
    const all = await collect(dataset, { transform: evaluate });
    assert.deepEqual(
      all.flatMap(({ index }) => [...index]),
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    );
    assert.equal(all[2].shape[0], 2);
  });

  test("the number of workers, prefetching and the cache change nothing", async () => {
    const dataset = await memoryDataset(26, { broken: [5] });
    const options = { mix: { alpha: 0.8, cutmixAlpha: 1, labelSmoothing: 0.1 }, seed: 3, repeats: 2 };
    const alone = await collect(dataset, { ...options, cacheBytes: 0, broken: quiet() }, { epoch: 1 });
    assert.equal(alone.length, 6);
    for (const other of [{ workers: 1 }, { workers: 3 }, { workers: 2, prefetch: 1 }]) {
      assert.deepEqual(await collect(dataset, { ...options, ...other, broken: quiet() }, { epoch: 1 }), alone);
    }
    // a second epoch comes from the cache
    await using loader = new Loader(dataset, {
      batchSize: 4,
      transform: train,
      workers: 1,
      broken: quiet(),
      ...options,
    });
    for await (const _ of loader.batches({ epoch: 0 }));
    const again: Batch[] = [];
    for await (const batch of loader.batches({ epoch: 1 })) again.push(batch);
    assert.deepEqual(again, alone);
  });

  test("an epoch entered at a step goes on as it would have", async () => {
    const dataset = await memoryDataset(22);
    const whole = await collect(dataset, { workers: 1 }, { epoch: 2 });
    assert.deepEqual(await collect(dataset, { workers: 2 }, { epoch: 2, startStep: 3 }), whole.slice(3));
    assert.deepEqual(await collect(dataset, {}, { epoch: 2, startStep: 5 }), []);
    await assert.rejects(collect(dataset, {}, { startStep: 6 }), UsageError);
  });

  test("seeds and epochs differ, and so do the copies of a repeated picture", async () => {
    const dataset = await memoryDataset(8);
    const [a] = await collect(dataset, { shuffle: false });
    for (const other of [
      await collect(dataset, { shuffle: false, seed: 1 }),
      await collect(dataset, { shuffle: false }, { epoch: 1 }),
    ]) {
      assert.deepEqual(other[0].index, a.index);
      assert.notDeepEqual(other[0].image, a.image);
    }
    const [repeated] = await collect(dataset, { repeats: 2 });
    assert.equal(repeated.index[0], repeated.index[1]);
    assert.notDeepEqual(repeated.image.slice(0, 192), repeated.image.slice(192, 384));
  });

  test("soft targets with mixing; classes drawn equally", async () => {
    const dataset = await memoryDataset(40, { label: (i) => (i < 34 ? 0 : i < 37 ? 1 : 2) });
    const batches = await collect(dataset, { balanced: true, mix: { alpha: 1 } });
    const counts = [0, 0, 0];
    for (const { label, target } of batches) {
      for (const l of label) counts[l]++;
      for (let i = 0; i < 4; i++)
        assert.ok(Math.abs((target as Float32Array).subarray(i * 3, i * 3 + 3).reduce((x, y) => x + y) - 1) < 1e-6);
    }
    assert.ok(Math.max(...counts) - Math.min(...counts) <= 1, `${counts}`);
  });

  test("a file is read and decoded once while there is room", async () => {
    const dataset = await memoryDataset(12);
    let reads = 0;
    const counting: Dataset = {
      ...dataset,
      read: async (i) => {
        reads++;
        return dataset.read(i);
      },
    };
    const readsIn = async (cacheBytes: number | undefined): Promise<number> => {
      reads = 0;
      await using loader = new Loader(counting, { batchSize: 4, transform: train, workers: 1, cacheBytes });
      for (let epoch = 0; epoch < 3; epoch++) for await (const _ of loader.batches({ epoch }));
      return reads;
    };
    assert.equal(await readsIn(undefined), 12);
    assert.equal(await readsIn(0), 36);
    assert.equal(await readsIn(5 * 12 * 12 * 3), 12 + 7 + 7);
  });
});

describe("broken pictures", () => {
  test("in training the next good one takes the place; told once, with the path", async () => {
    const told: string[] = [];
    const broken = new BrokenPictures({ limit: 0.5, report: ({ name, reason }) => told.push(`${name}: ${reason}`) });
    const dataset = await memoryDataset(8, { broken: [3, 4, 7] });
    await using loader = new Loader(dataset, { batchSize: 4, transform: train, workers: 2, shuffle: false, broken });
    for (let epoch = 0; epoch < 2; epoch++) {
      const indices: number[] = [];
      for await (const { index, label } of loader.batches({ epoch })) {
        indices.push(...index);
        assert.deepEqual(
          [...label],
          Array.from(index, (i) => i % 3),
        );
      }
      assert.deepEqual(indices, [0, 1, 2, 5, 5, 5, 6, 0]);
    }
    assert.deepEqual(
      told.sort(),
      [3, 4, 7].map((i) => `memory/${i}.png: cannot read the picture: Input buffer contains unsupported image format`),
    );
    assert.equal(broken.pictures.length, 3);
  });

  test("in evaluation it is left out", async () => {
    const dataset = await memoryDataset(9, { broken: [1, 4, 5, 6, 7] });
    const batches = await collect(dataset, { transform: evaluate, broken: quiet() });
    assert.deepEqual(
      batches.map(({ index, step }) => [step, [...index]]),
      [
        [0, [0, 2, 3]],
        [2, [8]],
      ],
    );
    assert.equal(batches[0].image.length, 3 * 192);
    const [plain] = await collect(await memoryDataset(9), { transform: evaluate });
    assert.deepEqual(batches[0].image.slice(192, 384), plain.image.slice(384, 576));
  });

  test("more than 1 % stop the run with a list", async () => {
    const few = await memoryDataset(200, { broken: [10, 20] });
    const broken = new BrokenPictures({ report: () => {} });
    assert.equal((await collect(few, { workers: 1, broken })).length, 50);
    assert.equal(broken.pictures.length, 2);
    for (const workers of [0, 2]) {
      const many = await memoryDataset(200, { broken: Array.from({ length: 150 }, (_, i) => i) });
      await assert.rejects(collect(many, { workers, broken: new BrokenPictures({ report: () => {} }) }), (error) => {
        assert.ok(error instanceof OrielError && error.code === "broken-pictures");
        assert.match(error.message, /of 200 pictures cannot be read so far, more than 1 %\n {2}memory\/\d+\.png: /);
        return true;
      });
    }
  });

  test("a file that vanished counts as broken; several loaders count together", async () => {
    const dataset = await memoryDataset(8);
    const vanishing: Dataset = {
      ...dataset,
      read: async (i) => (i === 2 ? Promise.reject(new Error("ENOENT: no such file")) : dataset.read(i)),
    };
    const broken = quiet();
    await collect(vanishing, { broken, shuffle: false });
    await collect({ ...vanishing, name: (i) => `other/${i}` }, { broken, shuffle: false });
    assert.deepEqual(
      broken.pictures.map(({ name, reason }) => `${name}: ${reason}`),
      ["memory/2.png: ENOENT: no such file", "other/2: ENOENT: no such file"],
    );
  });
});

test("wrong options are refused at once", async () => {
  const dataset = await memoryDataset(10);
  const make = (options: Partial<LoaderOptions>) => () =>
    new Loader(dataset, { batchSize: 4, transform: train, ...options });
  assert.throws(make({ batchSize: 11 }), /a batch of 11 cannot be filled from 10 pictures/);
  assert.throws(make({ batchSize: 0 }), UsageError);
  assert.throws(make({ workers: -1 }), UsageError);
  assert.throws(make({ transform: evaluate, mix: { alpha: 1 } }), /mix is for training/);
  assert.throws(make({ mix: { alpha: -1 } }), UsageError);
  const looks = (more: Partial<TrainTransform>) => make({ transform: { kind: "train", size: 8, ...more } });
  assert.throws(
    looks({ erasing: { prob: 1, area: [0.5, 0.1] } }),
    /the least area is 0.5; it must be at most the largest/,
  );
  assert.throws(looks({ erasing: { prob: 1, minAspect: 0 } }), /minAspect is 0/);
  assert.throws(looks({ erasing: { prob: 1, count: 0 } }), /count is 0; it must be a whole number/);
  assert.throws(looks({ colorJitter: -1 }), /brightness is -1; it must be at least 0/);
  assert.throws(make({ transform: { kind: "train", size: 8, randAugment: "rand-x" } }), /RandAugment/);
});

test("a label that is no class is refused by the picture's name", async () => {
  for (const label of [3, -1.5, Number.NaN]) {
    const dataset = await memoryDataset(4, { label: (i) => (i === 2 ? label : 0) });
    const refusal = { name: "UsageError", message: new RegExp(`label of memory/2.png is ${label}, of 3 classes`) };
    assert.throws(() => new Loader(dataset, { batchSize: 4, transform: train }), refusal);
    assert.throws(() => splitDataset(dataset), refusal);
  }
});

describe("ending", () => {
  test("leaving early, closing with work under way, closing twice", async () => {
    const dataset = await memoryDataset(64);
    const loader = new Loader(dataset, { batchSize: 4, transform: train, workers: 2 });
    for await (const { step } of loader.batches()) if (step === 1) break;
    for await (const { step } of loader.batches({ epoch: 1 })) if (step === 0) break;
    await loader.close();
    await loader.close();
    await assert.rejects(loader.batches().next(), /the loader is closed/);
  });

  test("a process that does not close its loader ends by itself", async () => {
    const index = new URL("../../src/data/index.js", import.meta.url).href;
    const helpers = new URL("./helpers.js", import.meta.url).href;
    const program = `
      const { Loader } = await import(${JSON.stringify(index)});
      const { memoryDataset } = await import(${JSON.stringify(helpers)});
      const loader = new Loader(await memoryDataset(64), { batchSize: 4, workers: 2, transform: { kind: "train", size: 8 } });
      for await (const { step } of loader.batches()) if (step === 2) break;
      console.log("left");`;
    const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", program], {
      timeout: 20_000,
      cwd: fileURLToPath(new URL("../../..", import.meta.url)),
    });
    assert.match(stdout, /left/);
  });
});
