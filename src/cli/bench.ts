import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { findModel } from "../backbones/index.ts";
import { type ErrorFacts, OrielError } from "../base/errors.ts";
import type { OpTime } from "../runtime/runtime.ts";
import { trainSchema } from "../train/run/config.ts";
import type { Measured, MeasureOptions, Mode } from "./bench/measure.ts";
import { arg, defineCommand, shared } from "./command.ts";
import { nodeFlags } from "./import.ts";
import { bytes, duration, table } from "./out.ts";

export default defineCommand({
  name: "bench",
  summary: "Measure a model's speed, memory and use of the machine",
  details:
    "Inference and training each run in a process of their own.  Utilisation is the model's multiply-adds per second over the " +
    "best rate of a 2048×2048×2048 MatMul on the same engine, whose runs take turns with the model's.  For inference a batch " +
    "goes through the model as `oriel evaluate` runs it: on the processor a few images at a time, each thread its own; a " +
    "profile has the times of all threads.  A training step is forward, cross-entropy, backward and AdamW; it counts as " +
    "three forward passes, and goes as `oriel train` takes it.",
  args: { model: arg("a model that `oriel models` lists") },
  imports: true,
  flags: z.object({
    batch: z.int().min(1).default(8).describe("images in a step"),
    imageSize: trainSchema.shape.imageSize.describe("side of the images; the model's own"),
    rounds: z.int().min(1).default(5).describe("rounds of two steps and a MatMul"),
    fuse: z.boolean().default(true).describe("measure inference as it was drawn, nothing fused"),
    profile: z.boolean().default(false).describe("list the time per kind of operation, and the heaviest nodes"),
    device: shared.device,
    threads: z.int().min(1).default(2).describe("threads of the engine"),
  }),
  short: { batch: "b" },
  examples: [
    ["oriel bench cswin_tiny_224", "speed and memory at batch 8"],
    ["oriel bench resnet50 --batch 1 --profile", "where the time of one image goes"],
    ["oriel bench vit_small_patch16_224 --no-fuse", "what fusing gains, beside the same without the flag"],
  ],
  async run({ model, batch, profile, ...rest }, out) {
    await findModel(model); // an unknown name is told before anything starts
    const one = (mode: Mode) => {
      out.note(`measuring ${mode} …`);
      return inChild({ model, batch, profile, mode, ...rest });
    };
    const inference = await one("inference");
    const training = await one("training");
    const result = {
      model,
      batch,
      matmulRate: Math.max(inference.matmulRate, training.matmulRate),
      inference: { msPerImage: inference.msPerImage, utilisation: inference.utilisation },
      training: {
        msPerImage: training.msPerImage,
        utilisation: training.utilisation,
        peakBytes: training.peakBytes,
        firstStepSeconds: training.firstStepSeconds,
      },
      ...(profile ? { profile: { inference: inference.profile, training: training.profile } } : {}),
    };
    out.result(result, () => {
      const row = (mode: Mode, { msPerImage, utilisation, peakBytes, firstStepSeconds }: Measured) => [
        mode,
        `${msPerImage.toFixed(1)} ms`,
        (1000 / msPerImage).toFixed(1),
        utilisation.toFixed(2),
        bytes(peakBytes),
        duration(firstStepSeconds),
      ];
      const head = ["", "per image", "images/s", "utilisation", "peak memory", "to first step"];
      const parts = [
        `${model}, batch ${batch}, ${rest.threads} threads, ${training.device}; MatMul ${(result.matmulRate / 1e9).toFixed(1)} GMAC/s`,
        table(head, [row("inference", inference), row("training", training)]),
      ];
      if (inference.profile) parts.push(`\nInference, one step\n${profileTable(inference.profile)}`);
      if (training.profile) parts.push(`\nTraining, one step\n${profileTable(training.profile)}`);
      return parts.join("\n");
    });
  },
});

/** Measures in a process of its own, and takes its answer or its fault. */
function inChild(options: MeasureOptions): Promise<Measured> {
  return new Promise((resolve, reject) => {
    const child = fork(fileURLToPath(new URL("./bench/child.js", import.meta.url)), [JSON.stringify(options)], {
      stdio: ["ignore", 2, 2, "ipc"],
      execArgv: [...process.execArgv, ...nodeFlags()],
    });
    child.once(
      "message",
      ({
        measured,
        error,
      }: {
        measured?: Measured;
        error?: { code?: string; facts?: ErrorFacts; message?: string };
      }) => {
        if (measured) resolve(measured);
        else reject(error?.facts ? new OrielError(error.code!, error.facts) : new Error(error?.message));
      },
    );
    child.once("error", reject);
    child.once("exit", (code, signal) => {
      const how =
        signal === "SIGKILL" ? "was killed, perhaps for want of memory" : `ended with ${signal ?? `status ${code}`}`;
      reject(
        new OrielError("bench", {
          message: `the process that measured ${options.mode} ${how}`,
          help: "try a smaller --batch",
        }),
      );
    });
  });
}

/** Time by kind of operation, then the heaviest nodes with the module that drew them. */
function profileTable(times: readonly OpTime[]): string {
  const total = times.reduce((sum, { microseconds }) => sum + microseconds, 0);
  const kinds = new Map<string, { microseconds: number; calls: number }>();
  for (const { op, microseconds, calls } of times) {
    const kind = kinds.get(op) ?? { microseconds: 0, calls: 0 };
    kinds.set(op, { microseconds: kind.microseconds + microseconds, calls: kind.calls + calls });
  }
  const ms = (microseconds: number): string => `${(microseconds / 1000).toFixed(2)} ms`;
  const share = (microseconds: number): string => `${((100 * microseconds) / total).toFixed(1)} %`;
  const byKind = [...kinds].sort(([, a], [, b]) => b.microseconds - a.microseconds).slice(0, 16);
  const byNode = times.slice(0, 16);
  return [
    table(
      ["operation", "time", "share", "nodes"],
      byKind.map(([op, { microseconds, calls }]) => [
        op,
        ms(microseconds),
        share(microseconds),
        String(Math.round(calls)),
      ]),
    ),
    "",
    table(
      ["heaviest nodes", "operation", "time", "share"],
      byNode.map(({ name, op, microseconds }) => [
        name.replace(/^node:/, ""),
        op,
        ms(microseconds),
        share(microseconds),
      ]),
    ),
  ].join("\n");
}
