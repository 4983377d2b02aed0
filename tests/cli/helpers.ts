import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { fileURLToPath } from "node:url";
import sharp, { type Sharp } from "sharp";

const main = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));

/** A folder of its own, gone when the file's tests are done. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "oriel-cli-"));
  after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export interface Ended {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** Starts a command line in a folder. */
export function start(folder: string, ...words: string[]): { child: ChildProcess; ended: Promise<Ended> } {
  const env = { ...process.env, NO_COLOR: "1", ORIEL_DEBUG: "" };
  const child = spawn(process.execPath, [main, ...words], { cwd: folder, env, stdio: ["ignore", "pipe", "pipe"] });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  return { child, ended: new Promise((resolve) => child.on("close", (status) => resolve({ status, stdout, stderr }))) };
}

/** Runs a command line in a folder to its end. */
export const oriel = (folder: string, ...words: string[]): Promise<Ended> => start(folder, ...words).ended;

/** Runs a command line that must succeed.  -> what it printed as JSON */
export async function json<T>(folder: string, ...words: string[]): Promise<T> {
  const { status, stdout, stderr } = await oriel(folder, ...words, "--json");
  assert.equal(status, 0, stderr);
  return JSON.parse(stdout.trim().split("\n").at(-1)!) as T;
}

/** Runs a command line that must fail as `status`, with a message for people: one that matches, and no stack. */
export async function refused(folder: string, words: string[], status: number, ...messages: RegExp[]): Promise<string> {
  const ended = await oriel(folder, ...words);
  assert.equal(ended.status, status, `${words.join(" ")}\n${ended.stderr}`);
  for (const message of messages) assert.match(ended.stderr, message);
  assert.doesNotMatch(ended.stderr, /^\s+at .*\(?(file:|node:|\/)/m, "a stack");
  assert.doesNotMatch(ended.stderr, /internal:|undefined|\[object/);
  assert.equal(ended.stdout, "");
  return ended.stderr;
}

const colours = { red: [200, 40, 40], green: [40, 190, 40], blue: [40, 40, 200] } as const;
export type Colour = keyof typeof colours;

/** A picture of one colour with a little noise. */
export function picture(colour: Colour, seed: number, side = 32): Sharp {
  const pixels = Uint8Array.from(
    { length: side * side * 3 },
    (_, i) => colours[colour][i % 3] + ((i * 7919 * (seed + 1)) % 40) - 20,
  );
  return sharp(pixels, { raw: { width: side, height: side, channels: 3 } });
}

/** Class folders of pictures that are easy to tell apart. */
export async function classFolders(
  folder: string,
  count: number,
  classes: readonly Colour[] = ["red", "green", "blue"],
): Promise<string> {
  for (const colour of classes) {
    mkdirSync(join(folder, colour), { recursive: true });
    for (let i = 0; i < count; i++)
      writeFileSync(join(folder, colour, `${i}.png`), await picture(colour, i).png().toBuffer());
  }
  return folder;
}

/** The smallest model there is, and what makes its runs short. */
export const quick = ["--model", "resnet20_cifar", "--epochs", "1", "--batch", "8", "--workers", "0", "--threads", "1"];
