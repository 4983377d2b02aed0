import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { joinBytes } from "../../src/base/bytes.ts";
import { OrielError } from "../../src/base/errors.ts";
import { Random } from "../../src/base/philox.ts";
import { importOnnx } from "../../src/nn/onnx-module.ts";
import { sharedFile } from "../train/files.ts";

const { path, skip } = sharedFile("checkpoints/fastestdet.onnx");
const cases = 3000;

type Bytes = Uint8Array<ArrayBuffer>;
type Mutate = (bytes: Bytes, random: Random) => Bytes;

const below = (random: Random, n: number): number => Math.floor(random.between(0, 1) * n);

/** Where the file is structure rather than weights: nodes come first, their names and shapes are what breaks. */
let structure = 0;

const mutations: Readonly<Record<string, Mutate>> = {
  truncated: (bytes, random) => bytes.slice(0, below(random, bytes.length)),
  "bits flipped": (bytes, random) => {
    const out = bytes.slice();
    for (let i = 0; i <= below(random, 8); i++) out[below(random, structure)] ^= 1 << below(random, 8);
    return out;
  },
  "bits flipped anywhere": (bytes, random) => {
    const out = bytes.slice();
    for (let i = 0; i <= below(random, 64); i++) out[below(random, out.length)] ^= 1 << below(random, 8);
    return out;
  },
  spliced: (bytes, random) => {
    const [a, b] = [below(random, structure), below(random, bytes.length)];
    return joinBytes([bytes.subarray(0, a), bytes.subarray(b)]);
  },
  "a piece twice": (bytes, random) => {
    const [a, length] = [below(random, structure), below(random, 2000)];
    return joinBytes([bytes.subarray(0, a + length), bytes.subarray(a)]);
  },
  "numbers without end": (bytes, random) => {
    const at = below(random, structure);
    const varint = new Uint8Array(1 + below(random, 12)).fill(0xff);
    return joinBytes([bytes.subarray(0, at), varint, bytes.subarray(at + below(random, 12))]);
  },
  "huge sizes": (bytes, random) => {
    const out = bytes.slice();
    // A dimension, an axis or a length where a small number stood.
    for (let i = 0; i < 3; i++) {
      const at = below(random, structure - 10);
      if (out[at] === 0x08 || out[at] === 0x40 || random.between(0, 1) < 0.3)
        out.set([0xff, 0xff, 0xff, 0xff, below(random, 128)], at + 1);
    }
    return out;
  },
  noise: (_, random) => Uint8Array.from({ length: below(random, 400) }, () => below(random, 256)),
};

test(`${cases} broken files end in a clean error or are read`, { skip }, () => {
  const bytes = new Uint8Array(readFileSync(path));
  structure = 60_000;
  const kinds = Object.entries(mutations);
  const outcome = { read: 0, refused: 0 };
  const began = process.memoryUsage().arrayBuffers;
  for (let i = 0; i < cases; i++) {
    const [kind, mutate] = kinds[i % kinds.length];
    const broken = mutate(bytes, new Random(41, kind, i));
    try {
      importOnnx(broken).graph();
      outcome.read++;
    } catch (error) {
      assert.ok(error instanceof OrielError, `${kind} ${i}: ${(error as Error).stack}`);
      assert.doesNotMatch(error.message, /^internal/, `${kind} ${i}`);
      outcome.refused++;
    }
    if (i % 500 === 0) assert.ok(process.memoryUsage().arrayBuffers - began < 2 ** 30, `${kind} ${i} took memory`);
  }
  assert.equal(outcome.read + outcome.refused, cases);
  // Both must happen, or nothing was tried.
  assert.ok(outcome.read > 100 && outcome.refused > 1000, JSON.stringify(outcome));
});
