import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { OrielError } from "../base/errors.ts";
import { type EngineThread, ThreadRuntime } from "./client.ts";
import type { Answer } from "./protocol.ts";
import type { Runtime } from "./runtime.ts";

export type NodeDevice = "cpu" | "webgpu" | "cuda";

export interface NodeOptions {
  /** "auto" takes CUDA or WebGPU where a session can be opened on it, else the CPU. */
  device?: NodeDevice | "auto";
  /** Threads of one run; by default one for each core. */
  threads?: number;
}

/** ONNX Runtime in a worker thread, since its `run` blocks the thread that calls it. */
export async function openNode({ device = "cpu", threads }: NodeOptions = {}): Promise<Runtime> {
  const choices: readonly string[] = device === "auto" ? ["cuda", "webgpu", "cpu"] : [device];
  let refused: unknown;
  for (const choice of choices) {
    try {
      return await ThreadRuntime.open(startWorker(threads ?? availableParallelism()), { device: choice, threads });
    } catch (error) {
      refused = error;
    }
  }
  throw new OrielError("runtime", {
    message: `${device} cannot be used here: ${refused instanceof Error ? refused.message.split("\n")[0] : refused}`,
    help: "run `oriel doctor` to see what this machine can run",
    cause: refused,
  });
}

function startWorker(threads: number): EngineThread {
  const worker = new Worker(new URL("./node-worker.js", import.meta.url), { workerData: { threads } });
  let closing = false;
  return {
    post: (message, transfer) => worker.postMessage(message, transfer),
    onAnswer: (listen) => void worker.on("message", (answer: Answer) => listen(answer)),
    onFailure: (listen) => {
      worker.on("error", listen);
      worker.on("exit", (code) => {
        if (!closing) listen(new OrielError("runtime", `the engine's thread ended with code ${code}`));
      });
    },
    close: async () => {
      closing = true;
      await worker.terminate();
    },
  };
}
