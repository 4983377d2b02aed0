import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { findModel } from "../../backbones/index.ts";
import { closingOnError } from "../../base/close.ts";
import { Random } from "../../base/philox.ts";
import { Graph } from "../../graph/graph.ts";
import { input } from "../../graph/tensor.ts";
import { bindWeights } from "../../nn/bind.ts";
import { normal } from "../../nn/init.ts";
import { initialWeights } from "../../nn/module.ts";
import { matmul } from "../../ops/linalg.ts";
import { adamw } from "../../optim/optimizer.ts";
import { cost } from "../../passes/cost.ts";
import { fuse, targetOf } from "../../passes/fuse.ts";
import { type NodeOptions, openNode } from "../../runtime/node.ts";
import type { HostTensor, OpTime, Program, Runtime, Value } from "../../runtime/runtime.ts";
import { Classification } from "../../tasks/classify.ts";
import { inferenceGraph } from "../../train/checkpoint/model.ts";
import { pieceSizes } from "../../train/evaluate/pieces.ts";
import { withStreams } from "../../train/evaluate/predictor.ts";
import { DeviceState } from "../../train/step/device-state.ts";
import { bytesOfWeights, partsThatPay, splitStep } from "../../train/step/split-step.ts";
import { initialState } from "../../train/step/state.ts";
import { trainStep } from "../../train/step/step.ts";
import { compileStep, StepProgram } from "../../train/step/step-program.ts";
import type { BatchTypes } from "../../train/step/task.ts";
import { type Drawn, drawClassifier } from "../draw.ts";

export interface WorkloadOptions extends Pick<NodeOptions, "device" | "threads"> {
  batch: number;
  imageSize?: number;
  /** Fuses operations for inference. */
  fuse?: boolean;
  /** Collects the time of every operation. */
  profile?: boolean;
}

/** Something to be timed: one batch through a model, forward alone or a whole training step. */
export interface Workload {
  /** Multiply-adds of one step; a training step counts as three forward passes. */
  macs: number;
  step(): Promise<void>;
  /** Where the time went, when it was opened with `profile`; of several streams the sum. */
  profile(): Promise<OpTime[]>;
  /** Ends its runtime. */
  close(): Promise<void>;
}

const classes = 1000;

/** Opens a model with random weights in a runtime of its own.  ImageNet's 1000 classes, random pictures. */
export async function openWorkload(
  model: string,
  mode: "inference" | "training",
  options: WorkloadOptions,
): Promise<Workload> {
  const { batch, fuse = true, profile = false, device, threads } = options;
  const entry = await findModel(model);
  const imageSize = options.imageSize ?? entry.preprocessing.imageSize;
  const drawn = drawClassifier(entry, { imageSize, classes, batch });
  const node = { device, threads };
  const learner = { batch, device: device ?? "cpu", threads: threads ?? availableParallelism() };
  const parts = mode === "training" ? partsThatPay(learner, drawn.weights) : 1;
  const runtime = await openNode(
    mode === "training" ? { ...node, streams: parts } : withStreams(batch, bytesOfWeights(drawn.weights), node),
  );
  const shape = [batch, 3, imageSize, imageSize];
  const work = await closingOnError([runtime], () =>
    mode === "inference"
      ? openInference(runtime, drawn, shape, { fuse, profile })
      : openTraining(runtime, drawn, shape, { parts, profile }),
  );
  return { ...work, close: () => runtime.close() };
}

type Opened = Omit<Workload, "close">;

/** As `evaluate` shows pictures to a model. */
async function openInference(
  runtime: Runtime,
  { model, graph }: Drawn,
  shape: number[],
  { fuse: fused, profile }: { fuse: boolean; profile: boolean },
): Promise<Opened> {
  const [, ...picture] = shape;
  const bound = bindWeights(inferenceGraph(model, shape[2]), model, initialWeights(model, 0));
  const program = await runtime.compile(fused ? fuse(bound, { target: targetOf(runtime.device) }) : bound, { profile });
  const pieces = await Promise.all(pieceSizes(runtime, shape).map((n) => runtime.upload(pictures([n, ...picture]))));
  return {
    macs: cost(graph).products,
    step: async () => void (await Promise.all(pieces.map((image) => program.run({ image })))),
    profile: () => program.profile(),
  };
}

/** As `train` does. */
async function openTraining(
  runtime: Runtime,
  { model, graph: forward }: Drawn,
  shape: number[],
  { parts, profile }: { parts: number; profile: boolean },
): Promise<Opened> {
  const batch = shape[0];
  const task = new Classification(model);
  const rule = adamw({ weightDecay: 0.05 });
  const types: BatchTypes = { image: { dtype: "float32", shape }, target: { dtype: "int32", shape: [batch] } };
  const options = { batch: types, pack: true };
  const drawn = parts > 1 ? splitStep(task, rule, { ...options, parts }) : trainStep(task, rule, options);
  const compiling = compileStep(runtime, drawn, { profile });
  compiling.catch(() => {}); // told below
  const initial = initialState(drawn, initialWeights(model, 0)); // while the engine's thread compiles
  const state = await DeviceState.upload(runtime, initial, { packs: drawn.packs, transfer: true });
  const program = new StepProgram(drawn, await compiling, state);
  const labels = Int32Array.from({ length: batch }, (_, i) => (i * 97) % classes);
  const given: HostTensor[] = [pictures(shape), { dtype: "int32", shape: [batch], data: labels }];
  const [image, target] = parts > 1 ? given : await Promise.all(given.map((tensor) => runtime.upload(tensor)));
  return {
    macs: 3 * cost(forward).products,
    step: async () => void (await program.run({ image, target }, { lr: 1e-4 })),
    profile: () => program.profile(),
  };
}

const pictures = (shape: readonly number[]): HostTensor => ({
  dtype: "float32",
  shape,
  data: normal(1)(shape, new Random(0, "pictures")),
});

const side = 2048;

/** The engine's own best: a square MatMul, its result reduced to one number so that no output is moved.  Runs once; -> multiply-adds per second */
export async function openMatmul(runtime: Runtime): Promise<() => Promise<number>> {
  const [a, b] = [input([side, side]), input([side, side])];
  const program: Program = await runtime.compile(
    new Graph(
      [
        ["a", a],
        ["b", b],
      ],
      [["sum", matmul(a, b).sum()]],
    ),
  );
  const feeds: Record<string, Value> = {};
  for (const name of ["a", "b"]) {
    const random = new Random(0, name);
    feeds[name] = await runtime.upload({
      dtype: "float32",
      shape: [side, side],
      data: Float32Array.from({ length: side * side }, () => random.between(-1, 1)),
    });
  }
  return async () => {
    const start = performance.now();
    await program.run(feeds);
    return side ** 3 / ((performance.now() - start) / 1000);
  };
}

/** Peak resident memory of this process; Linux's own figure where there is one, since `maxRSS` starts from the parent's. */
export function peakBytes(): number {
  if (process.platform !== "linux") return process.resourceUsage().maxRSS * 1024;
  return Number(/VmHWM:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))![1]) * 1024;
}
