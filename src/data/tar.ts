import { close, open, read, stat } from "node:fs";
import { posix } from "node:path";
import { promisify } from "node:util";
import { OrielError, UsageError } from "../base/errors.ts";
import { byName, isHidden, isPicture, type Listing } from "./listing.ts";

// Plain descriptors rather than file handles, which warn when a dataset is simply forgotten.
const fs = { close: promisify(close), open: promisify(open), read: promisify(read), stat: promisify(stat) };

/** A file inside an archive. */
interface Entry {
  path: string;
  offset: number;
  size: number;
}

/** What stands in an archive under a name. */
interface Member extends Entry {
  isDirectory: boolean;
  /** Where a link leads, from the top of the archive. */
  target?: string;
}

/**
 * The pictures in a tar archive, read in place: one walk over the headers notes where each file lies, and nothing is ever unpacked.
 * Links to files are followed: of a picture that has two names, tar writes one as a link to the other.
 * Directories that all files have in common are left out, so that an archive of a folder is like the folder.
 */
export async function listTar(file: string): Promise<Listing> {
  const descriptor = await fs.open(file, "r");
  const entries: Entry[] = [];
  const directories: string[] = [];
  const members = new Map<string, Member>();
  try {
    for await (const member of walk(descriptor, file)) members.set(member.path, member);
    for (const { path, isDirectory } of members.values()) {
      if (path === "" || isHidden(path)) continue;
      if (isDirectory) directories.push(path);
      else if (isPicture(path)) entries.push({ ...followed(path, members), path });
    }
  } catch (error) {
    await fs.close(descriptor);
    throw error;
  }
  entries.sort((a, b) => byName(a.path, b.path));
  const shared = commonDirectory(entries);
  const inner = (path: string): string => path.slice(shared.length);
  let closed: Promise<void> | undefined;
  return {
    where: file,
    paths: entries.map(({ path }) => inner(path)),
    directories: directories
      .filter((path) => path.startsWith(shared))
      .map(inner)
      .sort(byName),
    name: (i) => `${file}:${entries[i].path}`,
    read: async (i) => {
      const { offset, size } = entries[i];
      if (offset === 0) throw new OrielError("archive", "a link to what is no file of the archive");
      const { buffer, bytesRead } = await fs.read(descriptor, new Uint8Array(size), 0, size, offset);
      if (bytesRead < size)
        throw new OrielError("archive", {
          message: "the archive ends within this file",
          at: `${file}:${entries[i].path}`,
        });
      return buffer;
    },
    // Once, though training and validation may share the archive.
    close: () => {
      closed ??= fs.close(descriptor);
      return closed;
    },
  };
}

/** Links upon links; more lead around. */
const mostLinks = 40;

/** Where the bytes lie that a name stands for; at 0, where no file lies, if it leads to none. */
function followed(path: string, members: ReadonlyMap<string, Member>): Pick<Entry, "offset" | "size"> {
  let member = members.get(path);
  for (let n = 0; member?.target !== undefined && n < mostLinks; n++) member = members.get(member.target);
  return member && member.target === undefined && !member.isDirectory ? member : { offset: 0, size: 0 };
}

/** What the directories above all class folders have in common, ending in `/`. */
function commonDirectory(entries: readonly Entry[]): string {
  let shared: string[] | undefined;
  for (const { path } of entries) {
    const above = path.split("/").slice(0, -2); // the last directory is a class
    const same = (shared ?? above).findIndex((part, i) => part !== above[i]);
    if (shared === undefined) shared = above;
    else if (same >= 0) shared = shared.slice(0, same);
  }
  return shared === undefined || shared.length === 0 ? "" : `${shared.join("/")}/`;
}

const block = 512;
/** Read at once: many small files' headers, while the bodies of large ones are skipped. */
const window = 1 << 16;

/** Every file, directory and link.  POSIX.1-1988 ustar, POSIX.1-2001 pax (`path`, `linkpath`, `size`), GNU long names. */
async function* walk(descriptor: number, file: string): AsyncGenerator<Member> {
  const { size: total } = await fs.stat(file);
  const buffer = new Uint8Array(window);
  let from = 0;
  let filled = 0;
  const at = async (offset: number, length: number): Promise<Uint8Array> => {
    if (length > window) return (await fs.read(descriptor, new Uint8Array(length), 0, length, offset)).buffer;
    if (offset < from || offset + length > from + filled) {
      from = offset;
      filled = (await fs.read(descriptor, buffer, 0, window, offset)).bytesRead;
    }
    return buffer.subarray(offset - from, Math.min(offset - from + length, filled));
  };
  let longName: string | undefined;
  let longLink: string | undefined;
  let longSize: number | undefined;
  for (let offset = 0; offset < total; ) {
    const header = await at(offset, block);
    if (header.length < block) throw notTar(file, offset, header);
    if (header.every((byte) => byte === 0)) return;
    if (!checks(header)) throw notTar(file, offset, header);
    const type = String.fromCharCode(header[156]);
    const isExtension = type === "x" || type === "g" || type === "L" || type === "K";
    const size: number = isExtension ? number(header, 124, 12) : (longSize ?? number(header, 124, 12));
    const path: string = clean(longName ?? nameIn(header));
    const body = offset + block;
    if (body + size > total) throw notTar(file, offset, header);
    if (type === "L") longName = text(await at(body, size));
    else if (type === "K") longLink = text(await at(body, size));
    else if (type === "x") {
      const records = paxRecords(await at(body, size));
      longName = records.get("path") ?? longName;
      longLink = records.get("linkpath") ?? longLink;
      longSize = records.has("size") ? Number(records.get("size")) : longSize;
    } else if (!isExtension) {
      const link = longLink ?? text(header.subarray(157, 257));
      longName = undefined;
      longLink = undefined;
      longSize = undefined;
      const isDirectory = type === "5";
      if (isDirectory || type === "0" || type === "\0" || type === "7") yield { path, offset: body, size, isDirectory };
      else if (type === "1") yield { path, offset: 0, size, isDirectory, target: clean(link) };
      else if (type === "2")
        yield { path, offset: 0, size, isDirectory, target: clean(posix.join(posix.dirname(path), link)) };
    }
    offset = body + Math.ceil(size / block) * block;
  }
}

function notTar(file: string, offset: number, header: Uint8Array): UsageError {
  if (offset > 0 || checks(header)) {
    return new UsageError({
      message: `the archive is cut short or damaged at byte ${offset}`,
      at: file,
      help: "copy or download it again",
    });
  }
  const compressed = compressions.find(([, start]) => start.every((byte, i) => byte === header[i]))?.[0];
  return new UsageError({
    message: compressed
      ? `this is compressed (${compressed}), so files in it cannot be read one by one`
      : "this is not a tar archive",
    at: file,
    help: compressed
      ? "unpack it and give the folder, or an archive that is not compressed"
      : "give a folder of class folders, a .csv list, or a .tar archive of class folders",
  });
}

/** How archives are compressed, and the bytes that files of it begin with. */
const compressions: readonly (readonly [name: string, start: readonly number[]])[] = [
  ["gzip", [0x1f, 0x8b]],
  ["bzip2", [0x42, 0x5a, 0x68]],
  ["xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a]],
  ["zstd", [0x28, 0xb5, 0x2f, 0xfd]],
  ["zip", [0x50, 0x4b, 0x03, 0x04]],
  ["7z", [0x37, 0x7a, 0xbc, 0xaf]],
  ["rar", [0x52, 0x61, 0x72, 0x21]],
];

/** The sum of the header's bytes, its own field taken as spaces. */
function checks(header: Uint8Array): boolean {
  let sum = 0;
  for (let i = 0; i < block; i++) sum += i >= 148 && i < 156 ? 32 : header[i];
  return sum === number(header, 148, 8);
}

function nameIn(header: Uint8Array): string {
  const name = text(header.subarray(0, 100));
  const isUstar = text(header.subarray(257, 262)) === "ustar" && header[262] === 0; // GNU's own form keeps other things there
  const prefix = isUstar ? text(header.subarray(345, 500)) : "";
  return prefix === "" ? name : `${prefix}/${name}`;
}

const clean = (path: string): string =>
  path
    .split("/")
    .filter((part) => part !== "" && part !== ".")
    .join("/");

const decoder = new TextDecoder();

/** Up to the first zero byte. */
function text(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return decoder.decode(end < 0 ? bytes : bytes.subarray(0, end));
}

/** Octal digits, or, where the first bit is set, a big-endian number. */
function number(header: Uint8Array, start: number, length: number): number {
  const field = header.subarray(start, start + length);
  if (field[0] & 0x80) return field.reduce((n, byte, i) => n * 256 + (i === 0 ? byte & 0x7f : byte), 0);
  return Number.parseInt(text(field).trim(), 8) || 0;
}

/** Records of the form "length key=value\n", the length in bytes and including itself. */
function paxRecords(bytes: Uint8Array): Map<string, string> {
  const records = new Map<string, string>();
  for (let at = 0; at < bytes.length; ) {
    const space = bytes.indexOf(0x20, at);
    const length = Number(decoder.decode(bytes.subarray(at, space)));
    if (space < 0 || !(length > 0)) break;
    const record = decoder.decode(bytes.subarray(space + 1, at + length - 1));
    const equals = record.indexOf("=");
    records.set(record.slice(0, equals), record.slice(equals + 1));
    at += length;
  }
  return records;
}
