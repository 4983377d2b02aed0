import { closingOnError } from "../base/close.ts";
import { OrielError } from "../base/errors.ts";
import { alignClasses, BrokenPictures, type Dataset, Loader, openDataset } from "../data/index.ts";
import type { OnEvent } from "./events.ts";
import { evaluationBatch } from "./loaders.ts";
import { evaluateTransform } from "./model.ts";
import { openPredictor, type PredictorOptions } from "./predictor.ts";
import { runEvaluation } from "./run-evaluation.ts";
import type { Evaluation } from "./tally.ts";

export interface EvaluateOptions extends PredictorOptions {
  batch?: number;
  workers?: number;
  /** Mistakes to tell of. */
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
  const opened = typeof data === "string" ? await openDataset(data, { split: "val" }) : data;
  const pictures = Math.min(opened.length, batch ?? Number.POSITIVE_INFINITY);
  const owned = typeof data === "string" ? [opened] : [];
  const predictor = await closingOnError(owned, () =>
    openPredictor(source, { classes: opened.classes, pictures, ...rest }),
  );
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
