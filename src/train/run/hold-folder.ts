import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { resolve } from "node:path";
import { UsageError } from "../../base/errors.ts";

/** Marks of this process. */
const held = new Set<string>();

/**
 * Marks a folder as written to by this process, so that no other run mixes its files with those of this one; one whose process has
 * ended, killed perhaps, holds nothing.  A mark of another machine is not heeded: whether its process runs cannot be seen from here.
 * -> what takes the mark away
 */
export function holdFolder(path: string): () => void {
  const file = resolve(path, ".running");
  while (!mark(file)) {
    const pid = processOf(file);
    if (held.has(file) || (pid !== undefined && isAlive(pid)))
      throw new UsageError({
        message: `another run is writing into ${path}${pid === undefined ? "" : `, process ${pid}`}`,
        help: "wait for its end, or give another folder by --out; if that process is none of Oriel's, remove the file .running there",
      });
    rmSync(file, { force: true });
  }
  const release = (): void => {
    process.off("exit", release);
    held.delete(file);
    rmSync(file, { force: true });
  };
  held.add(file);
  process.on("exit", release);
  return release;
}

/** -> whether there was no mark yet */
function mark(file: string): boolean {
  try {
    writeFileSync(file, JSON.stringify({ pid: process.pid, host: hostname() }), { flag: "wx" });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

/** The process of this machine that made a mark. */
function processOf(file: string): number | undefined {
  try {
    const { pid, host } = JSON.parse(readFileSync(file, "utf8"));
    return host === hostname() && Number.isInteger(pid) ? pid : undefined;
  } catch {
    return undefined;
  }
}

function isAlive(pid: number): boolean {
  if (pid === process.pid) return false; // a mark of ours is among those held
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"; // it is somebody else's
  }
}
