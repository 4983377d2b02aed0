import { OrielError, UsageError } from "../base/errors.ts";
import { mendWebAssembly } from "../base/webassembly.ts";
import { alignNumbers } from "../passes/align-numbers.ts";
import { checkThreads, type EngineThread, ThreadRuntime } from "./client.ts";
import type { Answer } from "./protocol.ts";
import type { DeviceReport, Runtime } from "./runtime.ts";

export type WebDevice = "webgpu" | "wasm";

export interface WebOptions {
  /** "auto" takes WebGPU where the browser has a graphics processor for it, else WebAssembly. */
  device?: WebDevice | "auto";
  /** Threads of WebAssembly, by default one for each core; more than one needs a page that is cross-origin isolated. */
  threads?: number;
  /**
   * The folder of ONNX Runtime's `.wasm` and `.mjs` files, relative to the page, or to the script of the worker that calls; by default
   * that of the engine's script.
   */
  wasmPaths?: string;
}

/** ONNX Runtime in a dedicated worker of a page, or of a worker of the page's. */
export async function openWeb({ device = "auto", threads, wasmPaths }: WebOptions = {}): Promise<Runtime> {
  checkPlace();
  if (device !== "auto" && !Object.hasOwn(names, device))
    throw new UsageError({ message: `there is no device "${device}"`, help: "wasm, webgpu and auto are known" });
  if (threads !== undefined) checkThreads(threads);
  if (device === "auto") {
    const { usable, note } = await findWebGpu();
    if (usable && !note) {
      // An adapter can be there and refuse what the engine needs.
      const opened = await openWeb({ device: "webgpu", threads, wasmPaths }).catch(() => undefined);
      if (opened) return opened;
    }
    return openWeb({ device: "wasm", threads, wasmPaths });
  }
  const cores = crossOriginIsolated ? (threads ?? navigator.hardwareConcurrency) : 1;
  const base = globalThis.document?.baseURI ?? location.href;
  const folder = wasmPaths && new URL(wasmPaths.endsWith("/") ? wasmPaths : `${wasmPaths}/`, base).href;
  try {
    return await ThreadRuntime.open(startWorker(device), { device, threads: cores, wasmPaths: folder });
  } catch (error) {
    const { usable, note } = device === "webgpu" ? await findWebGpu() : { usable: true };
    const { name, message, facts } = error as Partial<OrielError> & Error;
    const ownOrigin =
      name === "SecurityError" ? "serve the bundle and the engine's scripts from the page's own origin" : undefined;
    throw new OrielError("runtime", {
      message: `${names[device]} cannot be used here: ${(usable ? message : note)?.split("\n")[0]}`,
      help: facts?.help ?? ownOrigin ?? mendWebAssembly(message) ?? mends[device],
      cause: error,
    });
  }
}

function checkPlace(): void {
  if (typeof Worker === "undefined")
    throw new UsageError({ message: "there are no web workers here", help: "in Node, take openNode of oriel/node" });
}

const names = { webgpu: "WebGPU", wasm: "WebAssembly" };
const mends = {
  webgpu: 'use a browser that has WebGPU, or { device: "wasm" }',
  wasm: "serve ort-wasm-simd-threaded.* of onnxruntime-web beside the engine's script, or say where with wasmPaths",
};

/** What this page can run, and one sentence for what it cannot. */
export async function webDevices(): Promise<DeviceReport[]> {
  checkPlace();
  const alone = "it runs on one thread: the page is not cross-origin isolated";
  return [{ device: "wasm", usable: true, ...(crossOriginIsolated ? {} : { note: alone }) }, await findWebGpu()];
}

async function findWebGpu(): Promise<DeviceReport> {
  const device = "webgpu";
  const { gpu } = navigator as { gpu?: { requestAdapter(): Promise<Adapter | null> } };
  if (!gpu)
    return {
      device,
      usable: false,
      note: isSecureContext ? "this browser has no WebGPU" : "WebGPU needs a page that is served over HTTPS",
    };
  const adapter = await gpu.requestAdapter().catch(() => null);
  if (!adapter) return { device, usable: false, note: "the browser found no graphics processor that it trusts" };
  const software = adapter.info?.isFallbackAdapter || adapter.info?.architecture === "swiftshader";
  return { device, usable: true, ...(software ? { note: "it computes in software, slower than WebAssembly" } : {}) };
}

interface Adapter {
  info?: { isFallbackAdapter?: boolean; architecture?: string };
}

function startWorker(device: WebDevice): EngineThread {
  const isolated = crossOriginIsolated ? ", with the page's Cross-Origin-Embedder-Policy" : "";
  // Bundlers look for these very expressions.
  const worker =
    device === "webgpu"
      ? new Worker(new URL("./webgpu-worker.js", import.meta.url), { type: "module" })
      : new Worker(new URL("./wasm-worker.js", import.meta.url), { type: "module" });
  return {
    post: (message, transfer) => worker.postMessage(message, transfer),
    onAnswer: (listen) => worker.addEventListener("message", ({ data }: MessageEvent<Answer>) => listen(data)),
    onFailure: (listen) =>
      worker.addEventListener("error", ({ message }) =>
        listen(
          new OrielError("runtime", {
            message: `the engine's worker failed: ${message || "its script did not load"}`,
            help: message
              ? undefined
              : `serve ${device}-worker.js beside the bundle as JavaScript${isolated}: a bundler that does not make it by itself makes it of oriel/${device}-worker`,
          }),
        ),
      ),
    close: async () => worker.terminate(),
    prepare: device === "wasm" ? alignNumbers : undefined,
  };
}
