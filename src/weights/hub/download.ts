/** Downloads a file so that an interruption costs nothing that has arrived, and nothing wrong ever lies under its name. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, open, readdir, rename, rm, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";
import { OrielError } from "../../base/errors.ts";
import { type Answer, type HttpOptions, PassingError, retrying } from "../http.ts";
import { makeFolder } from "../write-file.ts";

export interface Download extends HttpOptions {
  /** Where the file is to lie; what has arrived of it lies beside, in a file that ends in `.incomplete`. */
  path: string;
  /** Bytes, where the server told. */
  size?: number;
  /** Its hash: SHA-256, or git's SHA-1 of a blob; other forms are not checked. */
  hash: string;
  /** What the file is called in messages. */
  name: string;
  /** Asks for the bytes from `offset` on. */
  get(offset: number): Promise<Answer>;
  onProgress?(done: number, total: number | undefined): void;
}

/** Downloads under way in this process. */
const underWay = new Map<string, Promise<void>>();

/** Downloads once, however often it is asked for at the same time, here or in other processes of this machine. */
export async function download(wanted: Download): Promise<void> {
  const { path } = wanted;
  const running = underWay.get(path) ?? start(wanted).finally(() => underWay.delete(path));
  underWay.set(path, running);
  await running;
}

async function start(wanted: Download): Promise<void> {
  await makeFolder(dirname(wanted.path));
  const part = await claim(wanted.path, wanted.signal);
  if (!part) return;
  const resumed = await bytesOf(part);
  await fill(part, wanted);
  if (!(await isRight(part, wanted.hash))) {
    await rm(part, { force: true });
    // What was there before may have been of another file; what has just arrived in one go cannot.
    if (resumed > 0) await fill(part, wanted);
    if (resumed === 0 || !(await isRight(part, wanted.hash))) {
      await rm(part, { force: true });
      throw new OrielError("wrong-hash", {
        message: `what arrived as ${wanted.name} is not what the server announced: its hash is not ${wanted.hash}`,
        help: "try again; if it stays so, a proxy or mirror changes the file",
      });
    }
  }
  await rename(part, wanted.path);
}

const bytesOf = async (path: string) => (await stat(path).catch(() => undefined))?.size ?? 0;

/** Seconds between looks at what another process does, and after which a file that nobody writes to counts as left behind. */
const look = 0.2;
const leftBehind = 600;

/**
 * The name of this process's partial file, with what an earlier one left behind in it; nothing once the whole file is there.  Waits
 * while another process downloads.  Renaming is what claims a file: of several processes it succeeds in one.
 */
async function claim(path: string, signal?: AbortSignal): Promise<string | undefined> {
  const own = `${path}.${hostname()}-${process.pid}.incomplete`;
  for (;;) {
    signal?.throwIfAborted();
    if (await stat(path).catch(() => undefined)) return undefined;
    const names = await readdir(dirname(path));
    const parts = names.filter((name) => name.startsWith(`${basename(path)}.`) && name.endsWith(".incomplete"));
    if (parts.includes(basename(own))) return own;
    const states = await Promise.all(parts.map((name) => isAbandoned(join(dirname(path), name))));
    const free = parts.find((_, i) => states[i]);
    if (free !== undefined) await rename(join(dirname(path), free), own).catch(() => {});
    else if (parts.length === 0) return own;
    else await new Promise((resolve) => setTimeout(resolve, 1000 * look));
  }
}

async function isAbandoned(part: string): Promise<boolean> {
  const found = await stat(part).catch(() => undefined);
  if (!found) return false;
  if (Date.now() - found.mtimeMs > 1000 * leftBehind) return true;
  const [, pid] = /-(\d+)\.incomplete$/.exec(part) ?? [];
  return pid !== undefined && part.endsWith(`.${hostname()}-${pid}.incomplete`) && !isRunning(Number(pid));
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}

/** Appends what is missing, over as many connections as it takes: a failure after which more is there than before does not count. */
async function fill(part: string, wanted: Download): Promise<void> {
  for (;;) {
    const before = await bytesOf(part);
    try {
      return await retrying(() => append(part, wanted), wanted);
    } catch (error) {
      if (!(error instanceof PassingError) || (await bytesOf(part)) <= before) throw error;
    }
  }
}

async function append(part: string, wanted: Download): Promise<void> {
  let file: FileHandle | undefined;
  try {
    file = await open(part, "a");
    let done = (await file.stat()).size;
    if (wanted.size !== undefined && done > wanted.size) {
      await file.truncate(0);
      done = 0;
    }
    wanted.onProgress?.(done, wanted.size);
    if (done === wanted.size) return;
    const answer = await wanted.get(done);
    const { status, headers } = answer.response;
    if (done > 0 && (status !== 206 || !headers.get("content-range")?.startsWith(`bytes ${done}-`))) {
      // The server knows no ranges, or no such range: from the beginning.
      await file.truncate(0);
      done = 0;
      if (status !== 200) {
        answer.close();
        throw new PassingError(`the server does not go on where ${wanted.name} broke off`, wanted.name);
      }
    }
    for await (const bytes of answer.pieces()) {
      done += bytes.byteLength;
      if (wanted.size !== undefined && done > wanted.size)
        throw new OrielError(
          "hub",
          `the server sends more of ${wanted.name} than the ${wanted.size} bytes it announced`,
        );
      await file.appendFile(bytes);
      wanted.onProgress?.(done, wanted.size);
    }
    if (wanted.size !== undefined && done < wanted.size)
      throw new PassingError(`${wanted.name} broke off after ${done} of ${wanted.size} bytes`, wanted.name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
    throw new OrielError("not-saved", { message: "no space left for the download", at: part, cause: error });
  } finally {
    await file?.close();
  }
}

/** Git names a blob by the SHA-1 of a header and its content; large files go by the SHA-256 of the content alone. */
async function isRight(path: string, hash: string): Promise<boolean> {
  const kind = /^[0-9a-f]{64}$/.test(hash) ? "sha256" : /^[0-9a-f]{40}$/.test(hash) ? "sha1" : undefined;
  if (!kind) return true;
  const digest = createHash(kind);
  if (kind === "sha1") digest.update(`blob ${await bytesOf(path)}\0`);
  for await (const bytes of createReadStream(path)) digest.update(bytes as Uint8Array);
  return digest.digest("hex") === hash;
}
