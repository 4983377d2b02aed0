import { type Batch, BrokenPictures, Loader } from "../../data/index.ts";
import type { HostTensor } from "../../runtime/runtime.ts";
import { evaluateTransform } from "../checkpoint/model.ts";
import { mixOf, trainTransform } from "./defaults.ts";
import type { OnEvent } from "./events.ts";
import type { Prepared } from "./prepare.ts";

/** What a run reads its pictures by. */
export interface Loaders {
  train: Loader;
  val: Loader;
}

/** The two loaders of a run, checked but not started.  Broken pictures of both are counted together. */
export function openLoaders(
  { config, train, val, description }: Pick<Prepared, "config" | "train" | "val" | "description">,
  emit: OnEvent,
): Loaders {
  const broken = new BrokenPictures({ report: ({ name, reason }) => emit({ type: "skip", picture: name, reason }) });
  const { batch, seed, repeats, balanced, workers } = config;
  return {
    train: new Loader(train, {
      batchSize: batch,
      transform: trainTransform(config, description.preprocessing),
      mix: mixOf(config),
      seed,
      repeats,
      balanced,
      workers,
      broken,
    }),
    val: new Loader(val, {
      batchSize: evaluationBatch(description.preprocessing.imageSize),
      transform: evaluateTransform(description.preprocessing),
      workers,
      broken,
    }),
  };
}

/** Pictures judged at once: about two million pixels. */
export const evaluationBatch = (imageSize: number): number =>
  Math.max(1, Math.min(128, Math.round(2 ** 21 / imageSize ** 2)));

/** A batch under the names of the step's inputs. */
export function hostBatch({ image, label, target, shape }: Batch): { image: HostTensor; target: HostTensor } {
  return {
    image: { dtype: "float32", shape, data: image },
    target: target
      ? { dtype: "float32", shape: [shape[0], target.length / shape[0]], data: target }
      : { dtype: "int32", shape: [shape[0]], data: label },
  };
}
