import { headNames } from "../backbones/backbone.ts";
import { OrielError } from "../base/errors.ts";
import { staticSize } from "../graph/shape.ts";
import { weightsOf } from "../nn/module.ts";
import type { Classifier } from "../tasks/classify.ts";
import { fileSource } from "../weights/file-source.ts";
import { headBytes, identify } from "../weights/identify.ts";
import { SafetensorsFile } from "../weights/safetensors.ts";
import type { ByteSource } from "../weights/source.ts";
import { toFloat32 } from "../weights/stored.ts";
import { readTorch } from "../weights/torch.ts";
import { type CheckpointMetadata, isWeight, readMetadata, readTensors, type Tensors, weightsIn } from "./checkpoint.ts";
import { isHead } from "./freeze.ts";
import { checkMatch } from "./match.ts";

export interface LoadedWeights {
  /** By the model's paths; what was reset is not among them. */
  values: Map<string, Float32Array<ArrayBuffer>>;
  /** Paths that keep their initial values, since the file's classifier is for other classes. */
  reset: string[];
  /** Set where an Oriel run wrote the file. */
  metadata?: CheckpointMetadata;
}

/** Tensors that other programs keep beside the weights and that a model can do without: counters and tables it works out itself. */
const spare = /(^|\.)(num_batches_tracked|relative_position_index|relative_coords_table|attn_mask)$/;

/**
 * Weights for a model from a checkpoint, a plain safetensors or a torch file.  Names and shapes must agree; only a classifier for
 * other classes may differ, and starts afresh.
 */
export async function loadWeights(
  path: string,
  model: Classifier,
  { name, classes }: { name: string; classes?: readonly string[] },
): Promise<LoadedWeights> {
  const { tensors, metadata } = await readWeights(path);
  const wanted = new Map(weightsOf(model).map((w) => [w.path, { shape: w.tensor.shape as readonly number[] }]));
  const heads = [...wanted.keys()].filter((key) => isHead(key, headNames(model.backbone)));
  const others = heads.some((key) => tensors.get(key)?.shape[0] !== wanted.get(key)?.shape[0]);
  const renamed = classes !== undefined && metadata !== undefined && metadata.classes.join("\n") !== classes.join("\n");
  const reset = others || renamed ? heads : [];
  const compared = (map: Tensors | typeof wanted) => new Map([...map].filter(([key]) => !reset.includes(key)));
  checkMatch(compared(wanted), compared(tensors), { model: name, path, holds: metadata?.model });
  const values = new Map<string, Float32Array<ArrayBuffer>>();
  for (const [key, { shape }] of wanted) {
    const tensor = tensors.get(key);
    if (tensor && !reset.includes(key)) values.set(key, tensor.data.slice(0, staticSize(shape)));
  }
  return { values, reset, metadata };
}

/** Every weight in a file, whatever wrote it. */
export async function readWeights(path: string): Promise<{ tensors: Tensors; metadata?: CheckpointMetadata }> {
  const source = await fileSource(path);
  try {
    const looks = identify(await source.read(0, Math.min(source.size, headBytes)));
    if (looks?.includes("torch")) return { tensors: await readTorchWeights(source) };
    if (looks === "an ONNX model")
      throw new OrielError("foreign", {
        message: "an ONNX model holds its weights under names of its own",
        at: path,
        help: "give a .safetensors or torch file",
      });
    const file = await SafetensorsFile.open(source);
    const metadata = readMetadata(file.metadata);
    const tensors = await readTensors(file, (name) => (metadata ? isWeight(name) : !spare.test(name)));
    return { tensors: weightsIn(tensors), metadata };
  } finally {
    await source.close();
  }
}

async function readTorchWeights(source: ByteSource): Promise<Tensors> {
  const { tensors } = await readTorch(source);
  return new Map(
    [...tensors]
      .filter(([name]) => !spare.test(name))
      .map(([name, tensor]) => [name, { shape: tensor.shape, data: Float32Array.from(toFloat32(tensor)) }]),
  );
}
