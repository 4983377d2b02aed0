/** The index of weights in parts, `model.safetensors.index.json`.  https://huggingface.co/docs/safetensors/metadata_parsing */
import { OrielError } from "../base/errors.ts";

/** An index of hundreds of thousands of tensors takes some megabytes. */
export const longestIndex = 2 ** 26;

export interface WeightsIndex {
  /** By a tensor's name, the name of the file that it is in. */
  places: Map<string, string>;
  metadata: Record<string, string>;
}

export const wrongIndex = (message: string, at?: string): OrielError =>
  new OrielError("malformed", { message: `not an index of weights: ${message}`, at });

export function parseIndex(bytes: Uint8Array, at?: string): WeightsIndex {
  let index: unknown;
  try {
    index = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw wrongIndex((cause as Error).message, at);
  }
  const { weight_map: map, metadata } = isRecord(index) ? index : {};
  if (!isRecord(map)) throw wrongIndex("it has no weight_map", at);
  const places = Object.entries(map).map(([tensor, file]): [string, string] => {
    if (typeof file !== "string") throw wrongIndex(`"${tensor}" is in no file`, at);
    if (/[\\/]/.test(file) || file.startsWith(".")) throw wrongIndex(`its file "${file}" would lie elsewhere`, at);
    return [tensor, file];
  });
  const plain = Object.entries(isRecord(metadata) ? metadata : {}).filter(([, value]) => typeof value !== "object");
  return { places: new Map(places), metadata: Object.fromEntries(plain.map(([key, value]) => [key, String(value)])) };
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
