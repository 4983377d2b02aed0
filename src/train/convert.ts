import { extname } from "node:path";
import { findModel } from "../backbones/index.ts";
import { OrielError, UsageError } from "../base/errors.ts";
import type { DType } from "../graph/dtype.ts";
import { type OnnxModel, tensorBytes } from "../graph/onnx/model.ts";
import { fileSource } from "../weights/file-source.ts";
import { headBytes, identify } from "../weights/identify.ts";
import { openOnnxModel } from "../weights/onnx-model.ts";
import { SafetensorsFile } from "../weights/safetensors.ts";
import { saveSafetensors } from "../weights/save-safetensors.ts";
import type { StoredDtype, StoredTensor } from "../weights/stored.ts";
import { readTorch } from "../weights/torch.ts";
import { exportClassifier, exportModel } from "./export.ts";
import { loadWeights } from "./load-weights.ts";
import { createModel } from "./model.ts";

export type ConvertFormat = "safetensors" | "torch" | "onnx";

export interface ConvertOptions {
  /** The model that plain weights are for: an ONNX file holds a graph too. */
  model?: string;
}

/** What was done. */
export interface Converted {
  from: ConvertFormat;
  to: ConvertFormat;
  file: string;
  tensors: number;
  bytes: number;
  /** The model whose graph was drawn. */
  model?: string;
  /** How far the written graph's answers are from the model's, relative to the largest; of ONNX files. */
  difference?: number;
}

const endings: Readonly<Record<string, ConvertFormat>> = {
  ".safetensors": "safetensors",
  ".pth": "torch",
  ".pt": "torch",
  ".th": "torch",
  ".bin": "torch",
  ".onnx": "onnx",
};

/**
 * Writes weights in another format, every bit as it was: torch files and safetensors to safetensors, an ONNX model's initialisers under
 * their names to safetensors, weights of a model that is known here to ONNX.
 */
export async function convert(source: string, file: string, { model }: ConvertOptions = {}): Promise<Converted> {
  const to = endings[extname(file).toLowerCase()];
  if (!to)
    throw new UsageError({
      message: `the format of ${file} is not known by its name`,
      help: "let it end in .safetensors or .onnx",
    });
  if (to === "torch")
    throw new UsageError({
      message: "torch files are read here, not written",
      help: "write .safetensors: in Python, safetensors.torch.load_file reads it",
    });
  const read = await readWeightsOf(source);
  if (to === "onnx") return toOnnx(source, file, read, model);
  if (model !== undefined) throw new UsageError("--model goes with an .onnx file to write");
  await saveSafetensors(file, read.tensors, read.metadata);
  return { from: read.format, to, file, ...measure(read.tensors) };
}

interface Read {
  format: ConvertFormat;
  tensors: ReadonlyMap<string, StoredTensor>;
  metadata?: Readonly<Record<string, string>>;
}

const measure = (tensors: ReadonlyMap<string, StoredTensor>) => ({
  tensors: tensors.size,
  bytes: [...tensors.values()].reduce((sum, { data }) => sum + data.byteLength, 0),
});

/** Every tensor of a file, as it lies there. */
async function readWeightsOf(path: string): Promise<Read> {
  const source = await fileSource(path);
  try {
    const looks = identify(await source.read(0, Math.min(source.size, headBytes)));
    if (looks === "an ONNX model") return { format: "onnx", ...initializersOf(await openOnnxModel(path)) };
    if (looks?.includes("torch")) return { format: "torch", tensors: (await readTorch(source)).tensors };
    const file = await SafetensorsFile.open(source);
    const tensors = new Map<string, StoredTensor>();
    for (const name of file.names) tensors.set(name, await file.read(name));
    return { format: "safetensors", tensors, metadata: file.metadata };
  } finally {
    await source.close();
  }
}

const storedDtypes: Readonly<Partial<Record<DType, StoredDtype>>> = {
  float32: "F32",
  float64: "F64",
  float16: "F16",
  bfloat16: "BF16",
  int64: "I64",
  int32: "I32",
  int16: "I16",
  int8: "I8",
  uint64: "U64",
  uint32: "U32",
  uint16: "U16",
  uint8: "U8",
  bool: "BOOL",
};

function initializersOf(model: OnnxModel): Omit<Read, "format"> {
  const tensors = new Map<string, StoredTensor>();
  for (const [name, tensor] of model.graph.initializers)
    tensors.set(name, {
      dtype: storedDtypes[tensor.dtype] as StoredDtype,
      shape: tensor.shape,
      data: tensorBytes(tensor, model.at),
    });
  if (tensors.size === 0)
    throw new OrielError("onnx", {
      message: "the model has no initialisers: there are no weights in it",
      at: model.at,
    });
  return { tensors, metadata: model.metadata };
}

/** Weights become a graph of their model. */
async function toOnnx(source: string, file: string, read: Read, name: string | undefined): Promise<Converted> {
  const { format: from, metadata } = read;
  if (from === "onnx") throw new UsageError("the file is an ONNX model already");
  const done = { from, to: "onnx" as const, file, ...measure(read.tensors) };
  if (metadata?.format === "oriel") {
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
  const head = read.tensors.get(`${create().headName}.weight`);
  const classes = Array.from({ length: head?.shape[0] ?? 1000 }, (_, i) => String(i));
  const description = { model, classes, preprocessing };
  const drawn = await createModel(description);
  const { values } = await loadWeights(source, drawn, { name: model });
  const { difference } = await exportClassifier({ description, model: drawn, values }, file, { fuse: false });
  return { ...done, model, difference };
}
