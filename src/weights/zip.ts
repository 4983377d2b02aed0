/** Zip archives whose entries are stored as they are, the only kind that torch writes.  PKWARE APPNOTE 6.3, sections 4.3 and 4.5. */
import { OrielError } from "../base/errors.ts";
import { type ByteSource, checkRange } from "./source.ts";

/** A run of a file's bytes. */
export interface Region {
  readonly at: number;
  readonly length: number;
}

export interface ZipEntry {
  readonly name: string;
  /** Bytes of content. */
  readonly size: number;
  /** Where its local header starts. */
  readonly offset: number;
  /** 0 when stored, 8 when deflated. */
  readonly method: number;
}

/** The end record is 22 bytes and a comment of at most 65535. */
const endSize = 22;
const longestEnd = endSize + 65535;
const localHeader = 30;

/** An entry takes 46 bytes and its name; more of them than fit here are no model's tensors. */
const largestDirectory = 2 ** 28;

const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const uint64 = (data: DataView, at: number) => Number(data.getBigUint64(at, true));

/** The entries by name, from the directory at the archive's end. */
export async function listZip(source: ByteSource): Promise<Map<string, ZipEntry>> {
  try {
    const { offset, size } = await findDirectory(source);
    if (size > largestDirectory) throw malformed(source, `its directory claims ${size} bytes`);
    checkRange(source, offset, size);
    const entries = parseDirectory(source, view(await source.read(offset, size)));
    checkPlaces(source, entries, offset);
    return new Map(entries.map((entry) => [entry.name, entry]));
  } catch (cause) {
    // A DataView complains thus when a record runs past its end.
    if (cause instanceof RangeError) throw malformed(source, "its directory is damaged", cause);
    throw cause;
  }
}

/** Where an entry's content lies. */
export async function locateZipEntry(source: ByteSource, entry: ZipEntry): Promise<Region> {
  if (entry.method !== 0)
    throw new OrielError("unsupported", {
      message: `entry "${entry.name}" is compressed; torch stores entries as they are`,
      at: source.name,
      help: "unpack and pack it again with `zip -0 -r`",
    });
  checkRange(source, entry.offset, localHeader);
  const header = view(await source.read(entry.offset, localHeader));
  if (header.getUint32(0, true) !== 0x04034b50)
    throw malformed(source, `entry "${entry.name}" is not where the directory says`);
  const at = entry.offset + localHeader + header.getUint16(26, true) + header.getUint16(28, true);
  checkRange(source, at, entry.size);
  return { at, length: entry.size };
}

/** An entry's content. */
export async function readZipEntry(source: ByteSource, entry: ZipEntry): Promise<Uint8Array> {
  const { at, length } = await locateZipEntry(source, entry);
  return source.read(at, length);
}

const malformed = (source: ByteSource, message: string, cause?: unknown) =>
  new OrielError("malformed", { message: `not a valid zip archive: ${message}`, at: source.name, cause });

async function findDirectory(source: ByteSource): Promise<{ offset: number; size: number }> {
  const tailAt = Math.max(0, source.size - longestEnd);
  const tail = view(await source.read(tailAt, source.size - tailAt));
  let at = tail.byteLength - endSize;
  while (at >= 0 && tail.getUint32(at, true) !== 0x06054b50) at--;
  if (at < 0)
    throw new OrielError("truncated", {
      message: `truncated: a zip archive ends with its directory, and among the ${source.size} bytes found there is none`,
      at: source.name,
      help: "a copy, a download or a program that wrote it stopped early: take another copy",
    });
  const size = tail.getUint32(at + 12, true);
  const offset = tail.getUint32(at + 16, true);
  if (size !== 0xffffffff && offset !== 0xffffffff) return { offset, size };
  // Past 4 GB the real figures stand in a record that a locator just before this one points to.
  if (at < 20 || tail.getUint32(at - 20, true) !== 0x07064b50)
    throw malformed(source, "its 64-bit directory is missing");
  const endAt = uint64(tail, at - 12);
  checkRange(source, endAt, 56);
  const end = view(await source.read(endAt, 56));
  if (end.getUint32(0, true) !== 0x06064b50) throw malformed(source, "its 64-bit directory is missing");
  return { size: uint64(end, 40), offset: uint64(end, 48) };
}

function parseDirectory(source: ByteSource, data: DataView): ZipEntry[] {
  const entries: ZipEntry[] = [];
  for (let at = 0; at + 46 <= data.byteLength && data.getUint32(at, true) === 0x02014b50; ) {
    const nameLength = data.getUint16(at + 28, true);
    const extraLength = data.getUint16(at + 30, true);
    const commentLength = data.getUint16(at + 32, true);
    const name = new TextDecoder().decode(new Uint8Array(data.buffer, data.byteOffset + at + 46, nameLength));
    const extra = new DataView(data.buffer, data.byteOffset + at + 46 + nameLength, extraLength);
    const [size, storedSize, offset] = wide(
      [data.getUint32(at + 24, true), data.getUint32(at + 20, true), data.getUint32(at + 42, true)],
      extra,
    );
    const method = data.getUint16(at + 10, true);
    if (leavesItsPlace(name)) throw malformed(source, `entry "${name}" would lie outside of it`);
    if (data.getUint16(at + 8, true) & 1) throw malformed(source, `entry "${name}" is encrypted`);
    if (method === 0 && size !== storedSize)
      throw malformed(source, `entry "${name}" of ${size} bytes is stored in ${storedSize}`);
    entries.push({ name, size, offset, method });
    at += 46 + nameLength + extraLength + commentLength;
  }
  return entries;
}

/** A name that points elsewhere when it is taken for a path.  Nothing is ever unpacked here, but no honest archive has one. */
const leavesItsPlace = (name: string) =>
  name.startsWith("/") || /^[a-z]:/i.test(name) || /[\\\0]/.test(name) || name.split("/").includes("..");

/** Size, stored size and offset; those that are all ones stand, in this order, in the extra field 1. */
function wide(values: number[], extra: DataView): number[] {
  for (let at = 0; at + 4 <= extra.byteLength; at += 4 + extra.getUint16(at + 2, true)) {
    if (extra.getUint16(at, true) !== 1) continue;
    let next = at + 4;
    return values.map((value) => {
      if (value !== 0xffffffff) return value;
      next += 8;
      return uint64(extra, next - 8);
    });
  }
  return values;
}

/** Entries that lie over each other, or over the directory, unfold a small file into a large one. */
function checkPlaces(source: ByteSource, entries: readonly ZipEntry[], directory: number): void {
  const names = new Set<string>();
  const stored = entries.filter(({ method }) => method === 0).sort((a, b) => a.offset - b.offset);
  let [end, before] = [0, ""];
  for (const { name, offset, size } of stored) {
    if (names.has(name)) throw malformed(source, `two entries are named "${name}"`);
    if (offset < end) throw malformed(source, `entries "${before}" and "${name}" overlap at byte ${offset}`);
    [end, before] = [offset + localHeader + size, name];
    names.add(name);
  }
  if (end > directory) throw malformed(source, `entry "${before}" reaches into the directory at byte ${directory}`);
}
