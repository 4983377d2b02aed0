import { OrielError } from "../base/errors.ts";
import { ask, bodyOf, type HttpOptions, PassingError, retrying, shown } from "./http.ts";
import { type ByteSource, bytesSource, checkRange } from "./source.ts";

/** Read at once, since headers of weights are rarely longer. */
const firstPart = 2 ** 16;

/** What is read whole where a server knows no ranges. */
const largestWhole = 2 ** 31;

/**
 * A file behind an address, read by HTTP ranges (RFC 9110, section 14), in Node and in a page alike.  A server that knows no ranges
 * gives it whole.  From another origin, a page needs `Content-Range` to be exposed to it, as the hub does.
 */
export async function urlSource(address: URL | string, options: HttpOptions = {}): Promise<ByteSource> {
  const url = new URL(address);
  const part = (offset: number, length: number, etag?: string | null) =>
    retrying(() => readPart(url, offset, length, etag, options), options);
  const first = await part(0, firstPart);
  if (first.size === undefined) return bytesSource(first.bytes, shown(url));
  const source = { size: first.size, name: shown(url) };
  return {
    ...source,
    read: async (offset, length) => {
      checkRange(source, offset, length);
      if (length === 0) return new Uint8Array();
      if (offset + length <= first.bytes.length) return first.bytes.slice(offset, offset + length);
      return (await part(offset, length, first.etag)).bytes;
    },
  };
}

export interface FetchOptions extends HttpOptions {
  /** Told of the bytes that have come, and of how many there are where the server says so. */
  onProgress?: (done: number, total?: number) => void;
}

/** All of a file behind an address, in Node and in a page alike; there the address may be relative. */
export async function fetchFile(
  address: URL | string,
  { onProgress, ...options }: FetchOptions = {},
): Promise<Uint8Array<ArrayBuffer>> {
  const url = new URL(address, globalThis.document?.baseURI ?? globalThis.location?.href);
  return retrying(async () => {
    const answer = await ask(url, { headers: options.headers }, options);
    const { ok, status, headers } = answer.response;
    if (!ok) {
      answer.close();
      throw refusal(url, status);
    }
    const told = Number(headers.get("content-length"));
    // Of what is compressed on its way, the length is another.
    return bodyOf(answer, largestWhole, (done) => onProgress?.(done, done <= told ? told : undefined));
  }, options);
}

interface Part {
  bytes: Uint8Array;
  /** Bytes of the whole file; undefined where `bytes` are the whole file. */
  size?: number;
  etag: string | null;
}

async function readPart(
  url: URL,
  offset: number,
  length: number,
  expected: string | null | undefined,
  options: HttpOptions,
): Promise<Part> {
  const range = `bytes=${offset}-${offset + length - 1}`;
  const answer = await ask(url, { headers: { ...options.headers, Range: range } }, options);
  const { status, headers } = answer.response;
  const etag = headers.get("etag");
  if (status === 200 && offset === 0 && expected === undefined) {
    if (Number(headers.get("content-length")) > largestWhole) {
      answer.close();
      throw failed(url, "the server gives no parts of files, and this one is too long to be read whole");
    }
    return { bytes: await bodyOf(answer, largestWhole), etag };
  }
  if (status === 416) {
    answer.close();
    return { bytes: new Uint8Array(), etag };
  }
  if (status !== 206) {
    answer.close();
    throw refusal(url, status);
  }
  const [, start, size] = /^bytes (\d+)-\d+\/(\d+)$/.exec(headers.get("content-range") ?? "") ?? [];
  if (Number(start) !== offset || !size) {
    answer.close();
    throw failed(url, "the server does not say which part of the file it gives (Content-Range)");
  }
  if (expected && etag && etag !== expected) {
    answer.close();
    throw failed(url, "the file was changed while it was read", "open it again");
  }
  const wanted = Math.min(length, Number(size) - offset);
  const bytes = await bodyOf(answer, wanted);
  if (bytes.length < wanted) throw new PassingError(`the answer broke off after ${bytes.length} bytes`, shown(url));
  return { bytes, size: Number(size), etag };
}

const failed = (url: URL, message: string, help = "download the file and open it from disk") =>
  new OrielError("http", { message, at: shown(url), help });

/** What a status that is no answer means. */
function refusal(url: URL, status: number): OrielError {
  if (status === 404 || status === 410) return new OrielError("not-found", { message: "no such file", at: shown(url) });
  if (status === 401 || status === 403)
    return new OrielError("no-access", { message: `access was refused (${status})`, at: shown(url) });
  return failed(url, `the server answered ${status}`);
}
