import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { fileURLToPath } from "node:url";
import sharp from "sharp";
import { OrielError } from "../../src/base/errors.ts";
import { Random } from "../../src/base/philox.ts";

/** Seen from dist/tests/train. */
const repository = fileURLToPath(new URL("../../../", import.meta.url));
const shared = process.env.ORIEL_SHARED ?? join(repository, "..", "shared");

/** A file beside the repository, and why its test is skipped when it is absent. */
export function sharedFile(path: string): { path: string; skip: string | false } {
  const full = join(shared, path);
  return {
    path: full,
    skip: existsSync(full) ? false : `${path} is not there: set ORIEL_SHARED to the folder that holds it`,
  };
}

/** A folder of this test file's own, gone when it ends. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "oriel-train-"));
  after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** The error that some work ends in. */
export async function rejection(work: Promise<unknown>): Promise<OrielError> {
  const error = await work.then(
    () => undefined,
    (e) => e,
  );
  assert.ok(error instanceof OrielError, String(error));
  return error;
}

const colours = { blue: [40, 60, 220], green: [40, 200, 60], red: [220, 50, 40] } as const;

/** Writes class folders of noisy PNG pictures that are easy to tell apart by their colour.  -> the folder */
export async function writePictures(folder: string, { count = 16, side = 20, seed = 1 } = {}): Promise<string> {
  for (const [name, colour] of Object.entries(colours)) {
    mkdirSync(join(folder, name), { recursive: true });
    for (let i = 0; i < count; i++) {
      const random = new Random(seed, name, i);
      const data = Uint8Array.from({ length: side * side * 3 }, (_, k) =>
        Math.min(255, Math.max(0, colour[k % 3] + 60 * random.normal())),
      );
      await sharp(data, { raw: { width: side, height: side, channels: 3 } })
        .png()
        .toFile(join(folder, name, `${i}.png`));
    }
  }
  return folder;
}

/** A model small enough for tests: a micro Swin at a quarter of its pictures' area. */
export const small = { model: "swin_micro_32", imageSize: 16, batch: 8, threads: 1, workers: 0 } as const;
