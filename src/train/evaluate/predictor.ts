import { availableParallelism } from "node:os";
import { dirname, resolve } from "node:path";
import { findModel } from "../../backbones/index.ts";
import { closingOnError } from "../../base/close.ts";
import { UsageError } from "../../base/errors.ts";
import { readModel } from "../../graph/onnx/model.ts";
import { targetOf } from "../../passes/fuse.ts";
import { type NodeOptions, openNode } from "../../runtime/node.ts";
import { readWhole } from "../../weights/file-source.ts";
import { besideModel, filesBeside } from "../../weights/onnx-model.ts";
import { openWeights } from "../../weights/open-node.ts";
import { describedBy, openIfCheckpoint } from "../checkpoint/checkpoint.ts";
import { isOnnx, openImported, openModel } from "../checkpoint/imported.ts";
import { loadWeights } from "../checkpoint/load-weights.ts";
import { fusedGraph, type ModelDescription } from "../checkpoint/model.ts";
import { readModelMetadata } from "../checkpoint/model-metadata.ts";
import { type Logits, openExported, type Predictor, predictorOf } from "../export/exported.ts";

export interface PredictorOptions extends NodeOptions {
  /** The model that plain weights, which do not say it themselves, are for; and its classes. */
  model?: string;
  classes?: readonly string[];
  /** Pictures that it is shown together: many go through several streams side by side; one, the default, through all threads. */
  pictures?: number;
}

/** Streams hold the weights each: together no more than this many bytes of them. */
const mostWeights = 2 ** 30;

/** Where so many pictures are judged soonest by a model of so many bytes: on the processor on a stream for each thread, four at most. */
export function withStreams(
  pictures: number,
  weights: number,
  { device = "cpu", threads = availableParallelism(), streams }: NodeOptions,
): NodeOptions {
  const onProcessor = device === "cpu" || device === "auto";
  const most = onProcessor ? Math.min(pictures, threads, 4, Math.floor(mostWeights / weights)) : 1;
  return { device, threads, streams: streams ?? Math.max(1, most) };
}

/** Opens a checkpoint of a run, an exported .onnx, or plain weights of a named model: then of an .onnx the weights alone. */
export async function openPredictor(path: string, options: PredictorOptions = {}): Promise<Predictor> {
  return isOnnx(path) && options.model === undefined ? ofOnnx(path, options) : ofWeights(path, options);
}

async function ofWeights(
  path: string,
  { model: name, classes, pictures = 1, ...node }: PredictorOptions,
): Promise<Predictor> {
  const description = name === undefined ? await describedBy(path) : await describe(name, classes, path);
  const model = await openModel(description, name === undefined ? path : undefined);
  const { values, reset, entries } = await loadWeights(path, model, { name: description.model });
  if (reset.length > 0) {
    const of = entries.find(({ status, from }) => status === "reset" && from)?.from?.[0];
    throw new UsageError({
      message: `the file's classifier is ${of === undefined ? "" : `for ${of} classes, `}not for ${description.classes.length}`,
      at: path,
      help: "give the classes that it was trained on, all of them and in their order",
    });
  }
  const bytes = [...values.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
  const runtime = await openNode(withStreams(pictures, bytes, node));
  const graph = fusedGraph(model, description.preprocessing.imageSize, values, targetOf(runtime.device));
  const program = await closingOnError([runtime], () => runtime.compile(graph));
  const run: Logits = async (data, shape) => {
    const found = await program.run({ image: { dtype: "float32", shape, data } }, { transfer: true });
    return found.logits.data as Float32Array;
  };
  return predictorOf(description, { runtime, run, close: () => runtime.close(), at: path });
}

async function describe(name: string, classes: readonly string[] | undefined, path: string): Promise<ModelDescription> {
  const { name: model, preprocessing } = isOnnx(name) ? { name, ...(await openImported(name)) } : await findModel(name);
  const known = (await openIfCheckpoint(path))?.metadata.classes ?? classes;
  if (known) return { model, classes: known, preprocessing };
  await (await openWeights(path)).close(); // of a file that cannot be opened, that is told
  throw new UsageError({
    message: "these weights do not say what their classes are",
    at: path,
    help: "give their names, in order, by --classes",
  });
}

async function ofOnnx(path: string, options: PredictorOptions): Promise<Predictor> {
  const bytes = await readWhole(path);
  readModelMetadata(bytes, path); // what does not describe itself is refused before anything starts
  const folder = await folderOfWeights(bytes, path);
  // Weights that lie apart are as large as can be.
  const weights = folder === undefined ? bytes.length : Number.POSITIVE_INFINITY;
  const runtime = await openNode(withStreams(options.pictures ?? 1, weights, options));
  const predictor = await closingOnError([runtime], () => openExported(runtime, bytes, { folder, at: path }));
  return { ...predictor, close: () => runtime.close() };
}

/** Where the engine finds weights that lie in other files, each of which may be read; undefined where all are in the model. */
async function folderOfWeights(bytes: Uint8Array<ArrayBuffer>, path: string): Promise<string | undefined> {
  const files = filesBeside(readModel(bytes, path));
  for (const file of files) await besideModel(path, file);
  return files.length > 0 ? resolve(dirname(path)) : undefined;
}
