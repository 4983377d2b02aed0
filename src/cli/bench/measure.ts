import { openNode } from "../../runtime/node.ts";
import type { OpTime } from "../../runtime/runtime.ts";
import { openMatmul, openWorkload, peakBytes, type WorkloadOptions } from "./workload.ts";

export type Mode = "inference" | "training";

export interface MeasureOptions {
  model: string;
  mode: Mode;
  batch: number;
  imageSize?: number;
  threads: number;
  device: "cpu" | "webgpu" | "cuda" | "auto";
  rounds: number;
  /** Fuses operations for inference. */
  fuse: boolean;
  profile: boolean;
}

export interface Measured {
  device: string;
  msPerImage: number;
  /** Multiply-adds per second of the best MatMul, and the model's as a share of it. */
  matmulRate: number;
  utilisation: number;
  peakBytes: number;
  /** From the start of the process to the end of its first step. */
  firstStepSeconds: number;
  /** One entry a node, microseconds of one step. */
  profile?: OpTime[];
}

/** Steps of the model in one round, before the MatMul has its turn. */
const stepsPerRound = 2;

/** Times a model in this process, whose memory and start belong to the figures: run it in one of its own. */
export async function measure({
  model,
  mode,
  batch,
  imageSize,
  threads,
  device,
  rounds,
  fuse,
  profile,
}: MeasureOptions): Promise<Measured> {
  const work = await openWorkload(model, mode, { batch, imageSize, fuse, device, threads });
  await work.step();
  const firstStepSeconds = performance.now() / 1000;
  for (let i = 0; i < stepsPerRound; i++) await work.step();
  const peak = peakBytes(); // before the MatMul's own memory

  const runtime = await openNode({ device, threads });
  const matmul = await openMatmul(runtime);
  await matmul();
  const [times, rates]: [number[], number[]] = [[], []];
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < stepsPerRound; i++) times.push(await timed(work.step));
    rates.push(await matmul());
  }
  await runtime.close();
  await work.close();
  const [seconds, matmulRate] = [median(times), Math.max(...rates)];
  return {
    device: runtime.device,
    msPerImage: (1000 * seconds) / batch,
    matmulRate,
    utilisation: work.macs / seconds / matmulRate,
    peakBytes: peak,
    firstStepSeconds,
    profile: profile ? await profileOf(model, mode, { batch, imageSize, fuse, threads, device }) : undefined,
  };
}

/** A few steps with the engine's profiler on, which slows them: in a runtime of its own, after the timing. */
async function profileOf(model: string, mode: Mode, options: WorkloadOptions): Promise<OpTime[]> {
  const steps = 3;
  const work = await openWorkload(model, mode, { ...options, profile: true });
  for (let i = 0; i <= steps; i++) await work.step();
  const times = await work.profile();
  await work.close();
  return times.map((time) => ({ ...time, microseconds: time.microseconds / steps, calls: time.calls / steps }));
}

async function timed(work: () => Promise<void>): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}
