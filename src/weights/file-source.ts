import { constants } from "node:fs";
import { type FileHandle, open, readdir } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { nearest, OrielError } from "../base/errors.ts";
import { type ByteSource, checkRange } from "./source.ts";

/** Node's `read` takes at most 2³¹ - 1 bytes at a time. */
const chunk = 2 ** 30;

/** A file on disk, held open until `close`, so that a save that renames over it does not change what is read. */
export async function fileSource(path: string): Promise<ByteSource & { close(): Promise<void> }> {
  const handle = await openFile(path);
  const { size } = await handle.stat();
  const source = { size, name: path };
  return {
    ...source,
    close: () => handle.close(),
    read: async (offset, length) => {
      checkRange(source, offset, length);
      // A buffer of its own, not one of Node's pool: the values can then be viewed as float32 without a copy.
      const bytes = new Uint8Array(length);
      for (let done = 0; done < length; ) {
        const { bytesRead } = await handle.read(bytes, done, Math.min(chunk, length - done), offset + done);
        if (bytesRead === 0) checkRange({ size: offset + done, name: path }, offset, length); // shortened since it was opened
        done += bytesRead;
      }
      return bytes;
    },
  };
}

/** All of a file. */
export async function readWhole(path: string): Promise<Uint8Array<ArrayBuffer>> {
  const source = await fileSource(path);
  try {
    return (await source.read(0, source.size)) as Uint8Array<ArrayBuffer>;
  } finally {
    await source.close();
  }
}

/** What helps where a path leads nowhere: the nearest names beside it. */
export async function besideMissing(path: string): Promise<string> {
  const folder = dirname(path);
  const names = await readdir(folder).catch(() => undefined);
  if (names === undefined) return `its folder, ${folder}, does not exist either`;
  return names.length > 0 ? `beside it are ${nearest(basename(path), names).join(", ")}` : `${folder} is empty`;
}

async function openFile(path: string): Promise<FileHandle> {
  let handle: FileHandle | undefined;
  try {
    // Without waiting, as for a pipe that nobody writes to.
    handle = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
    if ((await handle.stat()).isFile()) return handle;
    throw new OrielError("not-a-file", { message: "expected a file, found a folder or a device", at: path });
  } catch (cause) {
    await handle?.close();
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === "ENOENT")
      throw new OrielError("not-found", { message: "no such file", at: path, help: await besideMissing(path), cause });
    if (code === "EACCES")
      throw new OrielError("not-readable", { message: "no permission to read the file", at: path, cause });
    throw cause;
  }
}
