import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { loadCheckpoint } from "../../../src/train/checkpoint/checkpoint.ts";
import type { TrainConfigInput } from "../../../src/train/run/config.ts";
import { train } from "../../../src/train/run/train.ts";
import { small, temporaryFolder, writePictures } from "../files.ts";

// Whatever is chosen about training changes what is learnt, each in its own way: a choice that reaches nothing would show here.

const home = temporaryFolder();
const data = join(home, "pictures");
before(async () => {
  await writePictures(data, { count: 12 });
  for (let i = 0; i < 6; i++) rmSync(join(data, "red", `${i}.png`)); // so that classes can be weighed
});

const choices: Record<string, Partial<TrainConfigInput>> = {
  "as it comes": {},
  "another seed": { seed: 1 },
  "another rate": { lr: 3e-3 },
  "a rate that stays": { schedule: "constant" },
  "a rate that falls by a polynomial": { schedule: "polynomial" },
  "a longer warm-up": { warmup: 1 },
  "a least rate": { minLr: 1e-3 },
  sgd: { optimizer: "sgd" },
  "sgd without momentum": { optimizer: "sgd", momentum: 0 },
  lamb: { optimizer: "lamb" },
  "other betas": { betas: [0.5, 0.9] },
  "a large eps": { eps: 0.1 },
  "weight decay": { weightDecay: 0.9 },
  "gradients cut": { clip: 0.01 },
  "layers at their own rates": { layerDecay: 0.5 },
  "blocks dropped": { dropPath: 0.5 },
  "part of it frozen": { freeze: ["patch_embed"] },
  "no smoothing": { smoothing: 0 },
  "each class on its own": { loss: "bce" },
  "classes weighed": { classWeights: true },
  "classes drawn equally often": { balanced: true },
  "two views of each picture": { repeats: 2 },
  mixup: { mixup: 0.8 },
  cutmix: { cutmix: 1 },
  "pictures as they are": { augment: "none" },
  "a policy of augmentation": { augment: "rand-m9-mstd0.5-inc1" },
  "never mirrored": { hflip: 0 },
  "upside down too": { vflip: 0.5 },
  "colours changed": { colorJitter: 0.4 },
  "rectangles erased": { erasing: 0.9 },
  "crops that do not move": { padding: 0 },
  "smaller batches": { batch: 4 },
  "averages of weights": { ema: 0.9 },
};

test("every choice about training changes what is learnt", async () => {
  const learnt = new Map<string, string>();
  for (const [name, choice] of Object.entries(choices)) {
    const out = join(home, `run-${learnt.size}`);
    await train({ ...small, data, val: 0.25, epochs: 2, lr: 2e-3, out, ...choice });
    const { tensors } = await loadCheckpoint(
      join(out, "last.safetensors"),
      (tensor) => !tensor.startsWith("optimizer."),
    );
    const hash = createHash("sha256");
    for (const { data } of tensors.values()) hash.update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    const found = hash.digest("hex");
    assert.equal(learnt.get(found), undefined, `${name} is as ${learnt.get(found)}`);
    learnt.set(found, name);
  }
});
