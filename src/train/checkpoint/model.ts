import { sides } from "../../backbones/backbone.ts";
import { findModel, type Preprocessing } from "../../backbones/index.ts";
import type { EvaluateTransform } from "../../data/transform.ts";
import { Graph } from "../../graph/graph.ts";
import { OpenDim } from "../../graph/shape.ts";
import { input, type Tensor } from "../../graph/tensor.ts";
import { bindWeights } from "../../nn/bind.ts";
import { type Module, weightsOf } from "../../nn/module.ts";
import { trace } from "../../nn/trace.ts";
import { fuse, type Target } from "../../passes/fuse.ts";
import { Classifier } from "../../tasks/classify.ts";

/** All it takes to draw a trained classifier again and to show it pictures. */
export interface ModelDescription {
  model: string;
  /** Labels of the outputs, in order. */
  classes: readonly string[];
  preprocessing: Preprocessing;
  /** What was changed about the model: `{ directions: "vertical" }`. */
  modelOptions?: Readonly<Record<string, unknown>>;
}

/** Draws the classifier that a description names. */
export async function createModel(
  { model, classes, preprocessing, modelOptions }: ModelDescription,
  dropPath = 0,
): Promise<Classifier> {
  const entry = await findModel(model);
  const { imageSize } = preprocessing;
  return new Classifier(entry.create({ ...modelOptions, imageSize, dropPath }), classes.length);
}

/**
 * (image, weights) -> logits, as the model is when it does not train; a classifier, or any module that makes one tensor of images.
 * image [N, channels, H, W], any N -> [N, classes].  `imageSize`: one number where H = W
 */
export function inferenceGraph(
  model: Module & { forward(image: Tensor): Tensor },
  imageSize: number | readonly [height: number, width: number],
  { channels = 3 }: { channels?: number } = {},
): Graph {
  const image = input([new OpenDim("N"), channels, ...sides(imageSize)]);
  const { result } = trace(model, {}, () => model.forward(image));
  const weights = weightsOf(model).map((w): [string, Tensor] => [w.path, w.tensor]);
  return new Graph([["image", image], ...weights], [["logits", result]]);
}

/** image -> logits, with the weights in it and fused: what is used once a model has learnt. */
export const fusedGraph = (
  model: Classifier,
  imageSize: number,
  values: ReadonlyMap<string, Float32Array<ArrayBuffer>>,
  target: Target,
): Graph => fuse(bindWeights(inferenceGraph(model, imageSize), model, values), { target });

/** The one view of a picture that a model is judged by. */
export function evaluateTransform({ imageSize, ...fit }: Preprocessing): EvaluateTransform {
  return { kind: "evaluate", size: imageSize, ...fit };
}
