import { type FileHandle, mkdir, open, rename, rm, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { OrielError } from "../base/errors.ts";

/** Writes under way, by path: a second one to the same path waits, since both use the same temporary name. */
const underWay = new Map<string, Promise<void>>();

/** A file's bytes, in pieces of any length. */
type Parts = Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

/**
 * Writes a file beside its place and renames it there once it is on the disk, so that a reader, a kill or a full disk meets
 * the old file or the new one, whole.  A kill leaves `<path>.part` behind, which the next write replaces.  What goes wrong is told of
 * `place`, where the file is to lie in the end.
 */
export async function writeFileSafely(path: string, parts: Parts, place = path): Promise<void> {
  const target = resolve(path);
  const before = underWay.get(target) ?? Promise.resolve();
  const write = before.catch(() => {}).then(() => writeAndRename(target, parts));
  underWay.set(target, write);
  try {
    await write;
  } catch (cause) {
    throw failure(cause, place);
  } finally {
    if (underWay.get(target) === write) underWay.delete(target);
  }
}

async function writeAndRename(path: string, parts: Parts): Promise<void> {
  const part = `${path}.part`;
  const file = await open(part, "w");
  try {
    try {
      for await (const bytes of parts) await writeAll(file, bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(part, path);
  } catch (error) {
    await rm(part, { force: true });
    throw error;
  }
  await syncFolder(dirname(path));
}

/** Node's `write` takes at most 2³¹ - 1 bytes and may take fewer than it is given. */
async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.byteLength; ) {
    at += (await file.write(bytes, at, Math.min(2 ** 30, bytes.byteLength - at))).bytesWritten;
  }
}

/** Makes the rename itself last through a power cut; where folders cannot be opened (Windows) the system sees to it. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r").catch(() => undefined);
  await folder?.sync().catch(() => {});
  await folder?.close();
}

const reasons: Record<string, readonly [reason: string, help?: string]> = {
  ENOSPC: ["no space left", "free some space or save elsewhere"],
  EDQUOT: ["the disk quota was reached", "free some space or save elsewhere"],
  EFBIG: ["the file is larger than this file system or a limit allows"],
  ENOENT: ["the folder does not exist", "create it, or check the path"],
  ENOTDIR: ["part of the path is not a folder"],
  EISDIR: ["the path is a folder", "name a file in it"],
  EACCES: ["no permission to write there"],
  EPERM: ["no permission to write there"],
  EROFS: ["the disk is read-only"],
};

/** Why a file could not be saved, for people. */
export function failure(cause: unknown, path: string): unknown {
  const reason = reasons[(cause as NodeJS.ErrnoException).code ?? ""];
  if (!reason) return cause;
  return new OrielError("not-saved", {
    message: `${reason[0]} while saving ${path}; a previous file there is untouched`,
    help: reason[1],
    cause,
  });
}

/**
 * Makes a folder and those that it lies in; -> whether it was not there.  Node's own recursive way never returns where a folder that is
 * there denies having been found, as those of /proc do.
 */
export async function makeFolder(path: string): Promise<boolean> {
  try {
    await mkdir(path);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EEXIST" && (await stat(path)).isDirectory()) return false;
    if (code !== "ENOENT" || dirname(path) === path) throw error;
  }
  await makeFolder(dirname(path));
  await mkdir(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EEXIST") throw error; // else somebody has made it in the meantime
  });
  return true;
}

/** Whether two paths lead to one file that is there. */
export async function sameFile(a: string, b: string): Promise<boolean> {
  const [one, other] = await Promise.all([a, b].map((path) => stat(path).catch(() => undefined)));
  return one !== undefined && one.ino === other?.ino && one.dev === other.dev;
}
