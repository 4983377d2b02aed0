import { type BrokenPictures, type Dataset, type Loader, noneReadable } from "../../data/index.ts";
import { checkAnswer, type Logits } from "../export/exported.ts";
import { type Evaluation, Tally } from "./tally.ts";

export interface RunEvaluationOptions {
  /** Mistakes to remember. */
  worst?: number;
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

/** Shows a model every picture of a loader that does not shuffle.  Undefined where it was interrupted. */
export async function runEvaluation(
  logits: Logits,
  loader: Loader,
  { worst, onProgress, signal }: RunEvaluationOptions = {},
): Promise<Evaluation | undefined> {
  const { dataset } = loader;
  const tally = new Tally(dataset.classes, { worst });
  const batches = loader.batches();
  let upcoming = batches.next();
  for (;;) {
    const { value: batch, done } = await upcoming;
    if (done || !batch) break;
    upcoming = batches.next();
    upcoming.catch(() => {}); // told when its turn comes
    const { label, index, shape } = batch;
    tally.add(checkAnswer(await logits(batch.image, shape)), label, (i) => dataset.name(index[i]));
    onProgress?.(tally.total, dataset.length);
    if (signal?.aborted) {
      await batches.return();
      return undefined;
    }
  }
  if (tally.total === 0) throw noneReadable("judge by");
  return tally.result(skippedOf(dataset, loader.broken, tally.total));
}

/** The loader leaves broken pictures out, so what is missing was broken. */
const skippedOf = (dataset: Dataset, broken: BrokenPictures, seen: number): number =>
  broken.pictures.length === 0 ? 0 : dataset.length - seen;
