import { readdir, stat } from "node:fs/promises";
import { dirname, join, sep } from "node:path";
import { UsageError } from "../base/errors.ts";
import { chooseWeights } from "./choose.ts";
import { fileSource } from "./file-source.ts";
import { type HubOptions, hubWeights, parseHubName } from "./hub/index.ts";
import {
  type OpenOptions,
  openWeights as openAnywhere,
  openPlace,
  type WeightsFile,
  type WeightsSource,
} from "./open.ts";

/**
 * Opens weights by the path of a file or a folder, by a name on the model hub (`timm/resnet50.a1_in1k`, downloaded once), by an
 * address, or from whatever a page can open them from.
 */
export async function openWeights(
  source: string | WeightsSource,
  options: OpenOptions & HubOptions = {},
): Promise<WeightsFile> {
  if (typeof source !== "string") return openAnywhere(source, options);
  if (/^https?:\/\//.test(source)) return openAnywhere(new URL(source), options);
  const path = await weightsPath(source, options);
  return openPlace({ source: await fileSource(path), sibling: (name) => besideFile(path, name) }, options);
}

/** The file that a path, a folder or a name on the hub stands for; from the hub it is downloaded first. */
export async function weightsPath(source: string, options: HubOptions = {}): Promise<string> {
  const found = await stat(source).catch(() => undefined);
  if (found?.isDirectory()) return join(source, chooseWeights((await readdir(source)).sort(), source));
  const name = found ? undefined : parseHubName(source);
  return name ? hubWeights(name, options) : source;
}

/** A file of the same folder, or below it. */
async function besideFile(path: string, name: string): ReturnType<typeof fileSource> {
  const folder = dirname(path);
  const target = join(folder, name);
  if (!target.startsWith(folder === "." ? "" : folder + sep) || name.split(/[\\/]/).includes("..") || name === "")
    throw new UsageError({ message: `"${name}" would lie outside of the folder`, at: path });
  return fileSource(target);
}
