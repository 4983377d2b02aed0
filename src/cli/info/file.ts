import { existsSync } from "node:fs";
import type { WeightsFile } from "../../weights/open.ts";
import { byteLengthOf, countOf, type StoredDtype } from "../../weights/stored.ts";
import { bytes, count, styled, table } from "../out.ts";

/** What `oriel info` tells of a file. */
export interface FileInfo {
  format: WeightsFile["format"];
  files: readonly string[];
  /** The entries of a torch file that the weights were found under, and others that hold tensors. */
  path: readonly string[];
  others: readonly string[];
  licence?: string;
  metadata: Readonly<Record<string, string>>;
  tensors: readonly { name: string; dtype: StoredDtype; shape: readonly number[] }[];
  /** Values and bytes in all, and by dtype. */
  values: number;
  bytes: number;
  dtypes: Readonly<Record<string, { tensors: number; values: number; bytes: number }>>;
}

/** Whether a word means a file, a folder, an address or a name on the hub, rather than a model of ours. */
export const meansFile = (word: string): boolean =>
  /[/\\:]|\.(safetensors|onnx|pth?|th|bin|json|tar|ckpt)$/.test(word) || existsSync(word);

/** Adds up what a file says of its tensors; none of them is read. */
export function infoOf(file: WeightsFile): FileInfo {
  const { format, files, path, others, metadata } = file;
  const tensors = [...file.tensors].map(([name, { dtype, shape }]) => ({ name, dtype, shape }));
  const dtypes: Record<string, { tensors: number; values: number; bytes: number }> = {};
  for (const { dtype, shape } of tensors) {
    dtypes[dtype] ??= { tensors: 0, values: 0, bytes: 0 };
    dtypes[dtype].tensors++;
    dtypes[dtype].values += countOf(shape);
    dtypes[dtype].bytes += byteLengthOf(dtype, shape);
  }
  const sum = (key: "values" | "bytes") => Object.values(dtypes).reduce((total, entry) => total + entry[key], 0);
  const licence = metadata.license ?? metadata.licence;
  return {
    format,
    files,
    path,
    others,
    licence,
    metadata,
    tensors,
    values: sum("values"),
    bytes: sum("bytes"),
    dtypes,
  };
}

const formats: Record<WeightsFile["format"], string> = {
  safetensors: "safetensors",
  torch: "torch, zip form",
  "torch-legacy": "torch, legacy form",
  onnx: "ONNX",
};

/** Free text is shown up to this length. */
const longest = 100;

export function describeFile(info: FileInfo): string {
  const { format, files, path, others, metadata, tensors, dtypes } = info;
  const found = path.length > 0 ? [`under ${path.map((name) => `"${name}"`).join(", ")}`] : [];
  const more = others.length > 0 ? [`other entries with tensors, for --key: ${others.join(", ")}`] : [];
  const kinds = Object.entries(dtypes).map(([dtype, entry]) => `${count(entry.values)} ${dtype}`);
  return [
    `${styled("bold", files[0])}${files.length > 1 ? ` and ${files.length - 1} more` : ""}`,
    [formats[format], ...found, ...more].join("; "),
    `${tensors.length} tensors, ${count(info.values)} values, ${bytes(info.bytes)}: ${kinds.join(", ")}`,
    ...Object.entries(metadata).map(([key, value]) => `${key}: ${short(value)}`),
    "",
    table(
      ["tensor", "dtype", "shape", "values"],
      tensors.map(({ name, dtype, shape }) => [name, dtype, `[${shape.join(", ")}]`, count(countOf(shape))]),
    ),
  ].join("\n");
}

function short(text: string): string {
  const line = text.replaceAll(/\s+/g, " ");
  return line.length > longest ? `${line.slice(0, longest - 1)}…` : line;
}
