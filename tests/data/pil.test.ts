import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { UsageError } from "../../src/base/errors.ts";
import {
  affine,
  autocontrast,
  brightness,
  centerView,
  color,
  contrast,
  createImage,
  decodeNode,
  equalize,
  gaussianBlur,
  hue,
  type Image,
  invert,
  posterize,
  prepare,
  type RandAugmentOp,
  randAugmentOps,
  resize,
  rotate,
  sharpness,
  solarize,
} from "../../src/data/index.ts";
import { shared } from "./helpers.ts";
import { blurs, hues, normalised, ops, views } from "./timm-fixture.ts";

const golden = shared("golden/pil");
const load = (file: string): Promise<Image> => decodeNode(readFileSync(join(golden.path, file)), file);
const sha1 = (bytes: Uint8Array): string => createHash("sha1").update(bytes).digest("hex").slice(0, 10);

const colorOps = { autocontrast, brightness, color, contrast, equalize, invert, posterize, sharpness, solarize };

interface Case {
  file: string;
  op: "resize" | "affine" | "rotate" | keyof typeof colorOps;
  filter?: "nearest" | "bilinear" | "bicubic" | "lanczos";
  width: number;
  height: number;
  box?: [number, number, number, number];
  matrix: [number, number, number, number, number, number];
  degrees: number;
  fill: number[];
  bits?: number;
  threshold?: number;
  factor?: number;
}

function apply(image: Image, c: Case): Image {
  if (c.op === "resize") return resize(image, c.width, c.height, c);
  const options = { filter: c.filter as "nearest" | "bilinear" | "bicubic", fill: c.fill };
  if (c.op === "affine") return affine(image, c.matrix, options);
  if (c.op === "rotate") return rotate(image, c.degrees, options);
  return colorOps[c.op](image, (c.factor ?? c.bits ?? c.threshold) as number);
}

describe("Pillow's results, equal to the byte", { skip: golden.skip }, async () => {
  const cases: Case[] = golden.skip ? [] : JSON.parse(readFileSync(join(golden.path, "cases.json"), "utf8")).cases;
  for (const c of cases) {
    test(c.file, async () => {
      const got = apply(await load("input.png"), c);
      const want = await load(c.file);
      assert.deepEqual([got.width, got.height], [want.width, want.height]);
      assert.ok(Buffer.from(got.data).equals(want.data));
    });
  }
});

describe("timm's and torchvision's results, equal to the byte", { skip: golden.skip }, () => {
  test("RandAugment operations", async () => {
    const image = await load("input.png");
    for (const [name, magnitude, sign, filter, want] of ops) {
      const got = randAugmentOps[name as RandAugmentOp](image, magnitude / 10, sign, {
        filter,
        fill: [124, 116, 104],
      });
      assert.equal(sha1(got.data), want, `${name} ${magnitude} ${sign} ${filter}`);
    }
  });
  test("hue", async () => {
    const image = await load("input.png");
    for (const [turn, want] of hues) assert.equal(sha1(hue(image, turn).data), want, `${turn}`);
  });
  test("Gaussian blur", async () => {
    const image = await load("input.png");
    for (const [sigma, want] of blurs) assert.equal(sha1(gaussianBlur(image, sigma).data), want, `${sigma}`);
  });
  test("evaluation views", async () => {
    const image = await load("input.png");
    for (const [size, cropPct, cropMode, filter, want] of views) {
      const frame = typeof size === "number" ? ([size, size] as const) : size;
      const got = centerView(image, frame, { cropPct, cropMode, filter, fill: [124, 116, 104] });
      assert.equal(sha1(got.data), want, `${size} ${cropPct} ${cropMode} ${filter}`);
    }
  });
  test("normalisation", async () => {
    const out = new Float32Array(3 * 40 * 40);
    prepare({ kind: "evaluate", size: 40 }).apply(
      await load("input.png"),
      { seed: 0, epoch: 0, index: 0, copy: 0 },
      out,
      0,
    );
    assert.equal(sha1(new Uint8Array(out.buffer)), normalised);
  });
});

test("resize: one pixel to many, many to one, and the same size", () => {
  const one = createImage(1, 1, [10, 20, 30]);
  for (const filter of ["nearest", "bilinear", "bicubic", "lanczos"] as const) {
    assert.deepEqual(resize(one, 5, 3, { filter }), createImage(5, 3, [10, 20, 30]));
    assert.deepEqual(resize(createImage(9, 7, [1, 2, 3]), 1, 1, { filter }), createImage(1, 1, [1, 2, 3]));
  }
  assert.equal(resize(one, 1, 1), one);
});

test("resize: a size or box that cannot be", () => {
  const image = createImage(4, 4);
  assert.throws(() => resize(image, 0, 4), UsageError);
  assert.throws(() => resize(image, 2, 2, { box: [0, 0, 5, 4] }), /not inside a picture of 4×4/);
  assert.throws(() => resize(image, 2, 2, { box: [2, 0, 2, 4] }), UsageError);
});

test("a border is wider by a pixel below and on the right where it is uneven, as timm pads", () => {
  for (const [missing, above] of [
    [1, 0],
    [2, 1],
    [3, 1],
    [5, 2],
    [7, 3],
  ]) {
    const side = missing + 1;
    const options = { cropPct: 1, cropMode: "border", filter: "bicubic", fill: [1, 2, 3] } as const;
    for (const tall of [false, true]) {
      const source = tall ? createImage(1, side, [255, 0, 0]) : createImage(side, 1, [255, 0, 0]);
      const { data } = centerView(source, [side, side], options);
      const line = Array.from({ length: side }, (_, i) => data[i * (tall ? 1 : side) * 3]);
      assert.deepEqual(
        line,
        line.map((_, i) => (i === above ? 255 : 1)),
      );
    }
  }
});
