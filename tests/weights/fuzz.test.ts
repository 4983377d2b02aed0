import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import { OrielError } from "../../src/base/errors.ts";
import { openWeights, type WeightsFile } from "../../src/weights/open.ts";
import { encodeSafetensors } from "../../src/weights/safetensors.ts";
import { type ByteSource, bytesSource } from "../../src/weights/source.ts";
import { byteLengthOf, type StoredDtype, toFloat32 } from "../../src/weights/stored.ts";
import { sharedCheckpoint } from "./files.ts";

// Real files, broken in thousands of ways: each ends in an error of ours, or in tensors that are what the broken file says.

const rounds = 3000;

type Described = [name: string, dtype: StoredDtype, shape: readonly number[]];

/** Numbers by mulberry32, so that a failure can be repeated by its round. */
function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

const edges = [
  0n,
  1n,
  0x7fn,
  0x80n,
  0xffn,
  0xffffn,
  0x7fffffffn,
  0x80000000n,
  0xffffffffn,
  2n ** 53n,
  2n ** 63n,
  2n ** 64n - 1n,
];

/** One broken copy.  Most changes hit the parts that describe the tensors, `frame`; what is drawn depends on the round alone. */
function broken(whole: Uint8Array, frame: readonly (readonly [from: number, to: number])[], round: number): Uint8Array {
  const random = randomOf(round);
  const within = () => {
    const [from, to] = frame[random(frame.length)];
    return random(8) === 0 ? random(whole.length) : from + random(to - from);
  };
  const kind = round % 5;
  if (kind === 0) return whole.slice(0, random(4) === 0 ? random(whole.length) : within());
  const bytes = whole.slice();
  for (let times = 1 + random(3); times > 0; times--) {
    const at = within();
    if (kind === 1) bytes[at] ^= 1 << random(8);
    else if (kind === 2) bytes[at] = random(256);
    else if (kind === 3) {
      // A splice: bytes of one place over another.
      const from = within();
      bytes.set(bytes.slice(from, from + 1 + random(40)).subarray(0, bytes.length - at), at);
    } else {
      // A length, an offset or a count that goes to an edge.
      const size = [1, 2, 4, 8][random(4)];
      const value = edges[random(edges.length)];
      for (let i = 0; i < size && at + i < bytes.length; i++) bytes[at + i] = Number((value >> BigInt(8 * i)) & 255n);
    }
  }
  return bytes;
}

/** Counts what is read, so that no description makes a reader take in more than a few times the file. */
function counted(bytes: Uint8Array): ByteSource & { taken: number } {
  const source = bytesSource(bytes, "broken");
  const own = {
    ...source,
    taken: 0,
    read: (offset: number, length: number) => {
      own.taken += length;
      return source.read(offset, length);
    },
  };
  return own;
}

/** What a tensor of so small a file may take in memory; more would be read, were it asked for. */
const mostBytes = 2 ** 22;

/** Of a file's tensors one in so many is read, others in other rounds: a promise for each costs more than all the rest. */
const stride = 16;

/** Reads what a file says it holds, and finds it consistent; of all tensors, their descriptions. */
async function readSome(file: WeightsFile, round: number): Promise<Described[]> {
  const described = [...file.tensors].map(([name, { dtype, shape }]): Described => [name, dtype, shape]);
  for (const [i, [name, tensor]] of [...file.tensors].entries()) {
    const bytes = byteLengthOf(tensor.dtype, tensor.shape);
    if (i % stride !== round % stride || bytes > mostBytes) continue;
    const stored = await tensor.read();
    assert.equal(stored.data.byteLength, bytes, name);
    if (!["C64", "F6_E2M3", "F6_E3M2"].includes(stored.dtype)) toFloat32(stored);
  }
  return described;
}

const outcomes: Record<string, number> = {};
after(() =>
  console.log(
    `# ${Object.entries(outcomes)
      .map(([what, times]) => `${what}: ${times}`)
      .join(", ")}`,
  ),
);

async function fuzz(name: string, whole: Uint8Array, frame: readonly (readonly [number, number])[]): Promise<void> {
  const sound = await readSome(await openWeights(bytesSource(whole)), 0);
  assert.ok(sound.length > 5);
  const tally = (what: string) => {
    outcomes[`${name} ${what}`] = (outcomes[`${name} ${what}`] ?? 0) + 1;
  };
  for (let round = 0; round < rounds; round++) {
    const bytes = broken(whole, frame, round);
    const source = counted(bytes);
    try {
      const file = await openWeights(source);
      assert.ok(source.taken <= 4 * bytes.length + 2 ** 18, `round ${round}: ${source.taken} bytes to open`);
      const described = await readSome(file, round);
      // Where only values were hit, everything else is as it was.
      const same = ([from, to]: readonly [number, number]) =>
        Buffer.compare(bytes.subarray(from, to), whole.subarray(from, to)) === 0;
      if (bytes.length === whole.length && frame.every(same)) {
        tally("only values changed");
        assert.deepEqual(described, sound, `round ${round}`);
      }
      tally("read");
    } catch (error) {
      if (!(error instanceof OrielError) || error.code === "internal")
        throw new Error(`round ${round} of ${name}: ${(error as Error).stack}`, { cause: error });
      tally(error.code);
    }
  }
}

/** Where some bytes are first found. */
const find = (whole: Uint8Array, text: string, from = 0) => Buffer.from(whole.buffer).indexOf(text, from, "latin1");

const legacy = sharedCheckpoint("resnet20-12fca82f.th");
const zip = sharedCheckpoint("fastestdet.pth");
const bytesOf = (path: string) => Uint8Array.from(readFileSync(path));

test(`safetensors: ${rounds} broken files`, { skip: legacy.skip, timeout: 600_000 }, async () => {
  const { tensors } = await openWeights(bytesSource(bytesOf(legacy.path)));
  const small = await Promise.all(
    [...tensors]
      .filter(([, { shape }]) => byteLengthOf("F32", shape) < 4000)
      .map(async ([name, tensor]) => [name, await tensor.read()] as const),
  );
  const whole = encodeSafetensors(small, { epoch: "1" });
  const header = 8 + Number(new DataView(whole.buffer).getBigUint64(0, true));
  await fuzz("safetensors", whole, [
    [0, 8],
    [0, header],
    [8, 400],
  ]);
});

test(`torch, legacy form: ${rounds} broken files`, { skip: legacy.skip, timeout: 600_000 }, async () => {
  const whole = bytesOf(legacy.path);
  const { tensors } = await openWeights(bytesSource(whole));
  // After the pickles come the storages, each behind its count.
  const storages = [...tensors.values()].reduce((sum, { dtype, shape }) => sum + 8 + byteLengthOf(dtype, shape), 0);
  await fuzz("legacy", whole, [[0, whole.length - storages]]);
});

test(`torch, zip form: ${rounds} broken files`, { skip: zip.skip, timeout: 600_000 }, async () => {
  const whole = bytesOf(zip.path);
  const pickle = find(whole, "PK\u0003\u0004", 4);
  const directory = find(whole, "PK\u0001\u0002");
  await fuzz("zip", whole, [
    [0, pickle],
    [directory, whole.length],
    [whole.length - 100, whole.length],
  ]);
});
