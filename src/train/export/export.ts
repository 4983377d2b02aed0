import { mkdir, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { setImmediate } from "node:timers/promises";
import type { Preprocessing } from "../../backbones/index.ts";
import { OrielError, UsageError } from "../../base/errors.ts";
import { Graph } from "../../graph/graph.ts";
import {
  constantBytes,
  largestFile,
  lower,
  type Opset,
  opsets,
  writeOnnx,
  writeOnnxParts,
} from "../../graph/onnx/write.ts";
import { OpenDim } from "../../graph/shape.ts";
import { constant, input, type Tensor } from "../../graph/tensor.ts";
import { bindWeights } from "../../nn/bind.ts";
import { cast } from "../../ops/compare.ts";
import { softmax } from "../../ops/norm.ts";
import { forOpset } from "../../passes/for-opset.ts";
import { refused } from "../../passes/webgpu.ts";
import type { Classifier } from "../../tasks/classify.ts";
import { failure, makeFolder, sameFile, writeFileSafely } from "../../weights/write-file.ts";
import { describedBy } from "../checkpoint/checkpoint.ts";
import { importedName, openModel } from "../checkpoint/imported.ts";
import { loadWeights } from "../checkpoint/load-weights.ts";
import { fusedGraph, inferenceGraph, type ModelDescription } from "../checkpoint/model.ts";
import {
  type ExportInput,
  type ExportOutput,
  encodeModelMetadata,
  type ModelMetadata,
} from "../checkpoint/model-metadata.ts";
import { version } from "../version.ts";
import { checkExport } from "./check-export.ts";
import { tritonFiles } from "./triton.ts";

/**
 * Where an exported model is to run.  "onnx", the default, and "node" use standard operators alone; "webgpu" also ONNX Runtime's own,
 * which are faster there; "web" is for a page: standard operators, and an error where WebGPU lacks one; "triton" makes the folder of
 * a model that a Triton server wants.
 */
export type ExportTarget = "onnx" | "webgpu" | "node" | "web" | "triton";

export interface ExportOptions {
  input?: ExportInput;
  output?: ExportOutput;
  target?: ExportTarget;
  /** Version of ONNX's operators, 21 by default. */
  opset?: Opset;
  /** Whether norms and scales are multiplied into the weights, which is faster; false leaves every weight as it is, to train on. */
  fuse?: boolean;
  /** Writes the weights to a file of their own beside the model, `<file>.data`. */
  externalData?: boolean;
  /** Bytes of weights from which on they are written so anyway; by default and at most what one ONNX file holds, 2 GB. */
  maxBytes?: number;
  /** Who may use the weights for what, such as "MIT"; goes into the metadata. */
  licence?: string;
  /** Where the weights come from: an address, a paper. */
  source?: string;
  /** More metadata, as it is. */
  metadata?: Readonly<Record<string, string>>;
}

/** An exported model: what it says of itself, and where it lies. */
export interface Exported extends ModelMetadata {
  /** The first is the model. */
  files: readonly string[];
  /** The largest difference from the model that it came from, for pictures of noise, relative to the largest answer. */
  difference: number;
}

type Choices = Required<Pick<ExportOptions, "input" | "output" | "target" | "opset">>;

/** What an export can be asked for. */
export const exportChoices: { [K in keyof Choices]: readonly Choices[K][] } = {
  input: ["float32", "uint8"],
  output: ["logits", "probabilities"],
  target: ["onnx", "webgpu", "node", "web", "triton"],
  opset: opsets,
};

/** Throws where a program without types asks for what there is not: the file would be another than it was meant to be. */
function checkChoices(given: Choices): void {
  for (const [key, known] of Object.entries(exportChoices)) {
    const value = given[key as keyof Choices];
    if (!(known as readonly unknown[]).includes(value))
      throw new UsageError({ message: `${key} is ${JSON.stringify(value)}`, help: `${known.join(", ")} are known` });
  }
}

/** Throws where a file to write is named as something else. */
export function checkName(file: string): void {
  if (!file.toLowerCase().endsWith(".onnx"))
    throw new UsageError({ message: `the file to write is ${file}`, help: "give it a name that ends in .onnx" });
}

/** Weights of more bytes than this leave room for nothing else in one file. */
const mostInside = largestFile - 2 ** 24;

/**
 * Writes a checkpoint as an ONNX model: input `image` for any number of pictures, output `logits` [N, classes] or `probabilities`.
 * Preprocessing, labels, licence and source are in its metadata.  What was written is run by ONNX Runtime before it takes its place,
 * and must answer as the model does that it came from.
 */
export async function exportModel(checkpoint: string, file: string, options: ExportOptions = {}): Promise<Exported> {
  const description = await describedBy(checkpoint, "`oriel convert` with --model makes an ONNX model of it");
  if (await sameFile(join(dirname(checkpoint), importedName), file))
    throw new UsageError({ message: `${file} is what the checkpoint needs to be opened`, help: "name another file" });
  const model = await openModel(description, checkpoint);
  const { values } = await loadWeights(checkpoint, model, { name: description.model });
  const { licence = description.config.licence, source = description.config.source } = options;
  return exportClassifier({ description, model, values }, file, { ...options, licence, source });
}

/** A classifier and what is known of it. */
export interface Trained {
  description: ModelDescription;
  model: Classifier;
  values: ReadonlyMap<string, Float32Array<ArrayBuffer>>;
}

/** Writes a classifier with its weights as an ONNX model, checked as `exportModel` says. */
export async function exportClassifier(
  { description, model, values }: Trained,
  file: string,
  options: ExportOptions = {},
): Promise<Exported> {
  const { input = "float32", output = "logits", target = "onnx", opset = 21, metadata = {} } = options;
  checkChoices({ input, output, target, opset });
  if (target !== "triton") checkName(file);
  const { model: name, classes, preprocessing } = description;
  const { licence, source } = options;
  const told: ModelMetadata = { model: name, classes, preprocessing, input, output, licence, source };

  const plain = inferenceGraph(model, preprocessing.imageSize);
  await setImmediate(); // drawing, fusing and writing take a tenth of a second each, between which the caller has other things to do
  let graph =
    options.fuse === false
      ? bindWeights(plain, model, values)
      : fusedGraph(model, preprocessing.imageSize, values, target === "webgpu" ? target : "onnx");
  if (input === "uint8") graph = takingBytes(graph, preprocessing);
  if (output === "probabilities") graph = givingProbabilities(graph);
  graph = forOpset(graph, opset);
  if (target === "web") checkWeb(graph);
  await setImmediate();

  const folder = target === "triton" ? join(file, "1") : dirname(file);
  const onnx = target === "triton" ? "model.onnx" : basename(file);
  const data = `${onnx}.data`;
  const written = {
    name,
    opset,
    metadata: { producer: `oriel ${version}`, ...encodeModelMetadata(told), ...metadata },
  };
  const apart = options.externalData || constantBytes(graph) > Math.min(options.maxBytes ?? mostInside, mostInside);
  const parts = apart
    ? writeOnnxParts(graph, { ...written, location: data })
    : { model: writeOnnx(graph, written), data: [] };
  const checking = join(folder, `${onnx}.checking`);
  try {
    if (target === "triton") await makeFolder(folder);
    await rm(checking, { recursive: true, force: true });
    await mkdir(checking);
  } catch (cause) {
    throw failure(cause, join(folder, onnx));
  }
  try {
    const names = apart ? [onnx, data] : [onnx];
    if (apart) await writeFileSafely(join(checking, data), parts.data, join(folder, data));
    await writeFileSafely(join(checking, onnx), [parts.model], join(folder, onnx));
    const difference = await checkExport(join(checking, onnx), { plain, values, told });
    // The weights first: a model never lies there without them.
    for (const made of names.toReversed())
      await rename(join(checking, made), join(folder, made)).catch((cause) => {
        throw failure(cause, join(folder, made));
      });
    const files = names.map((made) => join(folder, made));
    if (target === "triton") files.push(...(await tritonFiles(file, told)));
    return { ...told, files, difference };
  } finally {
    await rm(checking, { recursive: true, force: true });
  }
}

/** The same model, normalising by itself.  [N, H, W, 3] uint8 */
function takingBytes(graph: Graph, { imageSize, mean, std }: Preprocessing): Graph {
  const bytes = input([new OpenDim("N"), imageSize, imageSize, 3], "uint8");
  const channels = (values: readonly number[]): Tensor => constant(Float32Array.from(values), [3, 1, 1], "float32");
  // Bytes become floats before they move: WebGPU has no kernel that moves bytes.
  const pixels = cast(bytes, { to: "float32" }).permute(0, 3, 1, 2);
  const image = pixels.div(255).sub(channels(mean)).div(channels(std));
  const { outputs } = graph.bind(new Map([["image", image]]));
  return new Graph([["image", bytes]], outputs);
}

const givingProbabilities = (graph: Graph): Graph =>
  new Graph(graph.inputs, [["probabilities", softmax(graph.outputs.get("logits")!)]]);

function checkWeb(graph: Graph): void {
  const left = refused(lower(graph).nodes);
  if (left.length === 0) return;
  throw new OrielError("export", {
    message: `${left.length} operations of the model have no place on WebGPU`,
    details: [...new Set(left)].slice(0, 8),
    help: "export it for node: ONNX Runtime then runs those on the processor",
  });
}
