import { Graph } from "../graph/graph.ts";
import { staticSize } from "../graph/shape.ts";
import { input } from "../graph/tensor.ts";
import { type Module, parametersOf } from "../nn/module.ts";
import { trace } from "../nn/trace.ts";
import { type Cost, cost } from "../passes/cost.ts";
import { type BackboneOptions, createHeads, logitsOf, sides } from "./backbone.ts";
import type { ModelEntry } from "./index.ts";

export interface ModelCost extends Cost {
  params: number;
  imageSize: readonly [number, number];
}

export interface ModelCostOptions {
  imageSize?: number | readonly [number, number];
  /** Classes of the classifier that is counted with the backbone; those that the model was published with, unless given. */
  classes?: number;
  /** Options of the backbone, as its family's `create` takes them. */
  modelOptions?: BackboneOptions & Readonly<Record<string, unknown>>;
}

/** The number of trainable numbers in a model. */
export const parameterCount = (model: Module): number =>
  parametersOf(model).reduce((sum, { tensor }) => sum + staticSize(tensor.shape), 0);

/** What one image costs a model with its classifier, as papers count it. */
export function modelCost(entry: ModelEntry, options: ModelCostOptions = {}): ModelCost {
  const { imageSize = entry.preprocessing.imageSize, classes = entry.classes, modelOptions = {} } = options;
  const backbone = entry.create({ ...modelOptions, imageSize });
  const heads = classes === 0 ? [] : createHeads(backbone, classes);
  const image = input([1, modelOptions.inChannels ?? 3, ...sides(imageSize)]);
  const answer = () => (heads.length === 0 ? backbone.embed(image) : logitsOf(backbone, image, heads));
  const { result } = trace(backbone, {}, answer);
  return {
    params: [backbone, ...heads].reduce((sum, part) => sum + parameterCount(part), 0),
    ...cost(new Graph([["image", image]], [["answer", result]])),
    imageSize: sides(imageSize),
  };
}
