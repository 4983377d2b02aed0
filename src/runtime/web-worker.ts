import type * as Ort from "onnxruntime-common";
import { type Device, Engine } from "./engine.ts";
import type { Message } from "./protocol.ts";
import { trainingOptions } from "./training-options.ts";

const levels = { none: "disabled", basic: "basic", extended: "extended", all: "all" } as const;

/** This thread, as a worker sees it; the page's types would make it a window. */
const here = globalThis as unknown as {
  name: string;
  postMessage(message: unknown, transfer: ArrayBuffer[]): void;
  addEventListener(kind: "message", listen: (event: { data: Message }) => void): void;
};

/** Makes this worker the engine's thread.  Each device has a script of its own, since each build of the engine has. */
export function serve(ort: typeof Ort, device: "webgpu" | "wasm"): void {
  // Where a bundler puts the engine into the worker's script, the engine starts its own threads from that script too.
  if (here.name.startsWith("em-pthread")) return;
  const session: Device["session"] = (options) => ({
    executionProviders: [device],
    graphOptimizationLevel: levels[options.optimize ?? "all"],
    // What goes wrong comes as an exception; the engine would print it besides.
    logSeverityLevel: 4,
    ...(device === "webgpu" ? { preferredOutputLocation: "gpu-buffer" } : {}),
    extra: {
      ...(options.training ? trainingOptions : {}),
      session: {
        set_denormal_as_zero: "1",
        ...(options.strict && device === "webgpu" ? { disable_cpu_ep_fallback: "1" } : {}),
      },
    },
  });
  const engine = new Engine(async ({ threads, wasmPaths }) => {
    if (wasmPaths) ort.env.wasm.wasmPaths = wasmPaths;
    ort.env.wasm.numThreads = threads;
    ort.env.logLevel = "fatal";
    return { ort, memory: device === "webgpu" ? "far" : "engine", session };
  });
  here.addEventListener("message", ({ data }) =>
    engine.handle(data, (answer, transfer) => here.postMessage(answer, transfer)),
  );
}
