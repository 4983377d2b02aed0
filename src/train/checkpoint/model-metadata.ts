import type { Preprocessing } from "../../backbones/index.ts";
import { OrielError } from "../../base/errors.ts";
import { readMetadata } from "../../graph/onnx/read.ts";
import { isCount } from "../../graph/shape.ts";
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
      help: "models that `oriel export` writes do, and those that are written with encodeModelMetadata",
    });
  const read = <T>(key: string, value: unknown, isIt: (value: unknown) => value is T): T => {
    if (isIt(value)) return value;
    throw new OrielError("foreign", {
      message: `what the model's metadata has as ${key} is none`,
      at,
      help: "encodeModelMetadata writes it as it is read here",
    });
  };
  const { input = "float32", output = "logits", ...steps } = Object(jsonOf(preprocessing));
  return {
    model,
    classes: read("labels", jsonOf(labels), areClasses),
    preprocessing: read("preprocessing", steps, isPreprocessing),
    input: read("input", input, (value) => isOneOf(inputs, value)),
    output: read("output", output, (value) => isOneOf(outputs, value)),
    licence: license,
    source,
  };
}

/** The value of a JSON text; undefined where it is none. */
export function jsonOf(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}

const inputs: readonly ExportInput[] = ["float32", "uint8"];
const outputs: readonly ExportOutput[] = ["logits", "probabilities"];
const isOneOf = <T>(known: readonly T[], value: unknown): value is T => known.includes(value as T);
const areNumbers = (told: unknown): boolean =>
  Array.isArray(told) && told.length === 3 && told.every((x) => Number.isFinite(x));

/** Whether what a file says are the names of classes. */
export const areClasses = (told: unknown): told is string[] =>
  Array.isArray(told) && told.length > 0 && told.every((name) => typeof name === "string");

/** Whether what a file says is how pictures are prepared for a model. */
export function isPreprocessing(told: unknown): told is Preprocessing {
  if (typeof told !== "object" || told === null) return false;
  const { imageSize, cropPct, cropMode, interpolation, mean, std } = told as Partial<Preprocessing>;
  const crops = typeof cropPct === "number" && cropPct > 0 && isOneOf([undefined, "center", "squash"], cropMode);
  return (
    isCount(imageSize) &&
    crops &&
    isOneOf(["bicubic", "bilinear"], interpolation) &&
    areNumbers(mean) &&
    areNumbers(std)
  );
}

/** What a model is to say of itself, as the metadata that `writeOnnx` takes. */
export function encodeModelMetadata({
  model,
  classes,
  preprocessing,
  input = "float32",
  output = "logits",
  licence,
  source,
}: ModelDescription & Partial<ModelMetadata>): Record<string, string> {
  const { imageSize, mean, std } = preprocessing;
  const layouts = {
    float32: `RGB, float32 [N, 3, ${imageSize}, ${imageSize}], (pixel / 255 - mean) / std with mean ${mean.join(" ")} and std ${std.join(" ")}`,
    uint8: `RGB, uint8 [N, ${imageSize}, ${imageSize}, 3], pixels as they are`,
  };
  return {
    model,
    labels: JSON.stringify(classes),
    preprocessing: JSON.stringify({ ...preprocessing, input, output }),
    image: layouts[input],
    [output]: output === "logits" ? "[N, classes] before softmax" : "[N, classes], each row sums to 1",
    ...(licence === undefined ? {} : { license: licence }),
    ...(source === undefined ? {} : { source }),
  };
}
