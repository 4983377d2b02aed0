import { OrielError } from "../base/errors.ts";

/** A file, a blob or bytes read by ranges, so that looking at a header costs no more than the header. */
export interface ByteSource {
  /** Bytes in all. */
  readonly size: number;
  /** A path or an address, for messages. */
  readonly name?: string;
  /** Exactly `length` bytes from `offset`; throws when the source ends before. */
  read(offset: number, length: number): Promise<Uint8Array>;
  /** Lets go of what it holds open, if anything. */
  close?(): Promise<void>;
}

/** Bytes in memory; what is read are views of them. */
export function bytesSource(bytes: Uint8Array, name?: string): ByteSource {
  return {
    size: bytes.byteLength,
    name,
    read: async (offset, length) => {
      checkRange({ size: bytes.byteLength, name }, offset, length);
      return bytes.subarray(offset, offset + length);
    },
  };
}

/** A browser's `Blob` or `File`: one picked by a user, or the body of a response. */
export function blobSource(
  blob: Blob,
  name: string | undefined = "name" in blob ? String(blob.name) : undefined,
): ByteSource {
  return {
    size: blob.size,
    name,
    read: async (offset, length) => {
      checkRange({ size: blob.size, name }, offset, length);
      return new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer());
    },
  };
}

/** Throws unless bytes offset .. offset + length lie within the source. */
export function checkRange(source: { size: number; name?: string }, offset: number, length: number): void {
  if (offset >= 0 && length >= 0 && offset + length <= source.size) return;
  throw new OrielError("truncated", {
    message: `truncated: expected at least ${offset + length} bytes, found ${source.size}`,
    at: source.name,
    help: "a copy, a download or a program that wrote it stopped early: take another copy",
  });
}
