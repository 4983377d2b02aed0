import type { Preprocessing } from "../backbones/index.ts";
import { OrielError } from "../base/errors.ts";
import { Graph } from "../graph/graph.ts";
import { readMetadata } from "../graph/onnx/read.ts";
import { writeOnnx } from "../graph/onnx/write.ts";
import { OpenDim } from "../graph/shape.ts";
import { constant, input, type Tensor } from "../graph/tensor.ts";
import { cast } from "../ops/compare.ts";
import type { Target } from "../passes/fuse.ts";
import { writeFileSafely } from "../weights/write-file.ts";
import { openCheckpoint } from "./checkpoint.ts";
import { loadWeights } from "./load-weights.ts";
import { createModel, fusedGraph, type ModelDescription } from "./model.ts";
import { version } from "./version.ts";

/**
 * How an exported model takes pictures.  "float32", the default, is what other tools export and expect: [N, 3, H, W], normalised by
 * the reader as the metadata says.  "uint8" is a picture's own bytes, [N, H, W, 3]: the graph normalises them, so that nothing
 * can be done wrong but the resizing.
 */
export type ExportInput = "float32" | "uint8";

export interface ExportOptions {
  input?: ExportInput;
  /** "onnx", the default, uses standard operators alone; "webgpu" also ONNX Runtime's own, which are faster there. */
  target?: Target;
  /** Who may use the weights for what, such as "MIT"; goes into the metadata. */
  licence?: string;
  /** More metadata, as it is. */
  metadata?: Readonly<Record<string, string>>;
}

/** What the metadata of an exported model says. */
export interface ModelMetadata extends ModelDescription {
  input: ExportInput;
  licence?: string;
  /** Where the weights come from that the model was trained on from. */
  source?: string;
}

/**
 * Writes a checkpoint as an ONNX model: input `image` for any number of pictures, output `logits` [N, classes], of which softmax
 * gives the probabilities.  Preprocessing, labels and licence are in its metadata.
 */
export async function exportModel(
  checkpoint: string,
  file: string,
  options: ExportOptions = {},
): Promise<ModelMetadata> {
  const { metadata: description } = await openCheckpoint(checkpoint);
  const { source } = description.config;
  const { input = "float32", target = "onnx", licence = description.config.licence, metadata = {} } = options;
  const model = await createModel(description);
  const { values } = await loadWeights(checkpoint, model, { name: description.model });
  const graph = fusedGraph(model, description.preprocessing.imageSize, values, target);
  const { model: name, classes, preprocessing } = description;
  const bytes = writeOnnx(input === "uint8" ? takingBytes(graph, preprocessing) : graph, {
    name,
    metadata: { ...describe({ model: name, classes, preprocessing, input, licence, source }), ...metadata },
  });
  await writeFileSafely(file, [bytes]);
  return { model: name, classes, preprocessing, input, licence, source };
}

function describe({ model, classes, preprocessing, input, licence, source }: ModelMetadata): Record<string, string> {
  const { imageSize, mean, std } = preprocessing;
  const layouts = {
    float32: `RGB, float32 [N, 3, ${imageSize}, ${imageSize}], (pixel / 255 - mean) / std with mean ${mean.join(" ")} and std ${std.join(" ")}`,
    uint8: `RGB, uint8 [N, ${imageSize}, ${imageSize}, 3], pixels as they are`,
  };
  return {
    producer: `oriel ${version}`,
    model,
    labels: JSON.stringify(classes),
    preprocessing: JSON.stringify({ ...preprocessing, input }),
    image: layouts[input],
    logits: "[N, classes] before softmax",
    ...(licence === undefined ? {} : { license: licence }),
    ...(source === undefined ? {} : { source }),
  };
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

/** What an exported model says of itself. */
export function readModelMetadata(bytes: Uint8Array<ArrayBuffer>, at?: string): ModelMetadata {
  const { metadata } = readMetadata(bytes, at);
  const { model, labels, preprocessing, license, source } = metadata;
  if (model === undefined || labels === undefined || preprocessing === undefined)
    throw new OrielError("foreign", {
      message: "this ONNX model does not say how pictures are prepared for it and what its outputs are called",
      at,
      help: "models that `oriel export` writes do",
    });
  const { input, ...rest } = JSON.parse(preprocessing) as Preprocessing & { input: ExportInput };
  return { model, classes: JSON.parse(labels) as string[], preprocessing: rest, input, licence: license, source };
}
