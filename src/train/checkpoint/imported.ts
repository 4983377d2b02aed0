import { access, copyFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { imagenet, type Preprocessing } from "../../backbones/backbone.ts";
import { ImportedBackbone } from "../../backbones/imported.ts";
import { UsageError } from "../../base/errors.ts";
import type { OnnxModel } from "../../graph/onnx/model.ts";
import { Classifier } from "../../tasks/classify.ts";
import { besideModel, filesBeside, openOnnxModel } from "../../weights/onnx-model.ts";
import { makeFolder } from "../../weights/write-file.ts";
import { createModel, type ModelDescription } from "./model.ts";
import { isPreprocessing, jsonOf } from "./model-metadata.ts";

/** What a run that fine-tunes an imported model calls the copy of it in its folder, so that the original may go. */
export const importedName = "imported.onnx";

/** Whether a model is named by a file instead of one of ours. */
export const isOnnx = (model: string): boolean => /\.onnx$/i.test(model);

/** A model that another tool exported, ready to learn. */
export interface Imported {
  path: string;
  model: OnnxModel;
  backbone: ImportedBackbone;
  preprocessing: Preprocessing;
  /** What the file says of its weights. */
  origin: { licence?: string; source?: string };
}

/** Reads a model to be fine-tuned: that of the run in `out`, where it has kept one, else the file itself. */
export async function openImported(path: string, imageSize?: number, out?: string): Promise<Imported> {
  const kept = out === undefined ? undefined : join(out, importedName);
  const file = kept !== undefined && (await exists(kept)) ? kept : path;
  const model = await openOnnxModel(file);
  const backbone = new ImportedBackbone(model);
  const own = backbone.imageSize;
  if (own !== undefined && imageSize !== undefined && imageSize !== own)
    throw new UsageError({
      message: `the model reads pictures of ${own} × ${own}, ${imageSize} was asked for`,
      at: file,
      help: "leave --image-size out, or export the model with open height and width",
    });
  const size = own ?? imageSize ?? imagenet.imageSize;
  const { license: licence, source } = model.metadata;
  const preprocessing = { ...preparationOf(model), imageSize: size };
  return { path: file, model, backbone, preprocessing, origin: { licence, source } };
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

/** How the file says that pictures are prepared; ImageNet's way where it does not. */
function preparationOf({ metadata }: OnnxModel): Preprocessing {
  const { input: _, output: __, ...told } = Object(jsonOf(metadata.preprocessing));
  const preprocessing = { ...imagenet, ...told };
  return isPreprocessing(preprocessing) ? preprocessing : imagenet;
}

/** The labels that the file gives its outputs. */
function labelsOf({ metadata }: OnnxModel): readonly string[] | undefined {
  const labels = jsonOf(metadata.labels);
  return Array.isArray(labels) ? labels.map(String) : undefined;
}

/** The imported model with a classifier for `classes`: its own where it is for the same, else a new one. */
export function importedClassifier({ model, backbone }: Imported, classes: readonly string[]): Classifier {
  const labels = labelsOf(model);
  const others = labels !== undefined && labels.join("\n") !== classes.join("\n");
  return others
    ? new Classifier(backbone, classes.length)
    : new Classifier(backbone, classes.length, [backbone.classifier(classes.length)]);
}

/**
 * Draws the classifier that a description names: one of ours, or the imported model that a run keeps beside its `checkpoint`.
 */
export async function openModel(description: ModelDescription, checkpoint?: string): Promise<Classifier> {
  const { model, classes, preprocessing } = description;
  if (!isOnnx(model)) return createModel(description);
  const path = checkpoint === undefined ? model : join(dirname(checkpoint), model);
  return importedClassifier(await openImported(path, preprocessing.imageSize), classes);
}

/** Puts a copy of the imported model into a run folder, with the files of weights beside it. */
export async function keepImported({ path, model }: Imported, folder: string): Promise<void> {
  const target = join(folder, importedName);
  if (resolve(path) === resolve(target)) return;
  await copyFile(path, target);
  for (const name of filesBeside(model)) {
    const file = join(folder, name);
    await makeFolder(dirname(file));
    await copyFile(await besideModel(path, name), file);
  }
}

/** What a run of an imported model is called. */
export const stemOf = (path: string): string => basename(path).replace(/\.onnx$/i, "");
