import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { MessageChannel, Worker } from "node:worker_threads";
import { closingOnError } from "../base/close.ts";
import { OrielError, UsageError } from "../base/errors.ts";
import { Graph } from "../graph/graph.ts";
import { input } from "../graph/tensor.ts";
import { toBlocks } from "../ops/contrib.ts";
import "../ops/methods.ts"; // which passes draw with
import { alignNumbers } from "../passes/align-numbers.ts";
import { biasesApart } from "../passes/biases-apart.ts";
import { convolutionsInBlocks } from "../passes/convolutions-in-blocks.ts";
import { depthwiseInBlocks } from "../passes/depthwise-in-blocks.ts";
import { gatesInBlocks } from "../passes/gates-in-blocks.ts";
import { inTiles } from "../passes/in-tiles.ts";
import { kernelGradientsInBlocks } from "../passes/kernel-gradients-in-blocks.ts";
import { placesByResampling } from "../passes/places-by-resampling.ts";
import { pointwiseConvolutions } from "../passes/pointwise-convolutions.ts";
import { poolsWithPlaces } from "../passes/pools-with-places.ts";
import { productsInBlocks } from "../passes/products-in-blocks.ts";
import { scaleInOnePass } from "../passes/scale-in-one-pass.ts";
import { smallTransposes } from "../passes/small-transposes.ts";
import { unplannedMemory } from "../passes/unplanned-memory.ts";
import { checkThreads, type EngineThread, ThreadRuntime } from "./client.ts";
import { Gate } from "./gate.ts";
import { mendOf, missingLibrary, reasonOf } from "./node-mends.ts";
import type { Birth } from "./node-nursery.ts";
import type { Answer } from "./protocol.ts";
import type { DeviceReport, Runtime } from "./runtime.ts";
import { Streams } from "./streams.ts";

export type NodeDevice = "cpu" | "webgpu" | "cuda";

export interface NodeOptions {
  /** "cpu" unless given; "auto" takes CUDA or WebGPU where they are there and faster than the processor. */
  device?: NodeDevice | "auto";
  /** Threads of the engine; by default one for each core. */
  threads?: number;
  /**
   * Runs side by side, each in its share of the threads and with the weights in its own memory: more pictures a second than by one run
   * at a time, each later.  1 by default; for the processor alone.
   */
  streams?: number;
}

/** ONNX Runtime in worker threads, since its `run` blocks the thread that calls it. */
export async function openNode({
  device = "cpu",
  threads = availableParallelism(),
  streams = 1,
}: NodeOptions = {}): Promise<Runtime> {
  if (device !== "auto" && !Object.hasOwn(names, device))
    throw new UsageError({ message: `there is no device "${device}"`, help: "cpu, webgpu, cuda and auto are known" });
  checkThreads(threads);
  if (!Number.isInteger(streams) || streams < 1)
    throw new UsageError({ message: `streams is ${streams}`, help: "a whole number, 1 or more" });
  if (device === "auto") {
    const reports = await Promise.all([probe("cuda"), probe("webgpu")]);
    const best = reports.find((report) => report.usable && !report.note);
    return openNode({ device: (best?.device as NodeDevice) ?? "cpu", threads, ...(best ? {} : { streams }) });
  }
  if (streams === 1) return openEngine(device, threads);
  if (device !== "cpu")
    throw new UsageError({
      message: `${names[device]} has one stream`,
      help: "leave out streams, or take the processor",
    });
  const share = threads === 0 ? 0 : Math.max(1, Math.floor(threads / streams));
  return Streams.open(streams, () => openEngine(device, share));
}

async function openEngine(device: NodeDevice, threads: number): Promise<ThreadRuntime> {
  const absent = device === "cuda" ? missingLibrary() : undefined;
  if (absent) throw new OrielError("runtime", { message: `${names[device]} cannot be used here`, help: absent });
  try {
    const thread = startWorker();
    const runtime = await ThreadRuntime.open(thread, { device, threads });
    if (device === "cpu") {
      // The engine's kernels for blocks of channels are for x64 alone.
      const blocks = process.arch === "x64" ? await closingOnError([runtime], () => blockSize(runtime)) : undefined;
      thread.prepare = (graph, own = threads) => forProcessor(graph, own || availableParallelism(), blocks);
    }
    return runtime;
  } catch (error) {
    const reason = reasonOf(error);
    throw new OrielError("runtime", {
      message: `${names[device]} cannot be used here: ${reason}`,
      help: existsSync(script)
        ? mendOf(device, reason)
        : "a bundler left the engine's script behind: keep oriel out of the bundle",
      cause: error,
    });
  }
}

function forProcessor(graph: Graph, threads: number, blocks?: number): Graph {
  const plain = scaleInOnePass(poolsWithPlaces(placesByResampling(graph)), threads);
  const done = smallTransposes(alignNumbers(plain));
  const blocked = blocks === undefined ? done : inBlocks.reduce((g, pass) => pass(g, blocks), done);
  const whole = threads === 1 ? blocked : biasesApart(blocked);
  return unplannedMemory(inTiles(whole, tileBytes * threads));
}

/** In this order: each takes what those before it left. */
const inBlocks: readonly ((graph: Graph, size: number) => Graph)[] = [
  gatesInBlocks,
  pointwiseConvolutions,
  productsInBlocks,
  depthwiseInBlocks,
  convolutionsInBlocks,
  kernelGradientsInBlocks,
];

/** Bytes of a map that a thread has in a cache of its own, two or three at once. */
const tileBytes = 800_000;

/** How many channels this processor's kernels have in a block, 8 or 16: seen where the ninth value of two places comes to lie. */
export async function blockSize(runtime: Runtime): Promise<number> {
  const x = input([1, 16, 1, 2]);
  const program = await runtime.compile(new Graph([["x", x]], [["y", toBlocks(x, { channelsLast: false })]]));
  const data = Float32Array.from({ length: 32 }, (_, i) => i % 2);
  const { y } = await program.run({ x: { dtype: "float32", shape: [1, 16, 1, 2], data } });
  await program.release();
  return (y.data as Float32Array)[8] === 1 ? 8 : 16;
}

/** What this machine can run, and one sentence for each device that it cannot. */
export const nodeDevices = (): Promise<DeviceReport[]> => Promise.all([probe("cpu"), probe("webgpu"), probe("cuda")]);

const names = { cpu: "the processor", webgpu: "WebGPU", cuda: "CUDA" };

/** Tries a device in a process of its own: drivers write to stderr, and some end the process. */
function probe(device: NodeDevice): Promise<DeviceReport> {
  const script = fileURLToPath(new URL("./node-probe.js", import.meta.url));
  return new Promise((resolve) => {
    execFile(process.execPath, [script, device], { timeout: 60_000 }, (error, stdout) => {
      const answer = stdout.trim().split("\n").at(-1);
      // What ended in the middle of its answer tells of nothing.
      if (answer?.startsWith("{") && answer.endsWith("}")) resolve(JSON.parse(answer) as DeviceReport);
      else resolve({ device, usable: false, note: `the process that tried ${names[device]} ended: ${error?.message}` });
    });
  });
}

/** The gates of all threads that run: a process that ends waits for the run that goes on. */
const gates = new Set<Gate>();
process.on("exit", () => {
  for (const gate of gates) gate.shut();
  for (const gate of gates) gate.wait();
});

/** The thread that starts the engines', once one is asked for; it stays as long as the process. */
let nursery: Worker | undefined;
const script = new URL("./node-nursery.js", import.meta.url);

function startNursery(): Worker {
  const worker = new Worker(script, { execArgv: [] }); // flags such as --input-type are not for it
  worker.setMaxListeners(0); // two for each engine
  worker.once("exit", () => {
    nursery = undefined;
  });
  worker.unref();
  return worker;
}

/** Engines that are waited for: as long as there are any, the process does not end. */
const awaited = new Set<Gate>();

function startWorker(): EngineThread {
  const gate = new Gate();
  const { port1: port, port2 } = new MessageChannel();
  nursery ??= startNursery();
  const parent = nursery;
  parent.postMessage({ memory: gate.memory, port: port2 } satisfies Birth, [port2]);
  const wait = (waiting: boolean): void => {
    if (waiting) awaited.add(gate);
    else awaited.delete(gate);
    if (awaited.size > 0) parent.ref();
    else parent.unref();
  };
  gates.add(gate);
  const ended = new Promise<void>((resolve) => {
    port.once("close", () => {
      gates.delete(gate);
      wait(false);
      resolve();
    });
  });
  let closing = false;
  return {
    post: (message, transfer) => port.postMessage(message, transfer),
    onAnswer: (listen) => {
      port.on("message", (answer: Answer) => listen(answer));
      port.unref();
    },
    // An engine that fails takes the thread along that started it.
    onFailure: (listen) => {
      const end = (code: number) => listen(new OrielError("runtime", `the engine's thread ended with code ${code}`));
      parent.once("error", listen).once("exit", end);
      ended.then(() => closing && parent.off("error", listen).off("exit", end));
    },
    // A runtime that nobody waits for lets the process end.
    onWaiting: (waiting) => {
      if (!closing) wait(waiting);
    },
    close: () => {
      if (closing) return ended;
      closing = true;
      gate.shut();
      wait(true);
      port.postMessage("close");
      return ended;
    },
  };
}
