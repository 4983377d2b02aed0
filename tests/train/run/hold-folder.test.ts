import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { holdFolder } from "../../../src/train/run/hold-folder.ts";

const folder = mkdtempSync(join(tmpdir(), "oriel-hold-"));
const mark = join(folder, ".running");
after(() => rmSync(folder, { recursive: true, force: true }));

test("one run at a time writes into a folder", () => {
  const release = holdFolder(folder);
  assert.throws(() => holdFolder(folder), /another run is writing into .*, process \d+\n {2}help: .*--out/);
  release();
  assert.ok(!existsSync(mark));
  holdFolder(folder)();
});

test("a process that runs is heeded, not one that has ended, nor what nobody can tell", () => {
  const marked = (text: string): string => {
    writeFileSync(mark, text);
    return folder;
  };
  const by = (pid: number, host = hostname()): string => marked(JSON.stringify({ pid, host }));
  assert.throws(() => holdFolder(by(process.ppid)), new RegExp(`another run .*, process ${process.ppid}\n`));
  holdFolder(by(2 ** 30))(); // more than systems give
  holdFolder(by(process.pid))(); // as of a container that began again
  holdFolder(by(process.ppid, "elsewhere.example"))();
  holdFolder(marked(""))();
  assert.ok(!existsSync(mark));
});
