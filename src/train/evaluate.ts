import { dirname, join } from "node:path";
import { closingOnError } from "../base/close.ts";
import { OrielError } from "../base/errors.ts";
import { checkNumbers } from "../base/options.ts";
import { some } from "../base/text.ts";
import {
  alignClasses,
  BrokenPictures,
  type Dataset,
  Loader,
  openDataset,
  type Splits,
  splitDataset,
} from "../data/index.ts";
import { isCount } from "../graph/shape.ts";
import { openIfCheckpoint } from "./checkpoint.ts";
import type { OnEvent } from "./events.ts";
import { isOnnx } from "./imported.ts";
import { evaluationBatch } from "./loaders.ts";
import { evaluateTransform } from "./model.ts";
import { picturesOf } from "./pictures.ts";
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
  const opened = typeof data === "string" ? await openDataset(data, { split: "val" }) : data;
  const owned = typeof data === "string" ? [opened] : [];
  const { predictor, judges } = await closingOnError(owned, async () => {
    const judges = await judgesOf(source, opened, { all, onEvent });
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
  { all, onEvent }: { all: boolean; onEvent: OnEvent },
): Promise<Dataset> {
  const splits = await splitsOfRun(source, pictures);
  if (!splits) return pictures;
  const learnt = `the model learnt from ${splits.train.length} of these ${pictures.length} pictures`;
  const message = all
    ? `${learnt}: on others it will be right less often`
    : `${learnt}: it is judged by the ${some(splits.val.length, "picture")} that its run set aside; --all takes all`;
  onEvent({ type: "warning", message });
  return all ? pictures : splits.val;
}

/** What a run learnt from and what it set aside, where these are its pictures. */
async function splitsOfRun(source: string, pictures: Dataset): Promise<Splits | undefined> {
  // An exported model does not say it; its run's checkpoint, beside it, does.
  const checkpoint = isOnnx(source) ? join(dirname(source), "best.safetensors") : source;
  const metadata = (await openIfCheckpoint(checkpoint))?.metadata;
  if (!metadata?.pictures || typeof metadata.config.val === "string") return undefined;
  const { train, val, hash } = metadata.pictures;
  if (pictures.length !== train + val) return undefined;
  const { val: fraction, seed } = metadata.config;
  const splits = splitDataset(pictures, { fraction, seed });
  return picturesOf(splits.train, splits.val).hash === hash ? splits : undefined;
}
