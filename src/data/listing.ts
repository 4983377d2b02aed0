import { UsageError } from "../base/errors.ts";
import { some } from "../base/text.ts";
import type { Dataset } from "./dataset.ts";

/** The picture files of a folder or an archive, before anything is known about classes. */
export interface Listing {
  /** The folder or archive, for messages. */
  readonly where: string;
  /** Paths within it, with `/` between the parts, sorted. */
  readonly paths: readonly string[];
  /** Every directory within it, so that an empty one is noticed. */
  readonly directories: readonly string[];
  name(i: number): string;
  read(i: number): Promise<Uint8Array>;
  close?(): Promise<void>;
}

const readable = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "tif", "tiff", "avif", "bmp"];
/** Telephones' pictures cannot be read, which people are to be told rather than that they have none. */
const extensions = new Set([...readable, "heic", "heif"]);

/** Whether a path is a picture's by its extension; what systems put beside people's files (`._x.jpg`, `__MACOSX`) is not. */
export function isPicture(path: string): boolean {
  return extensions.has(path.slice(path.lastIndexOf(".") + 1).toLowerCase()) && !isHidden(path);
}

export const isHidden = (path: string): boolean =>
  path.split("/").some((part) => part === "__MACOSX" || (part.startsWith(".") && part !== "." && part !== ".."));

/** Code-point order, as Python sorts class folders. */
export const byName = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

const topOf = (path: string): string => path.slice(0, path.indexOf("/"));

/** The part of a listing below one of its directories. */
export function below(listing: Listing, directory: string): Listing {
  const start = `${directory}/`;
  const kept = listing.paths.flatMap((path, i) => (path.startsWith(start) ? [i] : []));
  return {
    where: `${listing.where}/${directory}`,
    paths: kept.map((i) => listing.paths[i].slice(start.length)),
    directories: listing.directories.filter((path) => path.startsWith(start)).map((path) => path.slice(start.length)),
    name: (i) => listing.name(kept[i]),
    read: (i) => listing.read(kept[i]),
    close: async () => listing.close?.(),
  };
}

/** Names of the directories at the top. */
export function topDirectories(listing: Listing): string[] {
  const tops = new Set(listing.directories.map((path) => (path.includes("/") ? topOf(path) : path)));
  for (const path of listing.paths) if (path.includes("/")) tops.add(topOf(path));
  return [...tops].sort(byName);
}

/** Class folders: every directory at the top is a class, and every picture below it, at whatever depth, belongs to it. */
export function classFolders(listing: Listing, { minClasses = 2 } = {}): Dataset {
  const classes = topDirectories(listing);
  const inFolders = listing.paths.flatMap((path, i) => (path.includes("/") ? [i] : []));
  const help = "put the pictures of each class into a folder of its own: cats/1.jpg, dogs/7.jpg";
  if (inFolders.length === 0) {
    const { length } = listing.paths;
    const loose = `${length === 1 ? "there is" : "there are"} ${some(length, "picture")}, but no class folders,`;
    throw new UsageError({ message: `${length > 0 ? loose : "there are no pictures"} in ${listing.where}`, help });
  }
  const position = new Map(classes.map((name, i) => [name, i]));
  const labels = Int32Array.from(inFolders, (i) => position.get(topOf(listing.paths[i])) as number);
  const used = new Set(labels);
  const empty = classes.filter((_, i) => !used.has(i));
  if (empty.length > 0) {
    throw new UsageError({
      message: `${empty.length} of the ${classes.length} class folders in ${listing.where} ${empty.length === 1 ? "holds" : "hold"} no pictures`,
      details: empty.slice(0, 20),
      help: `fill them or remove them; pictures end in ${readable.join(", ")}`,
    });
  }
  if (classes.length < minClasses) {
    throw new UsageError({
      message: `${listing.where} has one class only, ${classes[0]}; there is nothing to tell apart`,
      help,
    });
  }
  return {
    classes,
    length: inFolders.length,
    label: (i) => labels[i],
    name: (i) => listing.name(inFolders[i]),
    read: (i) => listing.read(inFolders[i]),
    close: async () => listing.close?.(),
  };
}
