/** Writes zip archives of stored entries, laid out as torch does.  PKWARE APPNOTE 6.3, sections 4.3 and 4.5. */

import { joinBytes } from "../base/bytes.ts";

/** An entry to write; its content is asked for when its turn comes. */
export interface NewEntry {
  name: string;
  /** Bytes of content. */
  size: number;
  content(): Promise<Uint8Array>;
}

/** torch maps storages into memory, so their content starts on a boundary. */
const alignment = 64;

/** From here on a figure stands in the 64-bit field beside its old place. */
const wide = 0xffffffff;

/** An archive's bytes in order. */
export async function* zipParts(entries: readonly NewEntry[]): AsyncGenerator<Uint8Array> {
  const directory: Uint8Array[] = [];
  let at = 0;
  for (const entry of entries) {
    const content = await entry.content();
    const crc = crc32(content);
    const header = localHeader(entry, crc, at);
    directory.push(directoryEntry(entry, crc, at));
    yield header;
    yield content;
    at += header.byteLength + content.byteLength;
  }
  yield* directory;
  yield endOf(
    entries.length,
    directory.reduce((sum, entry) => sum + entry.byteLength, 0),
    at,
  );
}

/** Little-endian fields: [bytes, value]. */
function record(...fields: readonly (readonly [size: 2 | 4 | 8, value: number])[]): Uint8Array {
  const bytes = new Uint8Array(fields.reduce((sum, [size]) => sum + size, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const [size, value] of fields) {
    if (size === 2) view.setUint16(at, value, true);
    else if (size === 4) view.setUint32(at, value, true);
    else view.setBigUint64(at, BigInt(value), true);
    at += size;
  }
  return bytes;
}

const nameBytes = (name: string) => new TextEncoder().encode(name);
const utf8 = 0x800;
/** 1 January 1980, so that the same content gives the same bytes. */
const date = 0x21;

function localHeader({ name, size }: NewEntry, crc: number, at: number): Uint8Array {
  const bytes = nameBytes(name);
  const large = size >= wide;
  const sizes = large ? record([2, 1], [2, 16], [8, size], [8, size]) : new Uint8Array();
  // What is left to the boundary is filled by a field that readers skip; it takes 4 bytes at least.
  const start = at + 30 + bytes.length + sizes.length + 4;
  const padding = (alignment - (start % alignment)) % alignment;
  const filler = joinBytes([record([2, 0x4246], [2, padding]), new Uint8Array(padding)]);
  const shown = large ? wide : size;
  return joinBytes([
    record([4, 0x04034b50], [2, large ? 45 : 20], [2, utf8], [2, 0], [2, 0], [2, date]),
    record([4, crc], [4, shown], [4, shown], [2, bytes.length], [2, sizes.length + filler.length]),
    bytes,
    sizes,
    filler,
  ]);
}

function directoryEntry({ name, size }: NewEntry, crc: number, at: number): Uint8Array {
  const bytes = nameBytes(name);
  const large: [8, number][] = [];
  if (size >= wide) large.push([8, size], [8, size]);
  if (at >= wide) large.push([8, at]);
  const extra = large.length > 0 ? record([2, 1], [2, 8 * large.length], ...large) : new Uint8Array();
  const version = large.length > 0 ? 45 : 20;
  const shown = Math.min(size, wide);
  return joinBytes([
    record([4, 0x02014b50], [2, version], [2, version], [2, utf8], [2, 0], [2, 0], [2, date]),
    record([4, crc], [4, shown], [4, shown], [2, bytes.length], [2, extra.length], [2, 0], [2, 0], [2, 0], [4, 0]),
    record([4, Math.min(at, wide)]),
    bytes,
    extra,
  ]);
}

/** The end of the directory, with its 64-bit form before it where a figure is too large for the old one. */
function endOf(count: number, size: number, at: number): Uint8Array {
  const shown = Math.min(count, 0xffff);
  const end = record(
    [4, 0x06054b50],
    [2, 0],
    [2, 0],
    [2, shown],
    [2, shown],
    [4, size],
    [4, Math.min(at, wide)],
    [2, 0],
  );
  if (at < wide && count < 0xffff) return end;
  return joinBytes([
    record([4, 0x06064b50], [8, 44], [2, 45], [2, 45], [4, 0], [4, 0], [8, count], [8, count], [8, size], [8, at]),
    record([4, 0x07064b50], [4, 0], [8, at + size], [4, 1]),
    end,
  ]);
}

let table: Uint32Array | undefined;

/** The checksum of APPNOTE 4.4.7, a byte at a time. */
export function crc32(bytes: Uint8Array): number {
  table ??= Uint32Array.from({ length: 256 }, (_, byte) => {
    let value = byte;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
    return value;
  });
  let crc = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) crc = (crc >>> 8) ^ table[(crc ^ bytes[i]) & 255];
  return ~crc >>> 0;
}
