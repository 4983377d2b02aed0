export {
  type Checkpoint,
  type CheckpointMetadata,
  loadCheckpoint,
  openCheckpoint,
  type Progress,
} from "./checkpoint.ts";
export {
  type ConfigKey,
  parseConfig,
  type TrainConfig,
  type TrainConfigInput,
  trainSchema,
} from "./config.ts";
export { type Converted, type ConvertFormat, type ConvertOptions, convert } from "./convert.ts";
export type { ResolvedConfig } from "./defaults.ts";
export { DeviceState } from "./device-state.ts";
export { type EvaluateOptions, evaluate } from "./evaluate.ts";
export type { Change, EvaluationSummary, OnEvent, Outcome, TrainEvent, TrainResult } from "./events.ts";
export {
  type Exported,
  type ExportOptions,
  type ExportTarget,
  exportChoices,
  exportModel,
} from "./export.ts";
export { type ExportStepOptions, exportTrainStep, type StepDescription } from "./export-step.ts";
export { type Likely, type Logits, openExported, type Predictor } from "./exported.ts";
export { frozenBy } from "./freeze.ts";
export { openModel } from "./imported.ts";
export { layerDepths, layerRates } from "./layer-depth.ts";
export { type LoadedWeights, loadWeights } from "./load-weights.ts";
export { createModel, inferenceGraph, type ModelDescription } from "./model.ts";
export {
  type ExportInput,
  type ExportOutput,
  encodeModelMetadata,
  type ModelMetadata,
  readModelMetadata,
} from "./model-metadata.ts";
export { type Prediction, type PredictOptions, predict } from "./predict.ts";
export { openPredictor, type PredictorOptions } from "./predictor.ts";
export { type ReportOptions, writeReport } from "./report/index.ts";
export { type ResumeInput, resumedConfig } from "./resume.ts";
export { readRunConfig } from "./run-folder.ts";
export { type AnyStep, type SplitOptions, type SplitStep, splitStep } from "./split-step.ts";
export {
  type BatchTypes,
  initialState,
  nextName,
  type StateEntry,
  type StepOptions,
  type StepState,
  type Task,
  type Tensors,
  type TrainStep,
  trainStep,
} from "./step.ts";
export { type Metrics, type StepControls, StepProgram } from "./step-program.ts";
export type { ClassFigures, Evaluation, Mistake } from "./tally.ts";
export { type TrainOptions, train } from "./train.ts";
