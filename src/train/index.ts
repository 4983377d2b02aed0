export {
  type Checkpoint,
  type CheckpointMetadata,
  loadCheckpoint,
  openCheckpoint,
  type Progress,
} from "./checkpoint/checkpoint.ts";
export { type Converted, type ConvertFormat, type ConvertOptions, convert } from "./checkpoint/convert.ts";
export { openModel } from "./checkpoint/imported.ts";
export { type LoadedWeights, loadWeights } from "./checkpoint/load-weights.ts";
export { createModel, inferenceGraph, type ModelDescription } from "./checkpoint/model.ts";
export {
  type ExportInput,
  type ExportOutput,
  encodeModelMetadata,
  type ModelMetadata,
  readModelMetadata,
} from "./checkpoint/model-metadata.ts";
export { type EvaluateOptions, evaluate } from "./evaluate/evaluate.ts";
export { type Prediction, type PredictOptions, predict } from "./evaluate/predict.ts";
export { openPredictor, type PredictorOptions } from "./evaluate/predictor.ts";
export type { ClassFigures, Evaluation, Mistake } from "./evaluate/tally.ts";
export {
  type Exported,
  type ExportOptions,
  type ExportTarget,
  exportChoices,
  exportModel,
} from "./export/export.ts";
export { type ExportStepOptions, exportTrainStep, type StepDescription } from "./export/export-step.ts";
export { type Likely, type Logits, openExported, type Predictor } from "./export/exported.ts";
export { type ReportOptions, writeReport } from "./report/index.ts";
export {
  type ConfigKey,
  parseConfig,
  type TrainConfig,
  type TrainConfigInput,
  trainSchema,
} from "./run/config.ts";
export type { ResolvedConfig } from "./run/defaults.ts";
export type { Change, EvaluationSummary, OnEvent, Outcome, TrainEvent, TrainResult } from "./run/events.ts";
export { type ResumeInput, resumedConfig } from "./run/resume.ts";
export { readRunConfig } from "./run/run-folder.ts";
export { type TrainOptions, train } from "./run/train.ts";
export { DeviceState } from "./step/device-state.ts";
export { frozenBy } from "./step/freeze.ts";
export { layerDepths, layerRates } from "./step/layer-depth.ts";
export { type AnyStep, type SplitOptions, type SplitStep, splitStep } from "./step/split-step.ts";
export { initialState, nextName, type StateEntry, type StepState, type Tensors } from "./step/state.ts";
export { type StepOptions, type TrainStep, trainStep } from "./step/step.ts";
export { type Metrics, type StepControls, StepProgram } from "./step/step-program.ts";
export type { BatchTypes, Task } from "./step/task.ts";
