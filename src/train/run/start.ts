import { setImmediate } from "node:timers/promises";
import { UsageError } from "../../base/errors.ts";
import { initialWeight, weightsOf } from "../../nn/module.ts";
import { fitTable, loadedShare } from "../../weights/fit.ts";
import {
  type Checkpoint,
  type CheckpointMetadata,
  isWeight,
  loadCheckpoint,
  type Progress,
} from "../checkpoint/checkpoint.ts";
import { loadWeights } from "../checkpoint/load-weights.ts";
import { checkMatch } from "../checkpoint/match.ts";
import { initialState, type Tensors } from "../step/state.ts";
import type { OnEvent } from "./events.ts";
import type { Pictures } from "./pictures.ts";
import type { Prepared } from "./prepare.ts";

/** The state that a run begins with: everything its step reads and replaces, and what is frozen. */
export interface Start {
  tensors: Tensors;
  progress: Progress;
}

/** Where a run begins: at a checkpoint of its own, at weights that it was given, or at random ones. */
export async function openStart(prepared: Prepared, checkpoint: string | undefined, emit: OnEvent): Promise<Start> {
  if (checkpoint !== undefined) {
    const opened = await loadCheckpoint(checkpoint);
    const start = startFrom(opened, prepared);
    const { epoch, step } = start.progress;
    emit({ type: "load", what: "checkpoint", from: checkpoint, epoch, step });
    return start;
  }
  const { config, model, description, task } = prepared;
  const weights = new Map<string, Float32Array<ArrayBuffer>>();
  if (config.weights !== undefined) {
    const { model: name, classes } = description;
    const fit = await loadWeights(config.weights, model, { name, classes, partial: true, onEvent: emit });
    for (const [path, data] of fit.values) weights.set(path, data);
    emit({ type: "load", what: "weights", from: config.weights, share: loadedShare(fit), ...fitTable(fit) });
  }
  for (const weight of weightsOf(task)) {
    if (weights.has(weight.path)) continue;
    weights.set(weight.path, initialWeight(weight, config.seed));
    await setImmediate(); // tens of millions of random numbers take a second, in which the caller has other things to do
  }
  return startFresh(prepared, weights);
}

const beginning: Progress = { epoch: 0, stepInEpoch: 0, lossInEpoch: 0, accuracyInEpoch: 0, step: 0 };

/** Step 0: given weights, moving averages equal to them, zeros for the optimizer. */
function startFresh({ step }: Prepared, weights: ReadonlyMap<string, Float32Array<ArrayBuffer>>): Start {
  return { tensors: initialState(step, weights), progress: beginning };
}

/** Goes on where a checkpoint was made. */
function startFrom({ path, metadata, tensors }: Checkpoint, prepared: Prepared): Start {
  const { description, step } = prepared;
  const wanted = new Map<string, { shape: readonly number[] }>([
    ...step.state.map((entry) => [entry.name, entry] as const),
    ...step.frozen.map((w) => [w.path, { shape: w.tensor.shape as number[] }] as const),
  ]);
  const [then, now] = [metadata.classes, description.classes];
  if (then.join("\n") !== now.join("\n"))
    throw new UsageError({
      message: `the run learns other classes: ${someOf(then)}; the data has ${someOf(now)}`,
      at: path,
      help: "give the run's own data, or start another run from the checkpoint with --weights",
    });
  const told = { model: description.model, path, holds: metadata.model };
  // Another model is told by all tensors that differ, and by its name, below, where none does.
  if (metadata.model !== description.model) checkMatch(wanted, tensors, told);
  if (![...tensors.keys()].some(isState) && [...wanted.keys()].some(isState))
    throw new UsageError({
      message: "the file holds weights alone, without the optimizer's state",
      at: path,
      help: "take last.safetensors of the run; or its config.json, for its beginning",
    });
  checkSettled(path, metadata, prepared);
  // Runs of earlier versions averaged no running statistics.
  const found = new Map(tensors);
  const buffers = new Set(step.state.filter(({ kind }) => kind === "buffer").map(({ path }) => path));
  for (const { name, kind, path: of } of step.state) {
    const buffer = kind === "ema" && buffers.has(of) ? tensors.get(of) : undefined;
    if (buffer && !found.has(name)) found.set(name, buffer);
  }
  checkMatch(wanted, found, told);
  // In the order of the step, so that the next checkpoint is written alike.
  const ordered = [...wanted.keys()].map((name) => [name, found.get(name)!] as const);
  return { tensors: new Map(ordered), progress: { ...beginning, ...metadata.progress } };
}

/** The first few names, and how many more there are. */
const someOf = (names: readonly string[], most = 10): string =>
  names.slice(0, most).join(", ") + (names.length > most ? ` and ${names.length - most} more` : "");

const isState = (name: string): boolean => !isWeight(name);

/** What may not change while a run goes on, since its checkpoint would mean something else. */
const settled = [
  ...(["modelOptions", "batch", "imageSize", "optimizer", "accumulate", "ema", "freeze", "weights"] as const),
  ...(["seed", "balanced", "repeats"] as const),
];

function checkSettled(path: string, before: CheckpointMetadata, { config, description, pictures }: Prepared): void {
  const show = (value: unknown): string => JSON.stringify(value) ?? "not given";
  // Where the pictures lie may change, but not which they are; runs of earlier versions know the place alone.
  const keys = before.pictures ? settled : (["data", "val", ...settled] as const);
  const changed = keys
    .filter((key) => show(before.config[key]) !== show(config[key]))
    .map((key) => `${key} was ${show(before.config[key])}, is ${show(config[key])}`);
  if (before.model !== description.model) changed.unshift(`model was ${before.model}, is ${description.model}`);
  if (before.pictures && before.pictures.hash !== pictures.hash)
    changed.unshift(`${count(before.pictures)} were the pictures, now ${count(pictures)}, of other names or labels`);
  if (changed.length === 0) return;
  throw new UsageError({
    message: "a run goes on only as it began",
    at: path,
    details: changed,
    help: "leave these as they were, or start another run from the checkpoint with --weights",
  });
}

const count = ({ train, val }: Pictures): string => `${train} to learn from and ${val} to validate with`;
