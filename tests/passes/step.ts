import { readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InferenceSession, Tensor as OrtTensor } from "onnxruntime-node";
import { findModel } from "../../src/backbones/index.ts";
import { Random } from "../../src/base/philox.ts";
import { zerosOf } from "../../src/graph/dtype.ts";
import type { Graph } from "../../src/graph/graph.ts";
import { writeOnnx } from "../../src/graph/onnx/write.ts";
import { staticSize } from "../../src/graph/shape.ts";
import { initialWeights } from "../../src/nn/module.ts";
import { adamw, chain, clipNorm } from "../../src/optim/optimizer.ts";
import type { HostTensor } from "../../src/runtime/runtime.ts";
import { Classification, Classifier } from "../../src/tasks/classify.ts";
import { type StepOptions, type TrainStep, trainStep } from "../../src/train/step/step.ts";

const classes = 10;

/** A training step of a model, and what its first run is fed. */
export async function openStep(
  name: string,
  { batch, ...options }: { batch: number } & Omit<StepOptions, "batch">,
): Promise<TrainStep & { feeds: Record<string, HostTensor> }> {
  const entry = await findModel(name);
  const { imageSize: side } = entry.preprocessing;
  const task = new Classification(new Classifier(entry.create({ dropPath: 0.1 }), classes), { smoothing: 0.1 });
  const step = trainStep(task, chain(clipNorm(1), adamw({ weightDecay: 0.05 })), {
    batch: {
      image: { dtype: "float32", shape: [batch, 3, side, side] },
      target: { dtype: "int32", shape: [batch] },
    },
    ...options,
  });
  const weights = initialWeights(task, 1);
  const random = new Random(3, "pictures");
  const values: Record<string, (size: number) => HostTensor["data"]> = {
    image: (size) => Float32Array.from({ length: size }, () => random.normal()),
    target: (size) => Int32Array.from({ length: size }, (_, i) => i % classes),
    lr: () => Float32Array.of(1e-3),
    step: () => Float32Array.of(1),
    seed: () => Uint32Array.of(5),
  };
  const feeds: Record<string, HostTensor> = {};
  for (const [key, { dtype, shape }] of step.graph.inputs) {
    const size = staticSize(shape);
    const data = values[key]?.(size) ?? weights.get(key) ?? zerosOf(dtype, size);
    feeds[key] = { dtype, shape: shape as number[], data };
  }
  return { ...step, feeds };
}

/** What the engine's own record of a run says. */
export interface Recorded {
  /** Places of the nodes in the file, in the order in which they ran; the engine's own nodes come after those. */
  order: number[];
  names: string[];
  /** The most that its allocator had given out, in bytes: what is made and constants, not what is fed. */
  peak: number;
}

let recordings = 0;

/** Runs a graph once with ONNX Runtime alone, and reads its record. */
export async function record(
  graph: Graph,
  feeds: Readonly<Record<string, HostTensor>>,
  { optimize = true } = {},
): Promise<Recorded> {
  const prefix = `oriel-record-${process.pid}-${recordings++}-`;
  const session = await InferenceSession.create(writeOnnx(graph), {
    graphOptimizationLevel: optimize ? "all" : "disabled",
    enableMemPattern: false, // as the runtime has it
    enableProfiling: true,
    profileFilePrefix: join(tmpdir(), prefix),
    intraOpNumThreads: 1,
    logSeverityLevel: 4,
  });
  await session.run(
    Object.fromEntries(
      Object.entries(feeds).map(([key, { dtype, shape, data }]) => [
        key,
        new OrtTensor(dtype as "float32", data as Float32Array, shape),
      ]),
    ),
  );
  session.endProfiling();
  await session.release();
  const file = join(tmpdir(), readdirSync(tmpdir()).find((name) => name.startsWith(prefix))!);
  const events = (JSON.parse(readFileSync(file, "utf8")) as ProfileEvent[])
    .filter(({ cat, name }) => cat === "Node" && name.endsWith("_kernel_time"))
    .sort((a, b) => a.ts - b.ts);
  rmSync(file);
  return {
    order: events.map(({ args }) => Number(args.node_index)),
    names: events.map(({ name }) => name),
    peak: Math.max(...events.map(({ args }) => Number(args.mem_in_use_peak))),
  };
}

interface ProfileEvent {
  cat: string;
  name: string;
  ts: number;
  args: Record<string, string>;
}
