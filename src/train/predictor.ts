import { dirname, resolve } from "node:path";
import { findModel } from "../backbones/index.ts";
import { OrielError, UsageError } from "../base/errors.ts";
import { readModel } from "../graph/onnx/model.ts";
import { targetOf } from "../passes/fuse.ts";
import { type NodeOptions, openNode } from "../runtime/node.ts";
import type { HostTensor } from "../runtime/runtime.ts";
import { readWhole } from "../weights/file-source.ts";
import { besideModel, filesBeside } from "../weights/onnx-model.ts";
import { describedBy, openCheckpoint } from "./checkpoint.ts";
import { isOnnx, openImported, openModel } from "./imported.ts";
import { loadWeights } from "./load-weights.ts";
import { fusedGraph, type ModelDescription } from "./model.ts";
import { readModelMetadata } from "./model-metadata.ts";
import type { Logits } from "./run-evaluation.ts";

export interface PredictorOptions extends NodeOptions {
  /** The model that plain weights, which do not say it themselves, are for; and its classes. */
  model?: string;
  classes?: readonly string[];
}

/** A trained classifier, ready to be shown pictures. */
export interface Predictor extends ModelDescription {
  logits: Logits;
  close(): Promise<void>;
}

/** Opens a checkpoint of a run, an exported .onnx, or plain weights of a named model: then of an .onnx the weights alone. */
export async function openPredictor(path: string, options: PredictorOptions = {}): Promise<Predictor> {
  const open = isOnnx(path) && options.model === undefined ? openOnnx : openWeights;
  const predictor = await open(path, options);
  return { ...predictor, logits: async (data, shape) => checkAnswer(await predictor.logits(data, shape), path) };
}

/** A logit of -∞ rules a class out; NaN and ∞ say nothing, and would count as an answer. */
function checkAnswer(logits: Float32Array, path: string): Float32Array {
  const wrong = logits.find((x) => !(x < Number.POSITIVE_INFINITY));
  if (wrong === undefined) return logits;
  throw new OrielError("non-finite", {
    message: `the model answers with a logit of ${wrong}`,
    at: path,
    help: "its weights are damaged, or too large for the type that it computes in",
  });
}

async function openWeights(path: string, { model: name, classes, ...node }: PredictorOptions): Promise<Predictor> {
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
  const runtime = await openNode(node);
  const { imageSize } = description.preprocessing;
  const program = await runtime.compile(fusedGraph(model, imageSize, values, targetOf(runtime.device)));
  return {
    ...description,
    close: () => runtime.close(),
    logits: async (data, shape) => {
      const { logits } = await program.run({ image: { dtype: "float32", shape, data } }, { transfer: true });
      return logits.data as Float32Array;
    },
  };
}

async function describe(name: string, classes: readonly string[] | undefined, path: string): Promise<ModelDescription> {
  const { name: model, preprocessing } = isOnnx(name) ? { name, ...(await openImported(name)) } : await findModel(name);
  const own = await openCheckpoint(path).catch(() => undefined); // of another format, or of a run
  const known = own?.metadata.classes ?? classes;
  if (known) return { model, classes: known, preprocessing };
  throw new UsageError({
    message: "these weights do not say what their classes are",
    at: path,
    help: "give their names, in order, by --classes",
  });
}

async function openOnnx(path: string, options: PredictorOptions): Promise<Predictor> {
  const bytes = await readWhole(path);
  const { input, output, ...description } = readModelMetadata(bytes, path);
  const runtime = await openNode({ device: options.device, threads: options.threads });
  const program = await runtime.compile(bytes, { folder: await folderOfWeights(bytes, path) });
  return {
    ...description,
    close: () => runtime.close(),
    logits: async (data, shape) => {
      const image: HostTensor =
        input === "uint8" ? pixelsOf(data, shape, description) : { dtype: "float32", shape, data };
      const found = await program.run({ image }, { transfer: true });
      const values = found[output].data as Float32Array;
      // A softmax of logarithms gives the probabilities back.
      return output === "logits" ? values : values.map((p) => Math.log(Math.max(p, 1e-30)));
    },
  };
}

/** Where the engine finds weights that lie in other files, each of which may be read; undefined where all are in the model. */
async function folderOfWeights(bytes: Uint8Array<ArrayBuffer>, path: string): Promise<string | undefined> {
  const files = filesBeside(readModel(bytes, path));
  for (const file of files) await besideModel(path, file);
  return files.length > 0 ? resolve(dirname(path)) : undefined;
}

/** The bytes that normalised values came from.  [N, 3, H, W] -> [N, H, W, 3] */
function pixelsOf(
  image: Float32Array,
  [n, , height, width]: readonly number[],
  { preprocessing }: ModelDescription,
): HostTensor {
  const { mean, std } = preprocessing;
  const area = height * width;
  const data = new Uint8Array(image.length);
  for (let i = 0; i < n; i++)
    for (let c = 0; c < 3; c++)
      for (let p = 0; p < area; p++)
        data[(i * area + p) * 3 + c] = Math.round((image[(i * 3 + c) * area + p] * std[c] + mean[c]) * 255);
  return { dtype: "uint8", shape: [n, height, width, 3], data };
}
