import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { classFolders, json, oriel, quick, start, temporaryFolder } from "./helpers.ts";

const folder = temporaryFolder();
const skip = process.platform === "win32" ? "Windows has no SIGINT to send" : false;

before(async () => {
  await classFolders(join(folder, "pictures"), 40);
});

/** Waits until a process has written something on stderr. */
const until = (child: ChildProcess, text: RegExp): Promise<void> =>
  new Promise((resolve, reject) => {
    let said = "";
    child.stderr?.on("data", (data: string) => {
      said += data;
      if (text.test(said)) resolve();
    });
    child.on("exit", () => reject(new Error(`ended before it said ${text}: ${said}`)));
  });

test("Ctrl-C saves, exits with 130, and the run goes on to the bytes of one never stopped", { skip }, async () => {
  const words = ["train", "pictures", ...quick, "--epochs", "4"];
  const { child, ended } = start(folder, ...words, "--out", "stopped run");
  await until(child, /epoch 1\/4 .*validation/);
  child.kill("SIGINT");
  const { status, stdout, stderr } = await ended;
  assert.equal(status, 130, stderr);
  assert.match(stderr, /saved first; press Ctrl-C again/);
  assert.match(stdout, /interrupted after (1 epoch|\d epochs) in[\s\S]*oriel train --resume --out "stopped run"\n/);
  assert.match(stdout, /report: .*report\.html/);
  for (const left of ["last.safetensors", "report.html"])
    assert.ok(existsSync(join(folder, "stopped run", left)), left);
  assert.deepEqual(
    readdirSync(join(folder, "stopped run")).filter((name) => name.endsWith(".part")),
    [],
  );

  await json(folder, "train", "--resume", "--out", "stopped run");
  assert.equal((await oriel(folder, ...words, "--out", "whole")).status, 0);
  const last = (run: string) => readFileSync(join(folder, run, "last.safetensors"));
  assert.ok(last("stopped run").equals(last("whole")));
});

test("what a scheduler sends saves, too", { skip }, async () => {
  const { child, ended } = start(folder, "train", "pictures", ...quick, "--epochs", "50", "--out", "stopped");
  await until(child, /training for 50 epochs/);
  child.kill("SIGTERM");
  const { status, stdout } = await ended;
  assert.equal(status, 143);
  assert.match(stdout, /^interrupted after \d+ epochs?/);
  assert.ok(existsSync(join(folder, "stopped", "last.safetensors")));
});

test("a second Ctrl-C ends at once", { skip }, async () => {
  const { child, ended } = start(folder, "train", "pictures", ...quick, "--epochs", "50", "--out", "twice");
  await until(child, /epoch 1\/50/);
  child.kill("SIGINT");
  child.kill("SIGINT"); // one press, as far as the system is concerned, unless the first has arrived
  const again = setInterval(() => child.kill("SIGINT"), 5);
  const { status } = await ended;
  clearInterval(again);
  assert.equal(status, 130);
  assert.deepEqual(
    readdirSync(join(folder, "twice")).filter((name) => !/\.(part|safetensors|json|jsonl|html)$/.test(name)),
    [],
  );
});

test("Ctrl-C where there is nothing to save ends at once", { skip }, async () => {
  const { child, ended } = start(folder, "bench", "swin_micro_32", "--rounds", "1000");
  await until(child, /measuring/);
  child.kill("SIGINT");
  assert.equal((await ended).status, 130);
});

test("a run goes on when nobody reads any more how it goes", async () => {
  const { child, ended } = start(folder, "train", "pictures", ...quick, "--out", "unread");
  child.stderr?.once("data", () => child.stderr?.destroy());
  const { status, stdout } = await ended;
  assert.equal(status, 0);
  assert.match(stdout, /^finished after 1 epoch in/);
});
