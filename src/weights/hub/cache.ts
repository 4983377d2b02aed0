/**
 * The cache that Python's huggingface_hub keeps, so that both use the same files:
 *
 *     models--timm--resnet50.a1_in1k/
 *       blobs/<etag>                      contents, by their hashes
 *       refs/main                         the commit that a branch or tag stood for
 *       snapshots/<commit>/<file>         links to the blobs
 *
 * https://huggingface.co/docs/huggingface_hub/guides/manage-cache
 */
import { copyFile, readdir, readFile, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { OrielError } from "../../base/errors.ts";
import { makeFolder } from "../write-file.ts";

/** A repository's folder in the cache. */
export class HubCache {
  readonly folder: string;

  constructor(cache: string, repo: string) {
    this.folder = join(cache, `models--${repo.replaceAll("/", "--")}`);
  }

  /** The commit that a revision stood for when it was last asked. */
  async commitOf(revision: string): Promise<string | undefined> {
    if (isCommit(revision)) return revision;
    const text = await readFile(join(this.folder, "refs", checked(revision)), "utf8").catch(() => "");
    return isCommit(text.trim()) ? text.trim() : undefined;
  }

  /** A file of a commit where it is there. */
  async find(commit: string, file: string): Promise<string | undefined> {
    const path = this.snapshot(commit, file);
    return (await stat(path).catch(() => undefined))?.isFile() ? path : undefined;
  }

  /** Names of the files of a commit that are there. */
  async list(commit: string): Promise<string[]> {
    const root = join(this.folder, "snapshots", commit);
    const entries = await readdir(root, { recursive: true, withFileTypes: true }).catch(() => []);
    return entries
      .filter((entry) => !entry.isDirectory())
      .map((entry) => relative(root, join(entry.parentPath ?? entry.path, entry.name)).replaceAll("\\", "/"))
      .sort();
  }

  snapshot(commit: string, file: string): string {
    return join(this.folder, "snapshots", commit, checked(file));
  }

  blob(etag: string): string {
    if (!/^[\w.-]{4,128}$/.test(etag) || etag.startsWith("."))
      throw new OrielError("hub", `the server gave the hash "${etag}", which is none`);
    return join(this.folder, "blobs", etag);
  }

  async remember(revision: string, commit: string): Promise<void> {
    if (revision === commit || (await this.commitOf(revision)) === commit) return;
    const path = join(this.folder, "refs", checked(revision));
    await makeFolder(dirname(path));
    await inOneGo(path, (part) => writeFile(part, commit));
  }

  /** Puts a blob under a file's name: by a link, or a copy where the system has no links. */
  async link(commit: string, file: string, blob: string): Promise<string> {
    const path = this.snapshot(commit, file);
    await makeFolder(dirname(path));
    await inOneGo(path, (part) => symlink(relative(dirname(path), blob), part).catch(() => copyFile(blob, part)));
    return path;
  }
}

/** Makes a file under another name and renames it, since several processes may do the same. */
async function inOneGo(path: string, make: (part: string) => Promise<void>): Promise<void> {
  const part = `${path}.${process.pid}.${Math.random().toString(36).slice(2)}.tmp`;
  try {
    await make(part);
    await rename(part, path);
  } finally {
    await rm(part, { force: true });
  }
}

export const isCommit = (text: string): boolean => /^[0-9a-f]{40}$/.test(text);

/** A name from elsewhere that is to be a path below here, as one. */
export function checked(name: string): string {
  const parts = name.split("/");
  if (parts.every((part) => part !== "" && part !== "." && part !== ".." && !/[\\\0:]/.test(part)))
    return join(...parts);
  throw new OrielError("hub", `"${name}" is no name of anything in a repository`);
}
