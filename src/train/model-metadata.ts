import type { Preprocessing } from "../backbones/index.ts";
import { OrielError } from "../base/errors.ts";
import { readMetadata } from "../graph/onnx/read.ts";
import type { ModelDescription } from "./model.ts";

/**
 * How an exported model takes pictures.  "float32", the default, is what other tools export and expect: [N, 3, H, W], normalised by
 * the reader as the metadata says.  "uint8" is a picture's own bytes, [N, H, W, 3]: the graph normalises them, so that nothing
 * can be done wrong but the resizing.
 */
export type ExportInput = "float32" | "uint8";

/** What an exported model gives: `logits`, or the `probabilities` that a softmax makes of them. */
export type ExportOutput = "logits" | "probabilities";

/** What the metadata of an exported model says. */
export interface ModelMetadata extends ModelDescription {
  input: ExportInput;
  output: ExportOutput;
  licence?: string;
  /** Where the weights come from that the model was trained on from. */
  source?: string;
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
  const told = JSON.parse(preprocessing) as Preprocessing & { input: ExportInput; output?: ExportOutput };
  const { input, output = "logits", ...rest } = told;
  const classes = JSON.parse(labels) as string[];
  return { model, classes, preprocessing: rest, input, output, licence: license, source };
}
