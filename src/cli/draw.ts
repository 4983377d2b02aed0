import type { ModelEntry } from "../backbones/index.ts";
import { Graph } from "../graph/graph.ts";
import { input, type Tensor } from "../graph/tensor.ts";
import { type Weight, weightsOf } from "../nn/module.ts";
import { trace } from "../nn/trace.ts";
import { Classifier } from "../tasks/classify.ts";

/** A model with a classifier, drawn for images of a known number and size. */
export interface Drawn {
  model: Classifier;
  weights: readonly Weight[];
  /** (image, weights) -> logits */
  graph: Graph;
}

export function drawClassifier(
  entry: ModelEntry,
  { imageSize, classes, batch = 1 }: { imageSize: number; classes: number; batch?: number },
): Drawn {
  const model = new Classifier(entry.create({ imageSize }), classes);
  const image = input([batch, 3, imageSize, imageSize]);
  const { result } = trace(model, {}, () => model.forward(image));
  const weights = weightsOf(model);
  const named = weights.map((w): [string, Tensor] => [w.path, w.tensor]);
  return { model, weights, graph: new Graph([["image", image], ...named], [["logits", result]]) };
}
