import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { train } from "../../../src/train/run/train.ts";
import { small, temporaryFolder, writePictures } from "../files.ts";

const home = temporaryFolder();
before(async () => {
  await writePictures(join(home, "pictures"));
});

/** Trains in a process of its own, and kills it when it has told of so many steps. */
async function trainAndKill(config: object, steps: number): Promise<void> {
  const file = join(home, "config.json");
  writeFileSync(file, JSON.stringify(config));
  const script = `
    import { readFileSync } from "node:fs";
    import { train } from ${JSON.stringify(new URL("../../../src/train/run/train.js", import.meta.url).href)};
    const config = JSON.parse(readFileSync(${JSON.stringify(file)}, "utf8"));
    await train(config, { onEvent: (event) => event.type === "step" && console.log("step") });`;
  const program = join(home, "program.mjs");
  writeFileSync(program, script);
  const child = spawn(process.execPath, [program], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = once(child, "exit");
  let told = 0;
  child.stdout.on("data", (text: Buffer) => {
    told += text.toString().split("step").length - 1;
    if (told >= steps) child.kill("SIGKILL");
  });
  assert.deepEqual(await exited, [null, "SIGKILL"]);
}

for (const streams of [1, 2])
  test(`killed at random steps and resumed, a run on streams: ${streams} ends with the same bytes`, {
    timeout: 300_000,
  }, async () => {
    // What could differ is in it: batch statistics, moving averages, drop path, mixing, erasing, batch order, workers and two threads.
    const varied = {
      dropPath: 0.2,
      ema: 0.9,
      mixup: 0.4,
      cutmix: 1,
      erasing: 0.5,
      colorJitter: 0.3,
      augment: "rand-m5-mstd0.5",
    };
    const config = {
      ...small,
      ...varied,
      data: join(home, "pictures"),
      val: 0.25,
      epochs: 4,
      saveEvery: 3,
      threads: 2,
      streams,
      workers: 1,
    };
    const [whole, cut] = [join(home, `whole-${streams}`), join(home, `killed-${streams}`)];
    await train({ ...config, out: whole });
    const killed = { ...config, out: cut };
    const steps = [
      1 + Math.floor(2 * Math.random()),
      2 + Math.floor(4 * Math.random()),
      1 + Math.floor(4 * Math.random()),
    ];
    for (const [i, count] of steps.entries()) await trainAndKill({ ...killed, resume: i > 0 }, count);
    await train({ ...killed, resume: true });
    for (const name of ["last.safetensors", "best.safetensors", "model.onnx"])
      assert.ok(
        readFileSync(join(cut, name)).equals(readFileSync(join(whole, name))),
        `${name}, killed after ${steps.join(", then ")} steps`,
      );
  });
