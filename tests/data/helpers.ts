import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after } from "node:test";
import { fileURLToPath } from "node:url";
import sharp, { type Sharp } from "sharp";
import type { Dataset } from "../../src/data/index.ts";

const repository = fileURLToPath(new URL("../../..", import.meta.url));
const sharedRoot = process.env.ORIEL_SHARED ?? join(repository, "../shared");

/** Where real data lies, and the reason to skip a test where it is absent. */
export function shared(path: string): { path: string; skip: string | false } {
  const full = join(sharedRoot, path);
  return { path: full, skip: existsSync(full) ? false : `${full} is absent` };
}

/** A folder with these files, removed when the tests of the file are done. */
export async function folder(files: Record<string, Uint8Array | string>): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), "oriel-data-"));
  after(() => rm(root, { recursive: true, force: true }));
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), content);
  }
  return root;
}

/** Raw RGB pixels with a pattern that `seed` sets. */
export function pixels(width: number, height: number, seed = 0): Buffer {
  return Buffer.from(
    Array.from({ length: width * height * 3 }, (_, i) => (i * (7 + (seed % 13)) + seed * 29 + (i >> 5) * 3) & 255),
  );
}

export const picture = (width: number, height: number, seed = 0): Sharp =>
  sharp(pixels(width, height, seed), { raw: { width, height, channels: 3 } });

export const png = (width: number, height: number, seed = 0): Promise<Buffer> =>
  picture(width, height, seed).png().toBuffer();

/** Pictures in memory, some of them unreadable; the label of picture i is i modulo `classes`, unless given. */
export async function memoryDataset(
  count: number,
  { classes = 3, side = 12, broken = [] as readonly number[], label = (i: number): number => i % classes } = {},
): Promise<Dataset> {
  const files = await Promise.all(Array.from({ length: count }, (_, i) => png(side, side, i)));
  return {
    classes: Array.from({ length: classes }, (_, i) => `class${i}`),
    length: count,
    label,
    name: (i) => `memory/${i}.png`,
    read: async (i) => (broken.includes(i) ? new Uint8Array([1, 2, 3]) : files[i]),
  };
}

/** A tar archive; names above 100 bytes are written in the form asked for, links after the files. */
export function tar(
  files: Record<string, Uint8Array>,
  longNames: "pax" | "gnu" = "pax",
  links: Record<string, { hard?: string; soft?: string }> = {},
): Buffer {
  const parts: Buffer[] = [];
  const add = (name: string, type: string, body: Uint8Array, link = ""): void => {
    const header = Buffer.alloc(512);
    header.write(name.slice(0, 100), 0);
    header.write("0000644\0", 100);
    header.write(`${body.length.toString(8).padStart(11, "0")}\0`, 124);
    header.write("        ", 148);
    header.write(type, 156);
    header.write(link.slice(0, 100), 157);
    header.write("ustar\x0000", 257);
    const sum = header.reduce((a, b) => a + b);
    header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
    parts.push(header, Buffer.from(body), Buffer.alloc((512 - (body.length % 512)) % 512));
  };
  const record = (key: string, value: string): string => {
    const rest = ` ${key}=${value}\n`;
    let length = rest.length;
    while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
    return `${length}${rest}`;
  };
  for (const [name, body] of Object.entries(files)) {
    if (name.length > 100 && longNames === "pax") add("PaxHeaders/x", "x", Buffer.from(record("path", name)));
    if (name.length > 100 && longNames === "gnu") add("././@LongLink", "L", Buffer.from(`${name}\0`));
    add(name, name.endsWith("/") ? "5" : "0", body);
  }
  for (const [name, { hard, soft }] of Object.entries(links)) {
    const link = (hard ?? soft)!;
    if (link.length > 100 && longNames === "pax") add("PaxHeaders/x", "x", Buffer.from(record("linkpath", link)));
    if (link.length > 100 && longNames === "gnu") add("././@LongLink", "K", Buffer.from(`${link}\0`));
    add(name, hard === undefined ? "2" : "1", Buffer.alloc(0), link);
  }
  return Buffer.concat([...parts, Buffer.alloc(1024)]);
}
