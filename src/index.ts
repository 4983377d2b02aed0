/**
 * What most programs need, and nothing that is bound to a place: it runs in Node and in a page alike.  Each folder has an entry
 * point of its own with the rest; `oriel/node`, `oriel/data`, `oriel/train` and `oriel/weights` are for Node.
 */
export { gradients } from "./autodiff/index.ts";
export { modelCost, parameterCount } from "./backbones/cost.ts";
export {
  type Backbone,
  type BackboneOptions,
  type Family,
  findModel,
  listModels,
  type ModelEntry,
  type Preprocessing,
  registerFamily,
} from "./backbones/index.ts";
export { type ErrorFacts, nearest, OrielError, ShapeError, UsageError } from "./base/errors.ts";
export { createImage, type Image } from "./data/image.ts";
export { type EvaluateTransform, prepare, type TrainTransform, type Transform } from "./data/transform.ts";
export { constant, Graph, input, OpenDim, printGraph, scalar, type Tensor, writeOnnx } from "./graph/index.ts";
export {
  binaryCrossEntropy,
  bindWeights,
  crossEntropy,
  importOnnx,
  initialWeights,
  Module,
  OnnxModule,
  parametersOf,
  Rng,
  trace,
  weightsOf,
} from "./nn/index.ts";
export { adamw, chain, clipNorm, cosine, lamb, type Optimizer, sgd } from "./optim/index.ts";
export { cost } from "./passes/cost.ts";
export { DeviceTensor, type HostTensor, numberOf, type Program, type Runtime } from "./runtime/runtime.ts";
export { Classification, Classifier } from "./tasks/index.ts";
export { evaluateTransform, inferenceGraph, type ModelDescription } from "./train/checkpoint/model.ts";
export { encodeModelMetadata, type ModelMetadata, readModelMetadata } from "./train/checkpoint/model-metadata.ts";
export { type Likely, type Logits, openExported, type Predictor } from "./train/export/exported.ts";
export { type AnyStep, type SplitStep, splitStep } from "./train/step/split-step.ts";
export { initialState, nextName, type StepState } from "./train/step/state.ts";
export { type StepOptions, type TrainStep, trainStep } from "./train/step/step.ts";
export { type StepControls, StepProgram } from "./train/step/step-program.ts";
export type { Task } from "./train/step/task.ts";
export { type Fit, fitTable, fitWeights } from "./weights/fit.ts";
export { type OpenOptions, openWeights, type WeightsFile, type WeightsSource } from "./weights/open.ts";
export { encodeSafetensors, type NamedTensors } from "./weights/safetensors.ts";
export { type FileTensor, type StoredDtype, type StoredTensor, toFloat32, type ValueTensor } from "./weights/stored.ts";
export { type FetchOptions, fetchFile } from "./weights/url-source.ts";
