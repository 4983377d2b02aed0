import { join } from "node:path";
import { headNames } from "../../backbones/backbone.ts";
import { findModel, type Preprocessing } from "../../backbones/index.ts";
import { closingOnError } from "../../base/close.ts";
import { UsageError } from "../../base/errors.ts";
import {
  alignClasses,
  classCounts,
  classWeights,
  type Dataset,
  openDataset,
  openSplits,
  type Splits,
  splitDataset,
} from "../../data/index.ts";
import { staticSize } from "../../graph/shape.ts";
import { constant } from "../../graph/tensor.ts";
import { parametersOf, weightsOf } from "../../nn/module.ts";
import { Classification, type Classifier } from "../../tasks/classify.ts";
import {
  type Imported,
  importedClassifier,
  importedName,
  isOnnx,
  openImported,
  stemOf,
} from "../checkpoint/imported.ts";
import { originOf } from "../checkpoint/load-weights.ts";
import { createModel, type ModelDescription } from "../checkpoint/model.ts";
import { frozenBy } from "../step/freeze.ts";
import { layerRates } from "../step/layer-depth.ts";
import { type AnyStep, graphsOf, splitStep } from "../step/split-step.ts";
import { type StepOptions, trainStep } from "../step/step.ts";
import type { TrainConfig } from "./config.ts";
import {
  bytesOfText,
  idleValues,
  mixOf,
  optimizerOf,
  type ResolvedConfig,
  resolveConfig,
  streamsOf,
} from "./defaults.ts";
import type { OnEvent } from "./events.ts";
import { type Loaders, openLoaders } from "./loaders.ts";
import { type Pictures, picturesOf } from "./pictures.ts";
import { freeFolder } from "./run-folder.ts";

/** A run before anything of it runs: what it learns from, and its step as a graph. */
export interface Prepared {
  config: ResolvedConfig;
  train: Dataset;
  val: Dataset;
  pictures: Pictures;
  description: ModelDescription;
  model: Classifier;
  /** Where the model comes from a file. */
  imported?: Imported;
  task: Classification;
  step: AnyStep;
  loaders: Loaders;
  /** Ends the loaders, and closes the data that was opened for them. */
  close(): Promise<void>;
}

/** What is not to be said among the model's options, and what to do instead. */
const misplaced: Readonly<Record<string, string>> = {
  dropPath: "give it by --drop-path, or as dropPath of the config",
  imageSize: "give it by --image-size, or as imageSize of the config",
  inChannels: "leave it out: pictures are read in three channels",
};

function checkModelOptions({ modelOptions = {} }: TrainConfig): void {
  for (const [key, help] of Object.entries(misplaced))
    if (key in modelOptions)
      throw new UsageError({ message: `${key} is none of the model's options in training`, help });
}

interface PrepareOptions {
  /** Those to learn from and to validate with, which are opened otherwise. */
  pictures?: Splits;
  /** Draws the step as one graph whose inputs are the tensors of the state, for whoever runs it elsewhere. */
  plain?: boolean;
}

/** Opens the data; draws the model and its training step. */
export async function prepareRun(
  asked: TrainConfig,
  emit: OnEvent,
  { pictures, plain = false }: PrepareOptions = {},
): Promise<Prepared> {
  checkModelOptions(asked);
  const source = await sourceOf(asked, emit);
  const splits = pictures ? sameClasses(pictures) : await openData(asked);
  const opened = pictures ? [] : [splits.train, splits.val];
  const prepared = await closingOnError(opened, () => draw(asked, source, splits, { emit, plain }));
  const { train, val } = prepared.loaders;
  const close = async (): Promise<void> => {
    await Promise.all([train.close(), val.close()]);
    await Promise.all(opened.map((dataset) => dataset.close?.()));
  };
  return { ...prepared, close };
}

/** The model that is asked for: of a family, or imported from a file. */
interface Source {
  entry: { name: string; stem: string; preprocessing: Preprocessing };
  imported?: Imported;
  /** Licence and source of what it begins with. */
  origin: Awaited<ReturnType<typeof originOf>>;
}

async function sourceOf(asked: TrainConfig, emit: OnEvent): Promise<Source> {
  if (isOnnx(asked.model)) {
    const imported = await openImported(asked.model, asked.imageSize, asked.out);
    if (asked.dropPath > 0) throw new UsageError("an imported model has no blocks that --drop-path could drop");
    const { preprocessing, origin } = imported;
    const entry = { name: importedName, stem: stemOf(asked.model), preprocessing };
    return { entry, imported, origin: asked.resume ? {} : origin };
  }
  const found = await findModel(asked.model);
  const origin = asked.weights && !asked.resume ? await originOf(asked.weights, emit) : {};
  return { entry: { ...found, stem: found.name }, origin };
}

/** Model, step and loaders on data that is open. */
async function draw(
  asked: TrainConfig,
  { entry, imported, origin }: Source,
  { train, val }: Splits,
  { emit, plain }: { emit: OnEvent; plain: boolean },
): Promise<Omit<Prepared, "close">> {
  if (val.length === 0)
    throw new UsageError({
      message: `no class has a second picture, so that of ${train.length} none is left to validate with`,
      help: "give more pictures of each class, or others by --val",
    });
  emit({ type: "load", what: "data", train: train.length, val: val.length, classes: train.classes.length });
  const counts = classCounts(val);
  const unjudged = train.classes.filter((_, label) => counts[label] === 0);
  if (unjudged.length > 0) {
    const [some, more] = [unjudged.slice(0, 8).join(", "), unjudged.length > 8 ? ", …" : ""];
    const what = unjudged.length === 1 ? "a class" : `${unjudged.length} classes`;
    emit({
      type: "warning",
      message: `nothing validates ${what}, of which there are pictures to learn from alone: ${some}${more}`,
    });
  }
  const out = join(asked.out ?? (await freeFolder(entry.stem)), "."); // without a slash at the end
  const resolved = resolveConfig({ ...origin, ...asked }, entry.preprocessing, train.length, out);
  const config = { ...resolved, model: imported ? asked.model : entry.name };
  for (const message of idleValues(config)) emit({ type: "warning", message });
  const preprocessing: Preprocessing = { ...entry.preprocessing, imageSize: config.imageSize };
  const { modelOptions } = config;
  const description = { model: entry.name, classes: train.classes, preprocessing, modelOptions };
  const model = imported
    ? importedClassifier(imported, train.classes)
    : await createModel(description, config.dropPath);
  const mixed = mixOf(config) !== undefined;
  const weights = config.classWeights ? weightsOfClasses(train) : undefined;
  const task = new Classification(model, {
    loss: config.loss,
    smoothing: mixed ? 0 : config.smoothing,
    classWeights: weights,
  });
  const step = drawStep(config, model, task, train.classes.length, { mixed, plain });
  if (config.dropPath > 0 && !drawsMasks(step))
    emit({ type: "warning", message: `drop-path does nothing: ${entry.name} drops no blocks` });
  const sizes = parametersOf(task).map((w) => staticSize(w.tensor.shape));
  const frozen = step.frozen.reduce((sum, w) => sum + staticSize(w.tensor.shape), 0);
  const parameters = sizes.reduce((a, b) => a + b, 0);
  emit({
    type: "load",
    what: "model",
    model: entry.stem,
    parameters,
    trained: parameters - frozen,
    imageSize: config.imageSize,
  });
  const pictures = await picturesOf(train, val);
  const loaders = openLoaders({ config, train, val, description }, emit);
  return { config, train, val, pictures, description, model, imported, task, step, loaders };
}

/** Whether anything of a step is random: whether what keys its masks is read. */
function drawsMasks(step: AnyStep): boolean {
  const [graph] = graphsOf(step);
  return graph.nodes.some((node) => node === graph.inputs.get("seed")?.node);
}

function drawStep(
  config: ResolvedConfig,
  model: Classifier,
  task: Classification,
  classes: number,
  { mixed, plain }: { mixed: boolean; plain: boolean },
): AnyStep {
  const { batch, imageSize, accumulate, ema, freeze, layerDecay, memoryBudget } = config;
  if (batch % accumulate !== 0)
    throw new UsageError({
      message: `a batch of ${batch} does not divide into ${accumulate} parts`,
      help: "choose --batch as a multiple of --accumulate",
    });
  const paths = parametersOf(model).map((w) => w.path);
  const optimizer = optimizerOf(config, { lrScale: layerRates(layerDecay, paths) });
  const options = {
    batch: {
      image: { dtype: "float32", shape: [batch, 3, imageSize, imageSize] },
      target: mixed ? { dtype: "float32", shape: [batch, classes] } : { dtype: "int32", shape: [batch] },
    },
    frozen: freeze.length > 0 ? frozenBy(freeze, paths, headNames(model.backbone)) : undefined,
    ema,
    pack: !plain,
  } satisfies StepOptions;
  const parts = plain ? 1 : streamsOf(config, weightsOf(task));
  if (parts > 1) return splitStep(task, optimizer, { ...options, parts });
  const budget = memoryBudget === undefined ? undefined : bytesOfText(memoryBudget);
  return trainStep(task, optimizer, { ...options, accumulate, memoryBudget: budget });
}

const weightsOfClasses = (train: Dataset) => {
  const values = classWeights(train);
  return constant(Float32Array.from(values), [values.length], "float32");
};

/** The training set, and the validation set with its labels numbered alike. */
const sameClasses = ({ train, val }: Splits): Splits => ({ train, val: alignClasses(train, val) });

async function openData({ data, val, seed }: TrainConfig): Promise<Splits> {
  if (val === undefined) return openSplits(data, { seed });
  const train = await openDataset(data, { split: "train" });
  return closingOnError([train], async () =>
    typeof val === "number"
      ? splitDataset(train, { fraction: val, seed })
      : sameClasses({ train, val: await openDataset(val, { split: "val" }) }),
  );
}
