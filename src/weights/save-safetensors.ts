import { type NamedTensors, safetensorsParts } from "./safetensors.ts";
import { writeFileSafely } from "./write-file.ts";

/** Saves tensors so that at any moment the path holds the previous file or the new one, whole. */
export async function saveSafetensors(
  path: string,
  tensors: NamedTensors,
  metadata?: Readonly<Record<string, string>>,
): Promise<void> {
  await writeFileSafely(path, safetensorsParts(tensors, metadata));
}
