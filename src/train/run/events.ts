import type { FitTable } from "../../weights/fit.ts";
import type { DownloadEvent } from "../../weights/hub/index.ts";

/**
 * What long work tells while it goes on: one stream that a progress bar, `metrics.jsonl` and a page read alike.  Epochs and steps
 * count from 0 where something is under way (`epoch`) and say how many are done otherwise (`step`, `done`).
 */
export type TrainEvent =
  | DownloadEvent
  | { type: "load"; what: "data"; train: number; val: number; classes: number }
  | { type: "load"; what: "model"; model: string; parameters: number; trained: number; imageSize: number }
  /** What became of the weights that a run starts from; `share` of the model's parameters are from them, 0…1. */
  | ({ type: "load"; what: "weights"; from: string; share: number } & FitTable)
  /** A run is to go on, with what was changed; `anew` where it has no checkpoint yet. */
  | { type: "resume"; folder: string; anew: boolean; changes: readonly Change[] }
  /** A run goes on where its last checkpoint was made. */
  | { type: "load"; what: "checkpoint"; from: string; epoch: number; step: number }
  | { type: "compile"; program: "train" | "evaluate"; nodes: number; seconds: number }
  /** Everything is ready, and how much there is to do; `step` is where a resumed run begins. */
  | { type: "begin"; epochs: number; stepsPerEpoch: number; steps: number; step: number; batch: number; folder: string }
  | {
      type: "step";
      epoch: number;
      /** Steps done in the epoch, of `stepsPerEpoch`, and in the run, of `steps`. */
      stepInEpoch: number;
      stepsPerEpoch: number;
      step: number;
      steps: number;
      loss: number;
      /** The share of the batch that was right, before the update. */
      accuracy: number;
      /** Norm of all gradients before clipping, where they are clipped. */
      gradNorm?: number;
      lr: number;
      seconds: number;
    }
  /** Progress of an evaluation, in pictures; `result` comes with the last one. */
  | { type: "evaluate"; epoch?: number; done: number; total: number; result?: EvaluationSummary }
  /** The end of an epoch: means over its steps, and what evaluation found. */
  | {
      type: "epoch";
      /** Epochs done, of `epochs`. */
      epoch: number;
      epochs: number;
      step: number;
      loss: number;
      accuracy: number;
      top1: number;
      top5: number;
      valLoss: number;
      best: boolean;
      imagesPerSecond: number;
      seconds: number;
    }
  | { type: "save"; what: "last" | "best" | "onnx" | "report"; file: string; epoch: number; step: number }
  /** Something that was asked for and does nothing, or says less than it seems to. */
  | { type: "warning"; message: string }
  /** A picture that cannot be read and is left out. */
  | { type: "skip"; picture: string; reason: string }
  | ({ type: "end" } & TrainResult);

/** A value of a run's config that another takes the place of. */
export interface Change {
  key: string;
  was: unknown;
  is: unknown;
}

export interface EvaluationSummary {
  total: number;
  correct: number;
  /** Shares, 0…1. */
  top1: number;
  top5: number;
  loss: number;
}

/** How a run ended.  `stopped`: the validation figure had not risen for `patience` epochs. */
export type Outcome = "finished" | "stopped" | "interrupted";

export interface TrainResult {
  outcome: Outcome;
  /** Epochs done. */
  epochs: number;
  /** Steps done. */
  step: number;
  /** The best share of validation pictures that were right, 0…1; undefined where no epoch was finished. */
  top1?: number;
  seconds: number;
  folder: string;
}

export type OnEvent = (event: TrainEvent) => void;
