import { dirname, join } from "node:path";
import { closingOnError } from "../base/close.ts";
import { OrielError } from "../base/errors.ts";
import { checkNumbers } from "../base/options.ts";
import { alignClasses, BrokenPictures, type Dataset, Loader, openDataset, splitDataset } from "../data/index.ts";
import { isCount } from "../graph/shape.ts";
import { openCheckpoint } from "./checkpoint.ts";
import type { OnEvent } from "./events.ts";
import { isOnnx } from "./imported.ts";
import { evaluationBatch } from "./loaders.ts";
import { evaluateTransform } from "./model.ts";
import { picturesOf } from "./pictures.ts";
import { openPredictor, type PredictorOptions } from "./predictor.ts";
import { runEvaluation } from "./run-evaluation.ts";
import type { Evaluation } from "./tally.ts";

export interface EvaluateOptions extends PredictorOptions {
  /** Pictures at once; by their size unless given. */
  batch?: number;
  /** Threads that read pictures; half the cores, at least two, unless given. */
  workers?: number;
  /** Mistakes to tell of, the worst first; 24 unless given. */
  worst?: number;
  onEvent?: OnEvent;
  signal?: AbortSignal;
}

/**
 * Judges a checkpoint, an exported .onnx, or plain weights of a named model by labelled pictures.  Labels are matched to what was
 * trained on by name; plain weights take the data's classes, in the order of their names.
 */
export async function evaluate(
  source: string,
  data: string | Dataset,
  options: EvaluateOptions = {},
): Promise<Evaluation> {
  const { batch, workers, worst, onEvent = () => {}, signal, ...rest } = options;
  if (batch !== undefined) checkNumbers({ batch }, isCount, "a whole number of at least 1");
  if (worst !== undefined) checkNumbers({ worst }, (n) => n >= 0, "a number of mistakes, or 0 for none");
  const opened = typeof data === "string" ? await openDataset(data, { split: "val" }) : data;
  const owned = typeof data === "string" ? [opened] : [];
  const predictor = await closingOnError(owned, async () => {
    const learnt = await learntFrom(source, opened);
    if (learnt > 0)
      onEvent({
        type: "warning",
        message: `the model learnt from ${learnt} of these ${opened.length} pictures: on others it will be right less often`,
      });
    const pictures = Math.min(opened.length, batch ?? Number.POSITIVE_INFINITY);
    return openPredictor(source, { classes: opened.classes, pictures, ...rest });
  });
  try {
    const { preprocessing } = predictor;
    await using loader = new Loader(alignClasses(predictor, opened), {
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

/** How many of some pictures a model learnt from, where they are its run's and some of them were set aside. */
async function learntFrom(source: string, pictures: Dataset): Promise<number> {
  // An exported model does not say it; its run's checkpoint, beside it, does.
  const checkpoint = isOnnx(source) ? join(dirname(source), "best.safetensors") : source;
  const metadata = await openCheckpoint(checkpoint).then(
    (opened) => opened.metadata,
    () => undefined,
  );
  if (!metadata?.pictures || typeof metadata.config.val === "string") return 0;
  const { train, val, hash } = metadata.pictures;
  if (pictures.length !== train + val) return 0;
  const { val: fraction, seed } = metadata.config;
  const splits = splitDataset(pictures, { fraction, seed });
  return picturesOf(splits.train, splits.val).hash === hash ? train : 0;
}
