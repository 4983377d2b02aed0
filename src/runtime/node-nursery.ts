import { type MessagePort, parentPort, Worker } from "node:worker_threads";
import { InferenceSession } from "onnxruntime-node";
import { identityModel } from "./mover.ts";

// The thread that starts the engines' threads.  Asked to take numbers too small for normal ones as zeros, ONNX Runtime sets the
// processor so in its own threads, and in the one that makes the first session of a process; in no later one.  But a thread
// computes as the one that started it, so all engines are started from here.
// https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/session/inference_session.cc (ConstructorCommon)

/** An engine's thread to be started: the memory of its gate, and where it listens. */
export interface Birth {
  memory: SharedArrayBuffer;
  port: MessagePort;
}

const session = await InferenceSession.create(identityModel("float32"), {
  intraOpNumThreads: 1,
  logSeverityLevel: 4,
  extra: { session: { set_denormal_as_zero: "1" } },
});
await session.release();

const script = new URL("./node-worker.js", import.meta.url);
/** An engine's thread makes little garbage; without a limit it takes its time, and 25 MB, to collect it. */
const resourceLimits = { maxYoungGenerationSizeMb: 4 };
parentPort?.on(
  "message",
  (birth: Birth) => new Worker(script, { workerData: birth, transferList: [birth.port], resourceLimits }),
);
