/** The front door to weights of any format, in Node and in a page; `open-node.ts` adds paths and names on the hub. */
import { OrielError, UsageError } from "../base/errors.ts";
import { formatOf, headBytes, identify, type WeightFormat } from "../base/identify.ts";
import { longestIndex, parseIndex, wrongIndex } from "./index-file.ts";
import { openOnnx } from "./onnx.ts";
import { SafetensorsFile } from "./safetensors.ts";
import { type ByteSource, blobSource } from "./source.ts";
import type { FileTensor } from "./stored.ts";
import { openTorch } from "./torch.ts";
import { urlSource } from "./url-source.ts";
import { namesUnder } from "./wrappings.ts";

/** Weights that lie in a file or in several; nothing but their description is in memory. */
export interface WeightsFile {
  readonly format: Exclude<WeightFormat, "index">;
  /** Names of the files, more than one where the weights are in parts. */
  readonly files: readonly string[];
  /** By the names that the file gives them. */
  readonly tensors: ReadonlyMap<string, FileTensor>;
  /** Free text beside them: epoch, licence, producer. */
  readonly metadata: Readonly<Record<string, string>>;
  /** In a torch file, the entries that the weights were found under, outermost first: `["state_dict"]`. */
  readonly path: readonly string[];
  /** Other entries that hold tensors, for `key`: `["optimizer"]`. */
  readonly others: readonly string[];
  /** Closes the files. */
  close(): Promise<void>;
}

export interface OpenOptions {
  /** The part to take: an entry of a torch file, `state_dict_ema`; what names begin with, `backbone`; or both, `teacher.backbone`. */
  key?: string;
}

/** What weights can be opened from: a dropped file or several that belong together, an address that is read by ranges, or bytes. */
export type WeightsSource = Blob | readonly File[] | URL | ByteSource;

/** A file, and how to reach those beside it. */
export interface Place {
  source: ByteSource;
  /** Opens the file of that name beside this one; an error with the code `not-found` where there is none. */
  sibling?(name: string): Promise<ByteSource>;
}

/**
 * Opens weights of any format: safetensors, whole or in parts; torch files of both kinds; ONNX models.  Only descriptions are read;
 * each tensor is read by ranges when it is asked for.  Parts are found by their index, or from one of them.
 */
export async function openWeights(source: WeightsSource, options: OpenOptions = {}): Promise<WeightsFile> {
  return openPlace(await placeOf(source), options);
}

const isByteSource = (source: WeightsSource): source is ByteSource =>
  typeof (source as ByteSource)?.read === "function";

async function placeOf(source: WeightsSource): Promise<Place> {
  if (source instanceof URL)
    return { source: await urlSource(source), sibling: (name) => urlSource(new URL(encodeURIComponent(name), source)) };
  if (source instanceof Blob) return { source: blobSource(source) };
  if (isByteSource(source)) return { source };
  // What a program without types may hand over: a path, above all.
  if (!Array.isArray(source))
    throw new UsageError({
      message: "this is nothing that weights can be opened from",
      help: "give a File or Blob, an array of Files or a URL; in Node openWeights of oriel/weights takes paths and names on the hub",
    });
  const first = source.find((file) => file.name.endsWith(".index.json")) ?? source[0];
  if (!first) throw new UsageError("no file was given");
  const sibling = async (name: string) => {
    const found = source.find((file) => file.name === name);
    if (!found) throw new OrielError("not-found", { message: "this file was not given", at: name });
    return blobSource(found);
  };
  return { source: blobSource(first), sibling };
}

/** Opens the weights at a place; its files are closed when that fails. */
export async function openPlace(place: Place, options: OpenOptions = {}): Promise<WeightsFile> {
  const { source } = place;
  try {
    const index = await indexBeside(place);
    if (index) {
      await source.close?.();
      return await openPlace({ ...place, source: index }, options);
    }
    const head = await source.read(0, Math.min(source.size, headBytes));
    const format = formatOf(head);
    if (!format) {
      const looks = identify(head);
      throw new OrielError("foreign", {
        message: `no weights that can be read here${looks ? `: it looks like ${looks}` : ""}`,
        at: source.name,
        help: "safetensors, torch and ONNX files can be read",
      });
    }
    return await openers[format](place, options);
  } catch (cause) {
    await source.close?.();
    throw cause;
  }
}

/** How each format is opened. */
const openers: Record<WeightFormat, (place: Place, options: OpenOptions) => Promise<WeightsFile>> = {
  safetensors: async ({ source }, { key }) => {
    const { tensors, metadata } = await SafetensorsFile.open(source);
    return one("safetensors", source, { ...part(tensors, key), metadata });
  },
  torch: openTorchFile,
  "torch-legacy": openTorchFile,
  onnx: async ({ source, sibling }, { key }) => {
    const { tensors, metadata } = await openOnnx(source, sibling);
    return one("onnx", source, { ...part(tensors, key), metadata });
  },
  index: openIndex,
};

async function openTorchFile({ source }: Place, { key }: OpenOptions): Promise<WeightsFile> {
  const { format, tensors, path, others, facts } = await openTorch(source, { key });
  const metadata = Object.fromEntries([...facts].map(([name, value]) => [name, String(value)]));
  return one(format === "zip" ? "torch" : "torch-legacy", source, { tensors, path, others, metadata });
}

/** Tensors whose names begin with the key, where one is given. */
const part = (tensors: ReadonlyMap<string, FileTensor>, key: string | undefined) => ({
  tensors: key === undefined ? tensors : namesUnder(tensors, key),
  path: key === undefined ? [] : [key],
  others: [],
});

const one = (
  format: WeightsFile["format"],
  source: ByteSource,
  content: Pick<WeightsFile, "tensors" | "metadata" | "path" | "others">,
): WeightsFile => ({ format, files: [source.name ?? ""], ...content, close: async () => source.close?.() });

/** `model-00002-of-00005.safetensors`: one of several parts, whose index is called `model.safetensors.index.json`. */
const partName = /([^/\\]*)-\d{5}-of-\d{5}(\.\w+)$/;

/** The index that a part belongs to, where it lies beside it. */
async function indexBeside({ source, sibling }: Place): Promise<ByteSource | undefined> {
  const [, stem, end] = partName.exec(source.name ?? "") ?? [];
  if (stem === undefined || !sibling) return undefined;
  return sibling(`${stem}${end}.index.json`).catch((error) => {
    if (error instanceof OrielError && error.code === "not-found") return undefined;
    throw error;
  });
}

/** Weights in parts: an index says which file each is in.  https://huggingface.co/docs/safetensors/metadata_parsing */
async function openIndex({ source, sibling }: Place, { key }: OpenOptions): Promise<WeightsFile> {
  const wrong = (message: string) => wrongIndex(message, source.name);
  if (source.size > longestIndex) throw wrong(`${source.size} bytes of JSON`);
  const { places, metadata } = parseIndex(await source.read(0, source.size), source.name);
  if (!sibling)
    throw new UsageError({ message: "an index alone holds no weights", at: source.name, help: "give its parts too" });

  const parts: WeightsFile[] = [];
  const tensors = new Map<string, FileTensor>();
  const close = async () => void (await Promise.all([source, ...parts].map((file) => file.close?.())));
  try {
    for (const name of new Set(places.values())) {
      const file = await openPlace({ source: await sibling(name) });
      parts.push(file);
      // The index says where a tensor is; what it does not list is where it is found.
      for (const [tensor, found] of file.tensors) if ((places.get(tensor) ?? name) === name) tensors.set(tensor, found);
    }
    const missing = [...places].filter(([tensor]) => !tensors.has(tensor));
    if (missing.length > 0)
      throw wrong(`"${missing[0][0]}" and ${missing.length - 1} more are not in the files it names, ${missing[0][1]}`);
    if (parts.length === 0) throw wrong("it names no files");
    const files = parts.flatMap((file) => file.files);
    return {
      format: parts[0].format,
      files,
      ...part(tensors, key),
      metadata: { ...parts[0].metadata, ...metadata },
      close,
    };
  } catch (cause) {
    await close();
    throw cause;
  }
}
