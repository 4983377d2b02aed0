import { readdir, readFile, unlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { threadId, workerData } from "node:worker_threads";
import * as ort from "onnxruntime-node";
import { OrielError } from "../base/errors.ts";
import { type Device, Engine, type OpenDevice } from "./engine.ts";
import { Gate } from "./gate.ts";
import type { Birth } from "./node-nursery.ts";
import type { Message } from "./protocol.ts";
import type { OpTime } from "./runtime.ts";
import { trainingOptions } from "./training-options.ts";

/** Profiles lie in the temporary folder until they are read, under a name of each session's own. */
const profilePrefix = (): string => `oriel-profile-${process.pid}-${threadId}-${profiles++}-`;
let profiles = 0;

const levels = { none: "disabled", basic: "basic", extended: "extended", all: "all" } as const;

const openDevice: OpenDevice = async ({ device, threads }): Promise<Device> => ({
  ort,
  memory: device === "webgpu" ? "far" : device === "cpu" ? "ours" : "engine",
  session: (options) => ({
    // With the processor named beside it, the engine would refuse to forbid falling back.
    executionProviders: device === "cpu" || options.strict ? [device] : [device, "cpu"],
    graphOptimizationLevel: levels[options.optimize ?? "all"],
    intraOpNumThreads: options.threads ?? threads,
    // What goes wrong comes as an exception; the engine would print it besides.
    logSeverityLevel: 4,
    // Planned memory comes on top of what the first run took: a training step of Swin-T peaks at 3.1 GB with it, 2.0 GB without.
    enableMemPattern: false,
    ...(device === "webgpu" ? { preferredOutputLocation: "gpu-buffer" } : {}),
    ...(options.profile ? { enableProfiling: true, profileFilePrefix: join(tmpdir(), profilePrefix()) } : {}),
    extra: {
      ...(options.training ? trainingOptions : {}),
      session: {
        // Tiny gradients and second moments would otherwise run at a hundredth of the speed.
        set_denormal_as_zero: "1",
        ...(options.folder === undefined ? {} : { model_external_initializers_file_folder_path: options.folder }),
        ...(options.strict && device !== "cpu" ? { disable_cpu_ep_fallback: "1" } : {}),
      },
    },
  }),
  readProfile,
});

async function readProfile(session: ort.InferenceSession, prefix: string): Promise<OpTime[]> {
  session.endProfiling();
  const name = (await readdir(tmpdir())).find((file) => join(tmpdir(), file).startsWith(prefix));
  if (!name) throw new OrielError("runtime", "the engine wrote no profile");
  const file = join(tmpdir(), name);
  const events = JSON.parse(await readFile(file, "utf8")) as ProfileEvent[];
  await unlink(file);
  return sumTimes(events);
}

interface ProfileEvent {
  cat: string;
  name: string;
  dur: number;
  args?: { op_name?: string };
}

/** One row for each node, the largest first; a Scan's time is told by the nodes within it. */
function sumTimes(events: readonly ProfileEvent[]): OpTime[] {
  const rows = new Map<string, OpTime>();
  for (const { cat, name, dur, args } of events) {
    if (cat !== "Node" || !name.endsWith("_kernel_time") || args?.op_name === "Scan") continue;
    const node = name.slice(0, -"_kernel_time".length);
    const row = rows.get(node);
    if (row) {
      row.microseconds += dur;
      row.calls++;
    } else rows.set(node, { name: node, op: args?.op_name ?? "?", microseconds: 0, calls: 0 });
  }
  return [...rows.values()].sort((a, b) => b.microseconds - a.microseconds);
}

const { memory, port } = workerData as Birth;
const engine = new Engine(openDevice, new Gate(memory));
port.on("message", (message: Message | "close") => {
  if (message === "close") process.exit();
  engine.handle(message, (answer, transfer) => port.postMessage(answer, transfer));
});
