import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, test } from "node:test";
import sharp from "sharp";
import { OrielError } from "../../src/base/errors.ts";
import { decodeNode, type Image, openDataset } from "../../src/data/index.ts";
import { picture, pixels, png, shared } from "./helpers.ts";

const decode = (bytes: Uint8Array): Promise<Image> => decodeNode(bytes, "folder/name.jpg");

describe("decodes every kind of picture to 8-bit RGB", () => {
  test("plain, exactly", async () => {
    const { width, height, channels, data } = await decode(await png(7, 5));
    assert.deepEqual([width, height, channels], [7, 5, 3]);
    assert.ok(pixels(7, 5).equals(data));
  });

  test("one pixel", async () => {
    assert.deepEqual([...(await decode(await png(1, 1, 3))).data], [...pixels(1, 1, 3)]);
  });

  test("palette", async () => {
    const flat = sharp({ create: { width: 6, height: 6, channels: 3, background: { r: 200, g: 30, b: 40 } } });
    const { data } = await decode(await flat.png({ palette: true }).toBuffer());
    assert.deepEqual([...data.subarray(0, 3)], [200, 30, 40]);
  });

  test("grey is repeated", async () => {
    const grey = Buffer.from([0, 60, 130, 255]);
    const bytes = await sharp(grey, { raw: { width: 2, height: 2, channels: 1 } })
      .toColourspace("b-w")
      .png()
      .toBuffer();
    assert.equal((await sharp(bytes).metadata()).channels, 1);
    assert.deepEqual(
      [...(await decode(bytes)).data],
      [...grey].flatMap((v) => [v, v, v]),
    );
  });

  test("16 bits lose the lower byte", async () => {
    const levels = Uint16Array.from([0, 0x1234, 0x80ff, 0xffff]);
    const raw = { width: 2, height: 2, channels: 1 } as const;
    const bytes = await sharp(levels, { raw }).toColourspace("grey16").png().toBuffer();
    assert.equal((await sharp(bytes).metadata()).depth, "ushort");
    const { data } = await decode(bytes);
    assert.deepEqual([data[0], data[3], data[6], data[9]], [0, 0x12, 0x80, 0xff]);
  });

  test("transparency is laid on white", async () => {
    const rgba = Buffer.from([255, 0, 0, 255, 10, 20, 30, 0]);
    const bytes = await sharp(rgba, { raw: { width: 2, height: 1, channels: 4 } })
      .png()
      .toBuffer();
    assert.deepEqual([...(await decode(bytes)).data], [255, 0, 0, 255, 255, 255]);
  });

  test("CMYK by its plain formula", async () => {
    const bytes = await picture(16, 16)
      .toColourspace("cmyk")
      .jpeg({ quality: 100, chromaSubsampling: "4:4:4" })
      .toBuffer();
    assert.equal((await sharp(bytes).metadata()).space, "cmyk");
    const inks = await sharp(bytes).pipelineColourspace("cmyk").toColourspace("cmyk").raw().toBuffer();
    const { width, height, data } = await decode(bytes);
    assert.deepEqual([width, height], [16, 16]);
    const paper = 255 - inks[3];
    assert.equal(data[0], Math.max(paper - Math.round((inks[0] * paper) / 255), 0));
  });

  test("EXIF rotation is applied", async () => {
    const bytes = await picture(6, 4).withMetadata({ orientation: 6 }).png().toBuffer();
    const { width, height, data } = await decode(bytes);
    assert.deepEqual([width, height], [4, 6]);
    // orientation 6: the picture's bottom left corner comes to the top left
    assert.deepEqual([...data.subarray(0, 3)], [...pixels(6, 4).subarray(3 * 6 * 3, 3 * 6 * 3 + 3)]);
  });

  test("JPEG, WebP, GIF, TIFF, AVIF", async () => {
    const source = picture(32, 24);
    for (const format of ["jpeg", "webp", "gif", "tiff", "avif"] as const) {
      const { width, height, data } = await decode(await source.clone().toFormat(format).toBuffer());
      assert.deepEqual([width, height, data.length], [32, 24, 32 * 24 * 3], format);
    }
  });
});

test("BMP: 24 bits from the bottom, 4 bits with a palette from the top", async () => {
  const bitmap = (bits: number, height: number, palette: number[], rows: number[]): Buffer => {
    const header = Buffer.alloc(54);
    header.write("BM");
    header.writeUInt32LE(54 + palette.length, 10);
    header.writeUInt32LE(40, 14);
    header.writeInt32LE(2, 18);
    header.writeInt32LE(height, 22);
    header.writeUInt16LE(1, 26);
    header.writeUInt16LE(bits, 28);
    return Buffer.concat([header, Buffer.from(palette), Buffer.from(rows)]);
  };
  const full = await decode(bitmap(24, 2, [], [7, 8, 9, 10, 11, 12, 0, 0, 1, 2, 3, 4, 5, 6, 0, 0]));
  assert.deepEqual([...full.data], [3, 2, 1, 6, 5, 4, 9, 8, 7, 12, 11, 10]);
  const indexed = await decode(bitmap(4, -2, [1, 2, 3, 0, 4, 5, 6, 0], [0x10, 0, 0, 0, 0x01, 0, 0, 0]));
  assert.deepEqual([...indexed.data], [6, 5, 4, 3, 2, 1, 3, 2, 1, 6, 5, 4]);
  await assert.rejects(decode(bitmap(24, 3, [], [1, 2, 3])), /cut short/);
});

describe("a broken picture is a typed error with its path", () => {
  const fails = (bytes: Uint8Array, message: RegExp) =>
    assert.rejects(
      decode(bytes),
      (error) =>
        error instanceof OrielError &&
        error.code === "picture" &&
        error.facts.at === "folder/name.jpg" &&
        message.test(error.message),
    );

  test("empty", () => fails(new Uint8Array(0), /the file is empty/));
  test("HEIC, with what to do", async () => {
    const start = Buffer.from([0, 0, 0, 28, ...Buffer.from("ftypheic"), 0, 0, 0, 0, ...Buffer.from("mif1heicmiaf")]);
    await fails(start, /it is HEIC.*\n.*convert it to JPEG/);
  });
  test("not a picture", () => fails(Buffer.from("<html>404</html>"), /unsupported image format/));
  test("cut short", async () => {
    const source = picture(200, 200);
    for (const format of ["jpeg", "png", "webp", "gif", "tiff"] as const) {
      const bytes = await source.clone().toFormat(format).toBuffer();
      await fails(bytes.subarray(0, bytes.length >> 1), /cannot read the picture/);
    }
    const progressive = await source.clone().jpeg({ progressive: true }).toBuffer();
    await fails(progressive.subarray(0, progressive.length - 300), /cannot read the picture/);
  });
  test("cut short, many at once", async () => {
    const bytes = await picture(400, 300).jpeg().toBuffer();
    const half = bytes.subarray(0, bytes.length >> 1);
    await Promise.all(Array.from({ length: 20 }, () => fails(half, /premature end|cut short or damaged/)));
  });
  test("damaged", async () => {
    const bytes = Buffer.from(await png(100, 100));
    bytes.fill(0x55, bytes.length >> 1, (bytes.length >> 1) + 60);
    await fails(bytes, /cannot read the picture/);
  });
});

const cifar = shared("data/cifar10-test.tar");
test("CIFAR's JPEGs decode as in Pillow", { skip: cifar.skip }, async () => {
  const dataset = await openDataset(cifar.path);
  const hash = createHash("sha1");
  for (let i = 0; i < 500; i++) hash.update((await decode(await dataset.read(i))).data);
  await dataset.close?.();
  assert.equal(hash.digest("hex"), "ebc14acb8538f9fac0638bf0255eeb2fda47aaac");
});
