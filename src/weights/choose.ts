import { UsageError } from "../base/errors.ts";

/** Names of files with weights, the best first: whole or in parts, without code before pickles. */
const usual = [
  "model.safetensors",
  "model.safetensors.index.json",
  "pytorch_model.bin",
  "pytorch_model.bin.index.json",
  "open_clip_model.safetensors",
];

/** Kinds of files that are taken when there is just one of the kind, in this order. */
const kinds = [".safetensors.index.json", ".safetensors", ".bin.index.json", ".bin", ".pth", ".pt", ".th", ".onnx"];

/** Which of a folder's files its weights are; where that is not clear, the error lists them. */
export function chooseWeights(names: readonly string[], at: string): string {
  const found = usual.find((name) => names.includes(name));
  if (found) return found;
  const ofKind = kinds.map((end) => names.filter((name) => name.endsWith(end))).filter((list) => list.length > 0);
  if (ofKind[0]?.length === 1) return ofKind[0][0];
  throw new UsageError({
    message: ofKind.length === 0 ? "there are no weights in it" : "there are several files of weights in it",
    at,
    details: ofKind.length === 0 ? names.slice(0, 20) : ofKind.flat().slice(0, 20),
    help: ofKind.length === 0 ? undefined : "name one of them",
  });
}
