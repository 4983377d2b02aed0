import { OrielError } from "../../base/errors.ts";
import { fileSource } from "../../weights/file-source.ts";
import { openWeights } from "../../weights/open-node.ts";
import { SafetensorsFile } from "../../weights/safetensors.ts";
import { saveSafetensors } from "../../weights/save-safetensors.ts";
import type { ResolvedConfig } from "../run/defaults.ts";
import type { Pictures } from "../run/pictures.ts";
import type { FloatTensor, Tensors } from "../step/state.ts";
import { version } from "../version.ts";
import type { ModelDescription } from "./model.ts";
import { areClasses, isPreprocessing, jsonOf } from "./model-metadata.ts";

/** Where a run stands: enough to go on as if it had never stopped. */
export interface Progress {
  /** Epochs done; the cursor into the data is `stepInEpoch` of the next. */
  epoch: number;
  stepInEpoch: number;
  /** Sums of what these steps found. */
  lossInEpoch: number;
  accuracyInEpoch: number;
  /** Steps done in all. */
  step: number;
  best?: { top1: number; loss: number; epoch: number };
}

/** What a checkpoint says about itself. */
export interface CheckpointMetadata extends ModelDescription {
  /** The Oriel that wrote it. */
  version: string;
  config: Partial<ResolvedConfig>;
  /** Which ones it learns from; a run of an earlier version does not say. */
  pictures?: Pictures;
  progress: Progress;
}

export interface Checkpoint {
  path: string;
  metadata: CheckpointMetadata;
  tensors: Tensors;
}

/** Where a run computes and writes does not belong to what it computed: the same run elsewhere gives the same bytes. */
const elsewhere = ["out", "resume", "workers", "threads", "device"] as const;

/** Writes a checkpoint beside its place and renames it there. */
export async function saveCheckpoint(
  path: string,
  tensors: Tensors,
  metadata: Omit<CheckpointMetadata, "version">,
): Promise<void> {
  const { model, classes, preprocessing, pictures, progress } = metadata;
  // In one order, whether the config was given by hand or read from a folder.
  const config = Object.fromEntries(Object.entries(metadata.config).sort(([a], [b]) => (a < b ? -1 : 1)));
  for (const key of elsewhere) delete config[key];
  await saveSafetensors(path, tensors, {
    format: "oriel",
    version,
    model,
    classes: JSON.stringify(classes),
    preprocessing: JSON.stringify(preprocessing),
    config: JSON.stringify(config),
    ...(pictures && { pictures: JSON.stringify(pictures) }),
    progress: JSON.stringify(progress),
  });
}

/** What the metadata of a safetensors file says about a run; undefined where Oriel did not write it. */
export function readMetadata(metadata: Readonly<Record<string, string>>, at?: string): CheckpointMetadata | undefined {
  if (metadata.format !== "oriel") return undefined;
  const { version, model } = metadata;
  const [classes, preprocessing, config, pictures, progress] = (
    ["classes", "preprocessing", "config", "pictures", "progress"] as const
  ).map((key) => jsonOf(metadata[key]));
  if (model === undefined || !areClasses(classes) || !isPreprocessing(preprocessing))
    throw new OrielError("malformed", {
      message: "the checkpoint does not say what model, classes and preprocessing it is for",
      at,
    });
  const told = (config ?? {}) as Partial<ResolvedConfig>;
  return {
    version,
    model,
    ...(told.modelOptions && { modelOptions: told.modelOptions }),
    classes,
    preprocessing,
    config: told,
    ...(pictures !== undefined && { pictures: pictures as Pictures }),
    progress: (progress ?? {}) as Progress,
  };
}

/** Opens a safetensors file for as long as `use` takes. */
export async function withSafetensors<T>(path: string, use: (file: SafetensorsFile) => Promise<T>): Promise<T> {
  const source = await fileSource(path);
  try {
    return await use(await SafetensorsFile.open(source));
  } finally {
    await source.close();
  }
}

/** The names and metadata of a checkpoint, without its values. */
export async function openCheckpoint(
  path: string,
): Promise<{ metadata: CheckpointMetadata; names: readonly string[] }> {
  return withSafetensors(path, async (file) => ({ metadata: own(path, file), names: file.names }));
}

/** Reads a checkpoint that a run wrote; `only` says which tensors.  A truncated or foreign file is refused. */
export async function loadCheckpoint(path: string, only: (name: string) => boolean = () => true): Promise<Checkpoint> {
  return withSafetensors(path, async (file) => ({
    path,
    metadata: own(path, file),
    tensors: await readTensors(file, only),
  }));
}

const notOurs = new Set(["foreign", "not-a-file", "not-found"]);

/** The same, or undefined where the path leads to something else: a file of another format, a folder, a name on the hub. */
export async function openIfCheckpoint(path: string): Promise<Awaited<ReturnType<typeof openCheckpoint>> | undefined> {
  try {
    return await openCheckpoint(path);
  } catch (error) {
    if (error instanceof OrielError && notOurs.has(error.code)) return undefined;
    throw error; // one of ours that is damaged
  }
}

/** What the weights at a path are for; `help` is what to do where they do not say it. */
export async function describedBy(path: string, help?: string): Promise<CheckpointMetadata> {
  try {
    return (await openCheckpoint(path)).metadata;
  } catch (error) {
    const code = error instanceof OrielError ? error.code : undefined;
    if (code !== "foreign" && code !== "not-a-file") throw error;
    // Of other formats and of folders it is told what they hold.
    const file = await openWeights(path).catch((reason) => {
      throw code === "foreign" ? error : reason;
    });
    await file.close();
    throw file.format === "onnx" ? error : foreign(path, help);
  }
}

function own(path: string, file: SafetensorsFile): CheckpointMetadata {
  const metadata = readMetadata(file.metadata, path);
  if (metadata) return metadata;
  throw foreign(path);
}

const foreign = (path: string, help = "name the model with --model, or start a training from it with --weights") =>
  new OrielError("foreign", {
    message: "this file holds tensors, but not what model and classes they are for: no Oriel run wrote it",
    at: path,
    help,
  });

export async function readTensors(file: SafetensorsFile, only: (name: string) => boolean): Promise<Tensors> {
  const tensors = new Map<string, FloatTensor>();
  for (const name of file.names)
    if (only(name))
      tensors.set(name, {
        shape: file.info(name).shape,
        data: (await file.readFloat32(name)) as Float32Array<ArrayBuffer>,
      });
  return tensors;
}

const average = "ema.";

/** Whether a tensor is a weight of the model rather than state of its training. */
export const isWeight = (name: string): boolean => !name.startsWith("optimizer.");

/** The weights to use: where a moving average was kept, it stands in for the parameter or running statistic it belongs to. */
export function weightsIn(tensors: Tensors): Tensors {
  const weights = new Map<string, FloatTensor>();
  for (const [name, tensor] of tensors)
    if (isWeight(name) && !name.startsWith(average)) weights.set(name, tensors.get(average + name) ?? tensor);
  return weights;
}
