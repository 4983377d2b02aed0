import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { UsageError } from "../../src/base/errors.ts";
import { Random } from "../../src/base/philox.ts";
import {
  colorJitter,
  createImage,
  crop,
  epochOrder,
  flipHorizontal,
  flipVertical,
  type Image,
  mixBatch,
  padAndCrop,
  parseRandAugment,
  prepare,
  randAugment,
  randAugmentOps,
  randomErase,
  randomResizedCrop,
  type SamplerOptions,
  softTargets,
} from "../../src/data/index.ts";
import { pixels } from "./helpers.ts";

const image = (width: number, height: number, seed = 0): Image => ({
  width,
  height,
  channels: 3,
  data: pixels(width, height, seed),
});
const at = ({ data, width }: Image, x: number, y: number): number[] => [
  ...data.subarray((y * width + x) * 3, (y * width + x) * 3 + 3),
];

describe("geometry", () => {
  test("flips", () => {
    const source = image(5, 4);
    assert.deepEqual(at(flipHorizontal(source), 0, 2), at(source, 4, 2));
    assert.deepEqual(at(flipVertical(source), 3, 0), at(source, 3, 3));
    assert.deepEqual(flipHorizontal(flipHorizontal(source)).data, new Uint8Array(source.data));
  });

  test("a crop may reach beyond the picture", () => {
    const source = image(5, 4);
    const out = crop(source, -2, 1, 9, 5, [9, 8, 7]);
    assert.deepEqual(at(out, 0, 0), [9, 8, 7]);
    assert.deepEqual(at(out, 2, 0), at(source, 0, 1));
    assert.deepEqual(at(out, 6, 2), at(source, 4, 3));
    assert.deepEqual(at(out, 3, 4), [9, 8, 7]);
    assert.deepEqual(crop(source, 100, 100, 2, 2, [1, 1, 1]), createImage(2, 2, [1, 1, 1]));
  });

  test("random resized crop: area and shape within bounds, odd pictures too", () => {
    const options = { scale: [0.25, 0.5], ratio: [0.75, 4 / 3], filter: "bilinear" } as const;
    for (const [w, h] of [
      [50, 40],
      [1, 1],
      [1, 300],
      [300, 1],
      [2, 3],
    ]) {
      for (let i = 0; i < 20; i++) {
        const out = randomResizedCrop(image(w, h), [16, 24], new Random(1, i), options);
        assert.deepEqual([out.width, out.height], [24, 16]);
      }
    }
  });

  test("random crops have the area and shape asked for; where none fits, the middle of the nearest shape", () => {
    const placed = (width: number, height: number): Image => {
      const source = createImage(width, height);
      for (let p = 0; p < width * height; p++) source.data.set([p % width, Math.floor(p / width)], 3 * p);
      return source;
    };
    const options = { scale: [0.3, 0.5], ratio: [1, 2], filter: "nearest" } as const;
    for (let i = 0; i < 50; i++) {
      const out = randomResizedCrop(placed(240, 160), [160, 240], new Random(2, i), options);
      const [from, to] = [at(out, 0, 0), at(out, 239, 159)];
      const [width, height] = [to[0] - from[0] + 1, to[1] - from[1] + 1];
      const [share, shape] = [(width * height) / (240 * 160), width / height];
      assert.ok(share > 0.28 && share < 0.52 && shape > 0.97 && shape < 2.06, `${width} × ${height}`);
    }
    const whole = { ...options, scale: [1, 1], ratio: [3 / 4, 4 / 3] } as const;
    const wide = randomResizedCrop(placed(90, 9), [9, 12], new Random(2), whole);
    assert.deepEqual(
      [at(wide, 0, 0), at(wide, 11, 8)],
      [
        [39, 0, 0],
        [50, 8, 0],
      ],
    );
    const tall = randomResizedCrop(placed(9, 90), [12, 9], new Random(2), whole);
    assert.deepEqual(
      [at(tall, 0, 0), at(tall, 8, 11)],
      [
        [0, 39, 0],
        [8, 50, 0],
      ],
    );
  });

  test("pad and crop moves by at most the padding, and reaches all of it", () => {
    const shifts = new Set<string>();
    const source = createImage(8, 8);
    source.data.set([255, 255, 255], (4 * 8 + 4) * 3);
    for (let i = 0; i < 300; i++) {
      const out = padAndCrop(source, 2, new Random(3, i));
      const place = out.data.indexOf(255) / 3;
      shifts.add(`${(place % 8) - 4},${Math.floor(place / 8) - 4}`);
    }
    assert.equal(shifts.size, 25);
    assert.ok(shifts.has("-2,2") && shifts.has("2,-2"));
  });

  test("pad and crop keeps the shape: of a long picture it takes a square, anywhere", () => {
    const source = createImage(40, 16);
    for (let i = 0; i < source.data.length; i += 3) source.data[i] = ((i / 3) % 40) + 1;
    const view = prepare({ kind: "train", size: 8, padding: 1, interpolation: "bilinear", hflip: 0, mean: [0, 0, 0] });
    const out = new Float32Array(3 * 64);
    const firsts = new Set<number>();
    for (let index = 0; index < 300; index++) {
      view.apply(source, { seed: 1, epoch: 0, index, copy: 0 }, out, 0);
      const row = Array.from(out.subarray(24, 32), (v) => Math.round(v * 255 * 0.229));
      firsts.add(row[0]);
      for (let x = 2; x < 7; x++) assert.ok(Math.abs(row[x] - row[x - 1] - 2) <= 1, `${row}`); // half the size, not a fifth of the width
    }
    assert.equal(firsts.size, 15); // of 20 columns and one of black on each side
  });
});

describe("RandAugment", () => {
  test("timm's strings", () => {
    const policy = parseRandAugment("rand-m9-mstd0.5-inc1");
    assert.deepEqual(
      { ...policy, ops: policy.ops.length },
      { ops: 15, magnitude: 9, layers: 2, prob: 0.5, max: 10, std: 0.5 },
    );
    assert.ok(
      policy.ops.includes("PosterizeIncreasing") && policy.ops.includes("ShearX") && !policy.ops.includes("Color"),
    );
    assert.ok(parseRandAugment("rand-m5-n3").ops.includes("Posterize"));
    assert.equal(parseRandAugment("rand-m9-mstd101").std, Number.POSITIVE_INFINITY);
    assert.equal(parseRandAugment("rand-m15-mmax20").max, 20);
    assert.equal(parseRandAugment("rand-tweights").weights?.length, 15);
    assert.deepEqual(parseRandAugment("rand-t3a").ops, ["SolarizeIncreasing", "Desaturate", "GaussianBlur"]);
  });

  test("wrong ones name the part and list what there is", () => {
    const wrong = (text: string, message: RegExp): void =>
      assert.throws(
        () => parseRandAugment(text),
        (error) => error instanceof UsageError && message.test(error.message) && /mstd +spread/.test(error.message),
      );
    wrong("", /begins with ""/);
    wrong("augmix-m3", /begins with "augmix"/);
    wrong("rand-m", /the part "m" is not understood/);
    wrong("rand-m9-foo3", /the part "foo3"/);
    wrong("rand-m9-n0", /n is 0/);
    wrong("rand-m9-n1.5", /n is 1.5/);
    wrong("rand-m11", /above the highest magnitude, 10; raise it with mmax/);
    wrong("rand-p2", /p is 2/);
    wrong("rand-tweight", /no set of operations "weight"; the nearest is "weights"/);
    wrong("rand-n4-t3aw-n99", /uses none twice/);
  });

  test("keyed by its stream alone; every operation keeps the size; odd pictures pass", () => {
    const policy = parseRandAugment("rand-m9-n3-mstd0.5-inc1");
    const options = { filter: "random", fill: [1, 2, 3] } as const;
    const run = (i: number): Image => randAugment(image(20, 15), policy, new Random(1, i), options);
    assert.deepEqual(run(4), run(4));
    assert.ok(
      Array.from({ length: 20 }, (_, i) => run(i)).some((out) => Buffer.compare(out.data, pixels(20, 15)) !== 0),
    );
    for (const [name, op] of Object.entries(randAugmentOps)) {
      for (const [w, h] of [
        [1, 1],
        [2, 1],
        [7, 9],
      ]) {
        const out = op(image(w, h), 1, -1, { filter: "bicubic", fill: [0, 0, 0] });
        assert.deepEqual([out.width, out.height, out.data.length], [w, h, w * h * 3], name);
      }
    }
  });

  test("the magnitude varies as far as its spread allows", () => {
    const levels = (text: string): number[] => {
      const policy = { ...parseRandAugment(text), ops: ["Brightness"] as const };
      const lit = (i: number) =>
        randAugment(createImage(1, 1, [100, 100, 100]), policy, new Random(1, i), {
          filter: "bilinear",
          fill: [0, 0, 0],
        });
      return Array.from({ length: 300 }, (_, i) => (lit(i).data[0] - 10) / 18); // 100 · (0.1 + 0.18 · magnitude)
    };
    const [least, most] = [Math.min(...levels("rand-m9-n1-p1-mstd101")), Math.max(...levels("rand-m9-n1-p1-mstd101"))];
    assert.ok(least >= -0.1 && least < 0.5 && most > 8.5 && most <= 9.1, `${least} to ${most}`);
    const near = levels("rand-m5-n1-p1-mstd0.5");
    assert.ok(near.every((m) => Math.abs(m - 5) < 2.5) && near.some((m) => Math.abs(m - 5) > 0.5));
    assert.ok(levels("rand-m5-n1-p1").every((m) => Math.abs(m - 5) < 0.1));
  });

  test("weighted sets take no operation twice", () => {
    const policy = {
      ...parseRandAugment("rand-m9-n3-t3aw-p1"),
      ops: ["Invert", "Invert", "Rotate"] as const,
      weights: [1, 0, 0],
    };
    const out = randAugment(image(4, 4), { ...policy, layers: 1 }, new Random(1), {
      filter: "bilinear",
      fill: [0, 0, 0],
    });
    assert.deepEqual(out.data, randAugmentOps.Invert(image(4, 4)).data);
  });
});

test("colour jitter: nothing asked, nothing done; otherwise by the stream alone", () => {
  const source = image(9, 9);
  assert.equal(colorJitter(source, {}, new Random(1)), source);
  const all = { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1 };
  assert.deepEqual(colorJitter(source, all, new Random(1, 2)), colorJitter(source, all, new Random(1, 2)));
  assert.notDeepEqual(colorJitter(source, all, new Random(1, 2)).data, colorJitter(source, all, new Random(1, 3)).data);
});

test("colour jitter changes what it was told to, and grey has no colour to change", () => {
  const grey = createImage(9, 9, [100, 100, 100]);
  for (const property of ["brightness", "contrast", "saturation", "hue"] as const) {
    const jittered = (source: Image) => colorJitter(source, { [property]: 0.4 }, new Random(1));
    assert.notDeepEqual(jittered(image(9, 9)).data, image(9, 9).data, property);
    assert.equal(Buffer.compare(jittered(grey).data, grey.data) === 0, property !== "brightness", property);
  }
});

test("a training view flips and loses its colours as often as it was told", () => {
  const source = image(8, 8);
  const whole = { kind: "train", size: 8, scale: [1, 1], ratio: [1, 1], interpolation: "bilinear" } as const;
  const view = (hflip: number, vflip: number, grayscale = 0): number[] => {
    const out = new Float32Array(3 * 64);
    const range = { mean: [0, 0, 0], std: [1, 1, 1] } as const;
    const made = prepare({ ...whole, ...range, hflip, vflip, grayscale });
    made.apply(source, { seed: 0, epoch: 0, index: 0, copy: 0 }, out, 0);
    return Array.from(out, (v) => Math.round(255 * v));
  };
  const planes = ({ data }: Image): number[] => [0, 1, 2].flatMap((c) => [...data].filter((_, i) => i % 3 === c));
  assert.deepEqual(view(0, 0), planes(source));
  assert.deepEqual(view(1, 0), planes(flipHorizontal(source)));
  assert.deepEqual(view(0, 1), planes(flipVertical(source)));
  const [red, green] = [0, 64].map((from) => view(0, 0, 1).slice(from, from + 64));
  assert.deepEqual(red, green);
});

describe("random erasing", () => {
  const erased = (mode: "pixel" | "color" | "const", seed: number): Float32Array => {
    const data = new Float32Array(2 * 3 * 20 * 30).fill(7);
    randomErase(data, 3 * 20 * 30, [20, 30], { prob: 1, mode, count: 2 }, new Random(seed));
    assert.ok(
      data.subarray(0, 3 * 20 * 30).every((v) => v === 7),
      "the picture before it is touched",
    );
    return data.subarray(3 * 20 * 30);
  };

  test("area, and what it leaves", () => {
    for (let seed = 0; seed < 50; seed++) {
      const share = erased("const", seed).filter((v) => v === 0).length / (3 * 20 * 30);
      assert.ok(share > 0.005 && share < 0.4, `${share}`);
    }
    const noise = Array.from({ length: 200 }, (_, seed) => [...erased("pixel", seed)].filter((v) => v !== 7)).flat();
    const mean = noise.reduce((a, b) => a + b) / noise.length;
    const variance = noise.reduce((a, b) => a + (b - mean) ** 2, 0) / noise.length;
    assert.ok(Math.abs(mean) < 0.02 && Math.abs(variance - 1) < 0.03, `mean ${mean}, variance ${variance}`);
  });

  test("one colour a channel, and never", () => {
    const levels = new Set(erased("color", 3));
    assert.ok(levels.size >= 4 && levels.size <= 7);
    const data = new Float32Array(300).fill(7);
    for (let i = 0; i < 30; i++) randomErase(data, 0, [10, 10], { prob: 0 }, new Random(i));
    assert.ok(data.every((v) => v === 7));
  });
});

describe("Mixup and CutMix", () => {
  const n = 5;
  const batch = (): Float32Array => Float32Array.from({ length: n * 3 * 8 * 8 }, (_, i) => Math.floor(i / 192));
  const label = Int32Array.of(0, 1, 2, 3, 0);

  test("targets sum to 1 and say how much of each picture there is", () => {
    for (let seed = 0; seed < 60; seed++) {
      const options = { alpha: 0.8, cutmixAlpha: 1, labelSmoothing: seed % 2 ? 0.1 : 0 };
      const x = batch();
      const target = mixBatch(x, label, [8, 8], 4, options, new Random(seed));
      for (let i = 0; i < n; i++) {
        const row = target.subarray(i * 4, i * 4 + 4);
        assert.ok(Math.abs(row.reduce((a, b) => a + b) - 1) < 1e-6);
        // picture i held the number i everywhere, so its mean says the share of picture n-1-i
        const mean = x.subarray(i * 192, (i + 1) * 192).reduce((a, b) => a + b) / 192;
        if (options.labelSmoothing > 0 || i === 2 || label[i] === label[n - 1 - i]) continue;
        const lambda = (mean - (n - 1 - i)) / (i - (n - 1 - i));
        assert.ok(
          Math.abs(row[label[i]] - lambda) < 1e-5,
          `seed ${seed}, picture ${i}: ${row[label[i]]} and ${lambda}`,
        );
      }
    }
  });

  test("an alpha of almost nothing exchanges pictures or leaves them", () => {
    for (const alpha of [1e-6, 1e-9]) {
      let exchanged = 0;
      for (let seed = 0; seed < 100; seed++) {
        const target = mixBatch(batch(), label, [8, 8], 4, { alpha }, new Random(seed));
        const share = target[0 * 4 + label[0]] === 1 ? target[1 * 4 + label[1]] : Number.NaN; // 0 and its partner are of one class
        assert.ok(share < 1e-2 || share > 0.99, `${share}`);
        if (share < 0.5) exchanged++;
      }
      assert.ok(exchanged > 25 && exchanged < 75, `${exchanged}`);
    }
  });

  test("a label that is no class is refused", () => {
    for (const label of [2, -1])
      assert.throws(() => softTargets(Int32Array.of(1, label), 2, 1, 0), new RegExp(`label 1 is ${label}`));
  });

  test("timm's smoothing: 1 - s + s/K and s/K", () => {
    assert.deepEqual(
      [...softTargets(Int32Array.of(1), 4, 0.3, 0.2)].map((v) => +v.toFixed(6)),
      [0.05, 0.85, 0.05, 0.05],
    );
    assert.deepEqual([...softTargets(Int32Array.of(0, 2), 3, 0.75, 0)], [0.75, 0, 0.25, 0.25, 0, 0.75]);
  });

  test("prob and switchProb", () => {
    const untouched = batch();
    mixBatch(untouched, label, [8, 8], 4, { alpha: 1, cutmixAlpha: 1, prob: 0 }, new Random(1));
    assert.deepEqual(untouched, batch());
    const isCut = (options: { switchProb: number }, seed: number): boolean => {
      const x = batch();
      mixBatch(x, label, [8, 8], 4, { alpha: 1, cutmixAlpha: 1, ...options }, new Random(seed));
      return x.every((v) => Number.isInteger(v)); // CutMix exchanges pixels and makes no new values
    };
    for (let seed = 0; seed < 20; seed++) {
      assert.ok(isCut({ switchProb: 1 }, seed));
      assert.ok(!isCut({ switchProb: 0 }, seed));
    }
  });
});

describe("the order of an epoch", () => {
  const labels = Int32Array.from({ length: 100 }, (_, i) => (i < 90 ? 0 : i < 98 ? 1 : 2));
  const order = (options: Partial<SamplerOptions> = {}) =>
    epochOrder(labels, { seed: 1, epoch: 0, shuffle: true, repeats: 1, balanced: false, ...options });

  test("shuffled anew each epoch and seed, complete", () => {
    assert.deepEqual(
      [...order().index].sort((a, b) => a - b),
      Array.from(labels, (_, i) => i),
    );
    assert.deepEqual(order(), order());
    assert.notDeepEqual(order().index, order({ epoch: 1 }).index);
    assert.notDeepEqual(order().index, order({ seed: 2 }).index);
    assert.deepEqual(
      [...order({ shuffle: false }).index],
      Array.from(labels, (_, i) => i),
    );
  });

  test("repeated: each picture k times in a row, each copy numbered", () => {
    const { index, copy } = order({ repeats: 3 });
    assert.equal(index.length, 100);
    for (let i = 0; i < 99; i++) {
      assert.equal(index[i], index[i - (i % 3)]);
      assert.equal(copy[i], i % 3);
    }
    assert.equal(new Set(index).size, 34);
  });

  test("balanced: every class equally often, all its pictures before one comes again", () => {
    const { index, copy } = order({ balanced: true });
    const counts = [0, 0, 0];
    for (const i of index) counts[labels[i]]++;
    assert.ok(Math.max(...counts) - Math.min(...counts) <= 1, `${counts}`);
    const rare = [...index].filter((i) => labels[i] === 1);
    assert.equal(new Set(rare.slice(0, 8)).size, 8);
    const pairs = new Set([...index].map((i, k) => `${i} ${copy[k]}`));
    assert.equal(pairs.size, 100);
  });
});

test("a transform that cannot be is refused before work begins", () => {
  assert.throws(() => prepare({ kind: "train", size: 0 }), /the picture size is 0×0/);
  assert.throws(() => prepare({ kind: "train", size: 8, scale: [1, 0.5] }), UsageError);
  assert.throws(() => prepare({ kind: "train", size: 8, hflip: 2 }), /hflip is 2/);
  assert.throws(() => prepare({ kind: "train", size: 8, padding: -1 }), UsageError);
  assert.throws(() => prepare({ kind: "evaluate", size: 8, cropPct: 2 }), /cropPct is 2/);
  assert.throws(() => prepare({ kind: "train", size: 8, randAugment: "m9" }), /RandAugment/);
  assert.throws(() => prepare({ kind: "evaluate", size: 8, std: [1, 0, 1] }), /cannot be normalised .* std \[1,0,1\]/);
  assert.throws(() => prepare({ kind: "evaluate", size: 8, mean: [0, Number.NaN, 0] }), UsageError);
});

test("what is no picture is refused, a page's pixels with their transparency above all", () => {
  const view = prepare({ kind: "evaluate", size: 2 });
  const rgba = { width: 4, height: 4, data: new Uint8ClampedArray(64) };
  for (const none of [rgba, {}, undefined, Uint8Array.of(1, 2)])
    assert.throws(
      () => view.apply(none as unknown as Image, { seed: 0, epoch: 0, index: 0, copy: 0 }, new Float32Array(12), 0),
      /no picture.* 8-bit RGB.*\n {2}help: .*decodeNode.*readImage/,
    );
});
