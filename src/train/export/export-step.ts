import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { internal, UsageError } from "../../base/errors.ts";
import { checkNumbers } from "../../base/options.ts";
import { noneReadable } from "../../data/index.ts";
import type { DType } from "../../graph/dtype.ts";
import { writeOnnx } from "../../graph/onnx/write.ts";
import { isCount } from "../../graph/shape.ts";
import type { HostTensor } from "../../runtime/runtime.ts";
import { saveSafetensors } from "../../weights/save-safetensors.ts";
import { writeFileSafely } from "../../weights/write-file.ts";
import { openCheckpoint } from "../checkpoint/checkpoint.ts";
import { parseConfig } from "../run/config.ts";
import { scheduleOf, stepSeed } from "../run/defaults.ts";
import { hostBatch } from "../run/loaders.ts";
import { type Prepared, prepareRun } from "../run/prepare.ts";
import { readConfigFile, runFolderOf } from "../run/run-folder.ts";
import { openStart, type Start } from "../run/start.ts";
import { isSplit } from "../step/split-step.ts";
import { boundGraph, nextName } from "../step/state.ts";
import { checkName } from "./export.ts";

export interface ExportStepOptions {
  /** Writes the next batches too, so that the step can be tried without reading pictures. */
  batches?: number;
}

/** The JSON beside an exported step: all that a program in any language needs to run it. */
export interface StepDescription {
  model: string;
  classes: readonly string[];
  /** Files beside this one: the graph, the state before the first step, and batches as `image.0`, `target.0`, … */
  files: { step: string; state: string; batches?: string };
  /** What to feed besides the state. */
  inputs: Record<string, { dtype: DType; shape: readonly number[]; what: string }>;
  /** State tensor X goes in as X and comes out as `next.X`. */
  state: readonly string[];
  next: string;
  metrics: readonly string[];
  /** `lr`, `step` and `seed` of the next steps. */
  schedule: readonly { lr: number; step: number; seed: number }[];
}

/**
 * Writes the training step of a run as an ONNX model that any ONNX Runtime trains with, its state as safetensors, and a
 * description: `step.onnx`, `step.safetensors`, `step.json`.  `from` is a config such as a run's `config.json`, for its beginning, or the
 * run's `last.safetensors`.
 */
export async function exportTrainStep(
  from: string,
  file: string,
  { batches = 0 }: ExportStepOptions = {},
): Promise<StepDescription> {
  checkNumbers({ batches }, (n) => n === 0 || isCount(n), "a whole number, or 0 for none");
  checkName(file);
  await checkFree(filesOf(file));
  const isConfig = from.endsWith(".json");
  const told = isConfig ? await readConfigFile(from) : parseConfig((await openCheckpoint(from)).metadata.config, from);
  // What the run keeps lies in its folder, wherever that is by now.
  const config = { ...told, out: runFolderOf(from) ?? told.out };
  const prepared = await prepareRun(config, () => {}, { plain: true });
  try {
    return await writeStep(prepared, isConfig ? undefined : from, file, batches);
  } finally {
    await prepared.close();
  }
}

function filesOf(file: string) {
  const base = file.replace(/\.onnx$/i, "");
  return {
    step: file,
    state: `${base}.safetensors`,
    batches: `${base}.batches.safetensors`,
    description: `${base}.json`,
  };
}

/** Throws where what would be written beside the step is there and no step's: a checkpoint, a run's config. */
async function checkFree({ state, batches, description }: ReturnType<typeof filesOf>): Promise<void> {
  const [found] = [state, batches, description].filter((path) => existsSync(path));
  if (found === undefined) return;
  const before = await readFile(description, "utf8")
    .then(JSON.parse)
    .catch(() => undefined);
  if (before?.files?.state === basename(state)) return;
  throw new UsageError({
    message: `${found} is there already, and is no exported step's`,
    help: "give the step another name: its state and description get that, too",
  });
}

async function writeStep(
  prepared: Prepared,
  checkpoint: string | undefined,
  file: string,
  batches: number,
): Promise<StepDescription> {
  const start = await openStart(prepared, checkpoint, () => {});
  const files = filesOf(file);
  const { step, description } = prepared;
  if (isSplit(step)) throw internal("a step that is exported is one graph");
  const graph = boundGraph(step.graph, step.frozen, start.tensors);
  const names = step.state.map((entry) => entry.name);
  const metadata = { model: description.model, state: `tensor X goes in as X and comes out as ${nextName("X")}` };
  await writeFileSafely(files.step, [writeOnnx(graph, { name: `${description.model} training step`, metadata })]);
  await saveSafetensors(
    files.state,
    names.map((name) => [name, start.tensors.get(name)!]),
  );
  if (batches > 0) await saveSafetensors(files.batches, await nextBatches(prepared, start, batches));
  const made: StepDescription = {
    model: description.model,
    classes: description.classes,
    files: {
      step: basename(files.step),
      state: basename(files.state),
      ...(batches > 0 ? { batches: basename(files.batches) } : {}),
    },
    inputs: Object.fromEntries(
      Object.entries(whatInputsAre).map(([name, what]) => {
        const { dtype, shape } = graph.inputs.get(name)!;
        return [name, { dtype, shape: shape as number[], what }];
      }),
    ),
    state: names,
    next: nextName(""),
    metrics: step.metrics,
    schedule: scheduleFrom(prepared, start, Math.max(batches, 20)),
  };
  await writeFileSafely(files.description, [new TextEncoder().encode(`${JSON.stringify(made, null, 2)}\n`)]);
  return made;
}

const whatInputsAre = {
  image: "pictures, RGB, normalised",
  target: "their classes, as indices or as a distribution",
  lr: "learning rate of this step",
  step: "this step's number, from 1",
  seed: "keys this step's random masks",
};

/** What a trainer would feed beside the batch. */
function scheduleFrom(
  prepared: Prepared,
  { progress }: Start,
  count: number,
): { lr: number; step: number; seed: number }[] {
  const { config, loaders } = prepared;
  const schedule = scheduleOf(config, loaders.train.steps);
  return Array.from({ length: count }, (_, i) => {
    const step = progress.step + i;
    return { lr: schedule(step), step: step + 1, seed: stepSeed(config.seed, step) };
  });
}

async function nextBatches({ loaders }: Prepared, { progress }: Start, count: number): Promise<[string, HostTensor][]> {
  const tensors: [string, HostTensor][] = [];
  for (let { epoch, stepInEpoch } = progress; tensors.length < 2 * count; epoch++, stepInEpoch = 0) {
    const before = tensors.length;
    for await (const batch of loaders.train.batches({ epoch, startStep: stepInEpoch })) {
      const place = tensors.length / 2;
      for (const [name, tensor] of Object.entries(hostBatch(batch))) tensors.push([`${name}.${place}`, tensor]);
      if (tensors.length === 2 * count) break;
    }
    // The rest of an epoch may be nothing; a whole one is not.
    if (tensors.length === before && stepInEpoch === 0) throw noneReadable("learn from");
  }
  return tensors;
}
