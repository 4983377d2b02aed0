/**
 * Ours beside what a user would run instead, in rounds that take turns, so that a noisy neighbour hits all sides alike.
 *
 *   node dist/bench/peers/race.js MODEL --mode inference|training --peers eager,compile,openvino,ort-export --rounds 5
 *
 * Each side is a process of its own that speaks the lines of protocol.ts; ours is `ours.js MODEL --mode MODE --batch N --threads N`.
 */
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { runRounds } from "./rounds.ts";
import { Side } from "./side.ts";
import { table } from "./table.ts";

const usage =
  "usage: node dist/bench/peers/race.js MODEL --mode inference|training [--peers eager,compile,openvino,ort-export] [--rounds 5]";
const refuse = (why: string): never => {
  console.error(`${why}\n${usage}`);
  process.exit(2);
};

const { values, positionals } = given();
const [model] = positionals;
if (!model) refuse("name a model");
if (!["inference", "training"].includes(values.mode)) refuse(`--mode is inference or training, not ${values.mode}`);

function given() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        mode: { type: "string", default: "inference" },
        peers: { type: "string", default: "eager,compile,openvino,ort-export" },
        rounds: { type: "string", default: "5" },
        /** Timed steps a round, at least, after one that is not timed. */
        steps: { type: "string", default: "4" },
        batch: { type: "string", default: "8" },
        threads: { type: "string", default: "2" },
        python: { type: "string", default: "python3" },
        cswin: { type: "string" },
        /** Leaves our side out. */
        "peers-only": { type: "boolean", default: false },
        json: { type: "boolean", default: false },
      },
    });
  } catch (error) {
    return refuse((error as Error).message);
  }
}

const here = fileURLToPath(new URL(".", import.meta.url)); // dist/bench/peers
const script = fileURLToPath(new URL("../../../bench/peers/peers.py", import.meta.url));
const common = ["--batch", values.batch, "--threads", values.threads];
const python = (peer: string) => [
  ...[script, peer, "--model", model, "--mode", values.mode, ...common],
  ...(values.cswin ? ["--cswin", values.cswin] : []),
];
const progress = (text: string) => console.error(text);

/** What to start for a side; the exported file is written first, outside the time to the first step. */
async function start(name: string, folder: string): Promise<Side> {
  const threads = Number(values.threads);
  if (name === "ours")
    return Side.start(
      name,
      process.execPath,
      [join(here, "ours.js"), model, "--mode", values.mode, ...common],
      threads,
    );
  if (name !== "ort-export") return Side.start(name, values.python, python(name), threads);
  if (values.mode === "training") throw new Error("ort-export: PyTorch does not export training steps");
  const file = join(folder, `${model}.onnx`);
  await promisify(execFile)(values.python, [...python("export"), "--file", file]);
  return Side.start(name, process.execPath, [join(here, "ort-file.js"), file, "--threads", values.threads], threads);
}

/** Starts the sides one after another; one that cannot start is reported and left out. */
async function startAll(names: readonly string[], folder: string): Promise<Side[]> {
  const sides: Side[] = [];
  for (const name of names) {
    try {
      const side = await start(name, folder);
      progress(`${name}: ready after ${side.firstStepSeconds.toFixed(1)} s`);
      sides.push(side);
    } catch (error) {
      progress(`${name}: left out, ${(error as Error).message}`);
    }
  }
  return sides;
}

const names = [...(values["peers-only"] ? [] : ["ours"]), ...values.peers.split(",")];
const folder = await mkdtemp(join(tmpdir(), "oriel-race-"));
const sides = await startAll(names, folder);
try {
  const [rounds, steps, batch, threads] = [values.rounds, values.steps, values.batch, values.threads].map(Number);
  const run = sides.length > 0 ? await runRounds(sides, { rounds, steps, batch, progress }) : [];
  const results = sides.map(({ name, versions, firstStepSeconds }, at) => ({
    ...{ name, versions, firstStepSeconds },
    rounds: run.map((round) => round[at].msPerImage),
    peakBytes: Math.max(...run.map((round) => round[at].peakBytes)),
  }));
  if (values.json) console.log(JSON.stringify({ model, mode: values.mode, batch, threads, sides: results }));
  else console.log(table(`${model}, ${values.mode}, batch ${batch}, ${threads} threads`, results));
  if (sides.length < names.length) process.exitCode = 1;
} finally {
  await Promise.all(sides.map((side) => side.stop()));
  await rm(folder, { recursive: true });
}
