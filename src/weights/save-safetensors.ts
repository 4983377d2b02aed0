import { basename, dirname, join } from "node:path";
import { UsageError } from "../base/errors.ts";
import { allStored, bytesOf, layOutSafetensors, type NamedTensors, type SafetensorsLayout } from "./safetensors.ts";
import { byteLengthOf } from "./stored.ts";
import { writeFileSafely } from "./write-file.ts";

type Metadata = Readonly<Record<string, string>>;

/**
 * Saves tensors so that at any moment the path holds the previous file or the new one, whole.  Tensors that are still in another
 * file are copied one after another, so that no more than one is in memory.
 */
export async function saveSafetensors(path: string, tensors: NamedTensors, metadata?: Metadata): Promise<void> {
  await writeFileSafely(path, parts(layOutSafetensors(tensors, metadata)));
}

async function* parts({ header, tensors }: SafetensorsLayout): AsyncGenerator<Uint8Array> {
  yield header;
  for (const [name, tensor] of tensors) yield await bytesOf(name, tensor);
}

/**
 * Saves tensors in files of at most `maxBytes` of weights each, `model-00001-of-00003.safetensors`, and beside them the index that
 * says where each is, `model.safetensors.index.json`; in one file where they fit.  A tensor larger than that has a file of its own.
 * Gives the paths written, the index last.
 */
export async function saveShardedSafetensors(
  path: string,
  tensors: NamedTensors,
  maxBytes: number,
  metadata?: Metadata,
): Promise<string[]> {
  if (!path.endsWith(".safetensors")) throw new UsageError(`"${path}" should end in .safetensors`);
  const named = allStored(tensors);
  layOutSafetensors(named); // names and lengths are checked before anything is written
  const shards: (typeof named)[] = [];
  let room = 0;
  for (const entry of named) {
    const bytes = byteLengthOf(entry[1].dtype, entry[1].shape);
    if (bytes > room || shards.length === 0) {
      shards.push([]);
      room = maxBytes;
    }
    shards[shards.length - 1].push(entry);
    room -= bytes;
  }
  if (shards.length <= 1) {
    await saveSafetensors(path, named, metadata);
    return [path];
  }
  const stem = basename(path, ".safetensors");
  const five = (n: number) => String(n).padStart(5, "0");
  const files = shards.map((_, i) => `${stem}-${five(i + 1)}-of-${five(shards.length)}.safetensors`);
  for (const [i, shard] of shards.entries()) await saveSafetensors(join(dirname(path), files[i]), shard, metadata);
  const places = shards.flatMap((shard, i) => shard.map(([name]) => [name, files[i]] as const));
  const index = {
    metadata: { total_size: named.reduce((sum, [, { dtype, shape }]) => sum + byteLengthOf(dtype, shape), 0) },
    weight_map: Object.fromEntries(places),
  };
  await writeFileSafely(`${path}.index.json`, [new TextEncoder().encode(`${JSON.stringify(index, null, 2)}\n`)]);
  return [...files.map((file) => join(dirname(path), file)), `${path}.index.json`];
}
