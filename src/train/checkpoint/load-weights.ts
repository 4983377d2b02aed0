import { lookUpModel } from "../../backbones/index.ts";
import { checkAnyLoaded, type Fit, type Fitted, fitWeights, loadedShare } from "../../weights/fit.ts";
import type { WeightsFile } from "../../weights/open.ts";
import { openWeights } from "../../weights/open-node.ts";
import { type StoredDtype, toFloat32 } from "../../weights/stored.ts";
import { unwrapNames } from "../../weights/wrappings.ts";
import type { OnEvent } from "../run/events.ts";
import type { FloatTensor, Tensors } from "../step/state.ts";
import { type CheckpointMetadata, isWeight, readMetadata, weightsIn } from "./checkpoint.ts";
import { checkFit } from "./match.ts";

export interface LoadedWeights extends Fit {
  /** Paths that keep their initial values. */
  reset: string[];
  /** Set where an Oriel run wrote the file. */
  metadata?: CheckpointMetadata;
}

/** Tensors that other programs keep beside the weights and that a model can do without: counters and tables it works out itself. */
const spare = /(^|\.)(num_batches_tracked|relative_position_index|relative_coords_table|attn_mask)$/;

/** In an ONNX model, constants of other dtypes are shapes, axes and indices. */
const weightDtypes: ReadonlySet<StoredDtype> = new Set(["F32", "F16", "BF16", "F64"]);

/**
 * Weights for a model from a checkpoint, a plain safetensors, a torch file or an ONNX model's initialisers, under whoever's names, adapted to the model.  What does
 * not agree is an error, but for a classifier for other classes, which starts afresh; with `partial`, to train on, everything else may
 * start afresh or be left over too, as long as the file has anything for the model.
 */
export async function loadWeights(
  path: string,
  model: Fitted,
  {
    name,
    classes,
    partial = false,
    onEvent,
  }: { name: string; classes?: readonly string[]; partial?: boolean; onEvent?: OnEvent },
): Promise<LoadedWeights> {
  const { tensors, metadata, format } = await readWeights(path, onEvent);
  const known = await lookUpModel(name);
  const otherClasses =
    classes !== undefined && metadata !== undefined && metadata.classes.join("\n") !== classes.join("\n");
  const fit = fitWeights(model, tensors, { names: known?.names, otherClasses });
  const sides = { model: name, path, holds: metadata?.model };
  if (partial) {
    checkAnyLoaded(fit, sides);
    // What another model happens to share with this one is no beginning.
    if (metadata && metadata.model !== name && loadedShare(fit) < leastShare) checkFit(fit, sides);
  } else {
    // What is left over of an ONNX model are constants of its graph.
    const wanted = format === "onnx" ? fit.entries.filter(({ status }) => status !== "left over") : fit.entries;
    checkFit({ ...fit, entries: wanted }, sides);
  }
  const reset = fit.entries.flatMap((entry) => (entry.status === "reset" ? [entry.name] : []));
  return { ...fit, reset, metadata };
}

/** The share of the parameters that a checkpoint of another model must have for this one. */
const leastShare = 0.5;

/** Whose weights a file holds, as far as it says. */
export interface Origin {
  licence?: string;
  source?: string;
}

/** What a file says of its weights: what a run that began with them wrote, or the metadata of another program. */
export async function originOf(path: string, onEvent?: OnEvent): Promise<Origin> {
  const { metadata, close } = await openWeights(path, { onEvent });
  await close();
  const { licence, source } = readMetadata(metadata, path)?.config ?? {
    licence: metadata.license ?? metadata.licence,
    source: metadata.source,
  };
  return { licence, source };
}

/** Every weight at a path or under a name on the hub, whatever wrote it. */
export async function readWeights(
  path: string,
  onEvent?: OnEvent,
): Promise<{ tensors: Tensors; metadata?: CheckpointMetadata; format: WeightsFile["format"] }> {
  const file = await openWeights(path, { onEvent });
  try {
    const metadata = readMetadata(file.metadata, path);
    const tensors = new Map<string, FloatTensor>();
    for (const [name, tensor] of metadata ? file.tensors : unwrapNames(file.tensors)) {
      if (metadata ? !isWeight(name) : spare.test(name)) continue;
      if (file.format === "onnx" && !weightDtypes.has(tensor.dtype)) continue;
      tensors.set(name, { shape: tensor.shape, data: Float32Array.from(toFloat32(await tensor.read())) });
    }
    return { tensors: weightsIn(tensors), metadata, format: file.format };
  } finally {
    await file.close();
  }
}
