import { extname } from "node:path";
import { findModel } from "../../backbones/index.ts";
import { OrielError, UsageError } from "../../base/errors.ts";
import type { WeightsFile } from "../../weights/open.ts";
import { openWeights } from "../../weights/open-node.ts";
import { saveSafetensors } from "../../weights/save-safetensors.ts";
import { saveTorch } from "../../weights/save-torch.ts";
import { byteLengthOf } from "../../weights/stored.ts";
import { unwrapNames } from "../../weights/wrappings.ts";
import { sameFile } from "../../weights/write-file.ts";
import { exportClassifier, exportModel } from "../export/export.ts";
import type { OnEvent } from "../run/events.ts";
import { loadWeights } from "./load-weights.ts";
import { createModel } from "./model.ts";

export type ConvertFormat = WeightsFile["format"];

export interface ConvertOptions {
  /** The model that plain weights are for: an ONNX file holds a graph too. */
  model?: string;
  /** Told of downloads from the hub. */
  onEvent?: OnEvent;
}

/** What was done. */
export interface Converted {
  from: ConvertFormat;
  /** Torch files are written in the zip form, "torch". */
  to: Exclude<ConvertFormat, "torch-legacy">;
  file: string;
  tensors: number;
  bytes: number;
  /** The model whose graph was drawn. */
  model?: string;
  /** How far the written graph's answers are from the model's, relative to the largest; of ONNX files. */
  difference?: number;
}

const endings: Readonly<Record<string, Converted["to"]>> = {
  ".safetensors": "safetensors",
  ".pth": "torch",
  ".pt": "torch",
  ".th": "torch",
  ".bin": "torch",
  ".onnx": "onnx",
};

/**
 * Writes weights in another format, every name and every bit as it was, whatever `openWeights` opens: a file, a folder, parts with
 * their index, a name on the hub.  To safetensors go the metadata too, torch files have no place for them.  Of an ONNX model its
 * initialisers are taken; weights become an ONNX model where it is known here whose they are.
 */
export async function convert(
  source: string,
  file: string,
  { model, onEvent }: ConvertOptions = {},
): Promise<Converted> {
  const to = endings[extname(file).toLowerCase()];
  if (!to)
    throw new UsageError({
      message: `the format of ${file} is not known by its name`,
      help: `let it end in ${Object.keys(endings).join(", ")}`,
    });
  if (to !== "onnx" && model !== undefined) throw new UsageError("--model goes with an .onnx file to write");
  if (await sameFile(source, file))
    throw new UsageError({ message: "the file to write is the one to read", at: source, help: "name another" });
  const weights = await openWeights(source, { onEvent });
  try {
    const { tensors, metadata } = weights;
    if (tensors.size === 0) throw new OrielError("no-tensors", { message: "there are no weights in it", at: source });
    if (to === "onnx") return await toOnnx(source, file, weights, model);
    if (to === "torch") await saveTorch(file, tensors);
    else await saveSafetensors(file, tensors, metadata);
    return { from: weights.format, to, file, ...measure(weights) };
  } finally {
    await weights.close();
  }
}

const measure = ({ tensors }: WeightsFile) => ({
  tensors: tensors.size,
  bytes: [...tensors.values()].reduce((sum, { dtype, shape }) => sum + byteLengthOf(dtype, shape), 0),
});

/** Weights become a graph of their model. */
async function toOnnx(
  source: string,
  file: string,
  weights: WeightsFile,
  name: string | undefined,
): Promise<Converted> {
  const { format: from, metadata, tensors } = weights;
  if (from === "onnx") throw new UsageError({ message: "the file is an ONNX model already", at: source });
  const done = { from, to: "onnx" as const, file, ...measure(weights) };
  if (metadata.format === "oriel" && (name ?? metadata.model) === metadata.model) {
    const { model, difference } = await exportModel(source, file, { fuse: false });
    return { ...done, model, difference };
  }
  if (name === undefined)
    throw new UsageError({
      message: "an ONNX file holds a graph, and these weights do not say whose they are",
      at: source,
      help: "name their model with --model; `oriel models` lists them",
    });
  const { name: model, preprocessing, create } = await findModel(name);
  const head = unwrapNames(tensors).get(`${create().headName}.weight`);
  const classes = Array.from({ length: head?.shape[0] ?? 1000 }, (_, i) => String(i));
  const description = { model, classes, preprocessing };
  const drawn = await createModel(description);
  const { values } = await loadWeights(source, drawn, { name: model });
  const { difference } = await exportClassifier({ description, model: drawn, values }, file, { fuse: false });
  return { ...done, model, difference };
}
