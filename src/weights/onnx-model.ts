/** ONNX files on disk, with the files of weights that may lie beside them. */
import { realpath } from "node:fs/promises";
import { dirname, isAbsolute, join, relative, resolve, sep } from "node:path";
import { OrielError } from "../base/errors.ts";
import { type ExternalPlace, externalTensors, loadExternal, type OnnxModel, readModel } from "../graph/onnx/model.ts";
import { fileSource, readWhole } from "./file-source.ts";
import type { ByteSource } from "./source.ts";

/** Reads a model from a file.  Weights in other files are read by ranges, and only from the model's own folder. */
export async function openOnnxModel(path: string): Promise<OnnxModel> {
  const model = readModel(await readWhole(path), path);
  const open = new Map<string, ByteSource & { close(): Promise<void> }>();
  try {
    return await loadExternal(model, async ({ location, offset, length }: ExternalPlace) => {
      const file = await besideModel(path, location);
      const opened = open.get(file) ?? (await fileSource(file));
      open.set(file, opened);
      return opened.read(offset, length);
    });
  } finally {
    for (const opened of open.values()) await opened.close();
  }
}

/** The files that a model's weights lie in besides its own, by the names that it gives them. */
export const filesBeside = (model: OnnxModel): string[] => [
  ...new Set(externalTensors(model).map((tensor) => tensor.external!.location)),
];

/** A file in the model's folder or below.  A name that leads out of it, be it through a link, is refused. */
export async function besideModel(model: string, location: string): Promise<string> {
  const refuse = (why: string): OrielError =>
    new OrielError("refused", {
      message: `the model wants weights from "${location}", ${why}`,
      at: model,
      help: "weights lie in the model's own folder or below it",
    });
  if (isAbsolute(location) || /^[a-z]:|\\|^\w+:\/\/|\0/i.test(location)) throw refuse("which is no relative path");
  const folder = resolve(dirname(model));
  const inside = (from: string, file: string): boolean => {
    const way = relative(from, file);
    return way !== "" && way !== ".." && !way.startsWith(`..${sep}`) && !isAbsolute(way);
  };
  const file = join(folder, location);
  if (!inside(folder, file)) throw refuse("which lies outside its folder");
  const real = await realpath(file).catch((cause) => {
    throw new OrielError("not-found", {
      message: `the weights of the model lie in ${location}, which is not there`,
      at: model,
      cause,
    });
  });
  if (!inside(await realpath(folder), real)) throw refuse("which leads outside its folder");
  return file;
}
