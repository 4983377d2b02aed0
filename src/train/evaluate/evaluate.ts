import { basename, dirname, join, resolve } from "node:path";
import { closingOnError } from "../../base/close.ts";
import { OrielError } from "../../base/errors.ts";
import { checkNumbers } from "../../base/options.ts";
import { some } from "../../base/text.ts";
import {
  alignClasses,
  BrokenPictures,
  type Dataset,
  Loader,
  openDataset,
  type Splits,
  splitDataset,
  subset,
} from "../../data/index.ts";
import { isCount } from "../../graph/shape.ts";
import { type CheckpointMetadata, openIfCheckpoint } from "../checkpoint/checkpoint.ts";
import { isOnnx } from "../checkpoint/imported.ts";
import { evaluateTransform } from "../checkpoint/model.ts";
import type { OnEvent } from "../run/events.ts";
import { evaluationBatch } from "../run/loaders.ts";
import { picturesOf } from "../run/pictures.ts";
import { openPredictor, type PredictorOptions } from "./predictor.ts";
import { runEvaluation } from "./run-evaluation.ts";
import type { Evaluation } from "./tally.ts";

export interface EvaluateOptions extends Omit<PredictorOptions, "pictures"> {
  /** Pictures at once; by their size unless given. */
  batch?: number;
  /** Threads that read pictures; half the cores, at least two, unless given. */
  workers?: number;
  /** Mistakes to tell of, the worst first; 24 unless given. */
  worst?: number;
  /** Judges by pictures that the model learnt from, too, where it is known which of them it did. */
  all?: boolean;
  onEvent?: OnEvent;
  signal?: AbortSignal;
}

/**
 * Judges a checkpoint, an exported .onnx, or plain weights of a named model by labelled pictures.  Labels are matched to what was
 * trained on by name; plain weights take the data's classes, in the order of their names.  Of the pictures of a checkpoint's own run,
 * those count that the run set aside.
 */
export async function evaluate(
  source: string,
  data: string | Dataset,
  options: EvaluateOptions = {},
): Promise<Evaluation> {
  const { batch, workers, worst, all = false, onEvent = () => {}, signal, ...rest } = options;
  if (batch !== undefined) checkNumbers({ batch }, isCount, "a whole number of at least 1");
  if (worst !== undefined) checkNumbers({ worst }, (n) => n >= 0, "a number of mistakes, or 0 for none");
  const opened = typeof data === "string" ? await openDataset(data, { split: ["val", "train"] }) : data;
  const owned = typeof data === "string" ? [opened] : [];
  const { predictor, judges } = await closingOnError(owned, async () => {
    const judges = await judgesOf(source, opened, { all, onEvent, from: typeof data === "string" ? data : undefined });
    const pictures = Math.min(judges.length, batch ?? Number.POSITIVE_INFINITY);
    const { classes = opened.classes, ...others } = rest;
    return { judges, predictor: await openPredictor(source, { ...others, classes, pictures }) };
  });
  try {
    const { preprocessing } = predictor;
    await using loader = new Loader(alignClasses(predictor, judges), {
      batchSize: batch ?? evaluationBatch(preprocessing.imageSize),
      transform: evaluateTransform(preprocessing),
      workers,
      broken: new BrokenPictures({ report: ({ name, reason }) => onEvent({ type: "skip", picture: name, reason }) }),
    });
    const onProgress = (done: number, total: number): void => onEvent({ type: "evaluate", done, total });
    const found = await runEvaluation(predictor.logits, loader, { worst, signal, onProgress });
    if (found) return found;
    throw new OrielError("interrupted", "the evaluation was interrupted");
  } finally {
    await Promise.all([predictor, ...owned].map((owner) => owner.close?.()));
  }
}

/** The pictures that judge a model: where it learnt from most of these, those that its run set aside. */
async function judgesOf(
  source: string,
  pictures: Dataset,
  { all, onEvent, from }: { all: boolean; onEvent: OnEvent; from?: string },
): Promise<Dataset> {
  const run = await runOf(source);
  const splits = run && (await splitsOf(run, pictures));
  if (!splits) {
    const own = run?.pictures && run.config.data;
    if (own !== undefined && from !== undefined && resolve(from) === resolve(own))
      onEvent({
        type: "warning",
        message: `the pictures of ${from} have changed since the model learnt from them: all count, those that it learnt from too`,
      });
    return pictures;
  }
  const { train, val } = splits;
  const judges = all || val.length === 0 ? pictures : val;
  const learnt = `the model learnt from ${train.length} of these ${some(pictures.length, "picture")}`;
  const message =
    judges === pictures
      ? `${learnt}: on others it will be right less often`
      : `${learnt}: it is judged by the ${some(val.length, "picture")} that its run set aside; --all takes all`;
  onEvent({ type: "warning", message });
  return judges;
}

/** What is known of the run that a model comes from. */
async function runOf(source: string): Promise<CheckpointMetadata | undefined> {
  // A model that a run exported does not say it; the run's checkpoint, beside it, does.
  const checkpoint = basename(source) === "model.onnx" ? join(dirname(source), "best.safetensors") : source;
  return isOnnx(checkpoint) ? undefined : (await openIfCheckpoint(checkpoint))?.metadata;
}

/** What a run learnt from and what it set aside, where these are its pictures. */
async function splitsOf(
  { pictures: known, config }: CheckpointMetadata,
  pictures: Dataset,
): Promise<Splits | undefined> {
  if (!known) return undefined;
  const agrees = async ({ train, val }: Splits, key: "hash" | "learnt"): Promise<boolean> => {
    const found = await picturesOf(train, val);
    return found[key] === known[key] && (known.sample === undefined || found.sample === known.sample);
  };
  const { val: fraction, seed } = config;
  if (pictures.length === known.train + known.val && typeof fraction !== "string") {
    const splits = splitDataset(pictures, { fraction, seed });
    return (await agrees(splits, "hash")) ? splits : undefined;
  }
  const whole = { train: pictures, val: subset(pictures, []) };
  return pictures.length === known.train && (await agrees(whole, "learnt")) ? whole : undefined;
}
