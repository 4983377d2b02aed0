import { withoutUndefined } from "../../base/options.ts";
import type { Dataset, Splits } from "../../data/index.ts";
import { openNode } from "../../runtime/node.ts";
import type { Runtime } from "../../runtime/runtime.ts";
import { keepImported } from "../checkpoint/imported.ts";
import type { Evaluation } from "../evaluate/tally.ts";
import { exportModel } from "../export/export.ts";
import { writeReport } from "../report/index.ts";
import { isSplit } from "../step/split-step.ts";
import { parseConfig, type TrainConfigInput } from "./config.ts";
import type { OnEvent, TrainEvent, TrainResult } from "./events.ts";
import { type Prepared, prepareRun } from "./prepare.ts";
import { changesOf, type ResumeInput, resumedConfig } from "./resume.ts";
import { RunFolder } from "./run-folder.ts";
import { openStart, type Start } from "./start.ts";
import { Trainer } from "./trainer.ts";

export interface TrainOptions {
  onEvent?: OnEvent;
  /** Ends the run at the next step, with a checkpoint to go on from. */
  signal?: AbortSignal;
  /** Pictures that are no files: where they are given, `data` is only what the run's config calls them.  They are not closed. */
  pictures?: Splits;
}

/**
 * Trains a classifier on labelled pictures and leaves a run folder: config, metrics, checkpoints, the exported model, a report.
 *
 *     const { top1, folder } = await train({ data: "photos", model: "swin_micro_32", epochs: 10 });
 *
 * With `resume` the run in `out` goes on as it was told, but for what is given anew:
 *
 *     await train({ out: folder, resume: true, epochs: 20 });
 */
export async function train(
  given: TrainConfigInput | ResumeInput,
  { onEvent = () => {}, signal, pictures }: TrainOptions = {},
): Promise<TrainResult> {
  const began = performance.now();
  let folder: RunFolder | undefined;
  const emit = (event: TrainEvent): void => {
    folder?.log(event);
    onEvent(event);
  };
  const before = given?.resume ? await resumedConfig(given) : undefined;
  const prepared = await prepareRun(parseConfig(given && { ...before, ...withoutUndefined(given) }), emit, {
    pictures,
  });
  const { config } = prepared;
  folder = new RunFolder(config.out);
  let runtime: Runtime | undefined;
  try {
    await folder.enter(config);
    if (prepared.imported) await keepImported(prepared.imported, folder.path);
    const last = before && folder.has("last") ? folder.file("last") : undefined;
    const streams = isSplit(prepared.step) ? prepared.step.parts : 1;
    runtime = await openNode({ device: config.device, threads: config.threads, streams });
    const begin = async (): Promise<Start> => {
      const start = await openStart(prepared, last, emit);
      // A checkpoint that cannot be gone on with is refused before a word of going on.
      if (before) emit({ type: "resume", folder: config.out, anew: !last, changes: changesOf(before, config) });
      return start;
    };
    const trainer = await Trainer.open({ prepared, folder, runtime, emit, signal }, begin);
    const outcome = await trainer.run();
    if (outcome !== "interrupted") await finish(trainer, folder, prepared, emit);
    else if (trainer.best) await report(trainer.best, trainer, folder, prepared, emit);
    const { epoch, step, best } = trainer.progress;
    const seconds = (performance.now() - began) / 1000;
    const result: TrainResult = { outcome, epochs: epoch, step, top1: best?.top1, seconds, folder: folder.path };
    emit({ type: "end", ...result });
    return result;
  } finally {
    await prepared.close();
    await runtime?.close();
    folder.close();
  }
}

/** The best weights judged in full, reported and exported; the report first, since it does not need what an export may lack. */
async function finish(trainer: Trainer, folder: RunFolder, prepared: Prepared, emit: OnEvent): Promise<void> {
  await report(await trainer.bestEvaluation(), trainer, folder, prepared, emit);
  const { epoch, step } = trainer.progress;
  await exportModel(folder.file("best"), folder.file("onnx"));
  emit({ type: "save", what: "onnx", file: folder.file("onnx"), epoch, step });
}

async function report(
  best: Evaluation,
  { progress: { epoch, step } }: Trainer,
  folder: RunFolder,
  { val }: Prepared,
  emit: OnEvent,
): Promise<void> {
  await folder.writeText("evaluation", JSON.stringify(best));
  await writeReport(folder.path, { picture: pictureReader(val) });
  emit({ type: "save", what: "report", file: folder.file("report"), epoch, step });
}

/** Pictures of a dataset by their names. */
function pictureReader(dataset: Dataset): (name: string) => Promise<Uint8Array | undefined> {
  const places = new Map(Array.from({ length: dataset.length }, (_, i) => [dataset.name(i), i]));
  return async (name) => {
    const at = places.get(name);
    return at === undefined ? undefined : dataset.read(at);
  };
}
