/** Requests that outlast bad connections; the same in Node and in a page. */
import { joinBytes } from "../base/bytes.ts";
import { OrielError } from "../base/errors.ts";

export interface HttpOptions {
  headers?: Readonly<Record<string, string>>;
  signal?: AbortSignal;
  /** How often a request is tried, and seconds of pause after the first failure, twice as long after each further one. */
  tries?: number;
  pause?: number;
  /** Seconds of silence after which a connection counts as lost. */
  patience?: number;
}

/** A failure that may pass: no connection, a busy server, an answer cut short. */
export class PassingError extends OrielError {
  constructor(message: string, at: string, cause?: unknown, help = "check the connection and try again") {
    super("unreachable", { message, at, cause, help });
    this.name = "PassingError";
  }
}

/** Does the work again while it fails in a passing way. */
export async function retrying<T>(work: () => Promise<T>, { tries = 5, pause = 0.5, signal }: HttpOptions): Promise<T> {
  for (let left = tries - 1, seconds = pause; ; left--, seconds *= 2) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof PassingError) || left <= 0) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
      signal?.throwIfAborted();
    }
  }
}

/** An answer whose body is read in pieces; `close` ends the connection, read to the end or not. */
export interface Answer {
  response: Response;
  pieces(): AsyncGenerator<Uint8Array>;
  close(): void;
}

/** One request.  A lost connection, a silent one and a server in trouble are passing errors; any other answer is the caller's to judge. */
export async function ask(
  url: URL,
  init: { method?: string; redirect?: RequestInit["redirect"]; headers?: Readonly<Record<string, string>> },
  { signal, patience = 30 }: HttpOptions,
): Promise<Answer> {
  const lost = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const awake = () => {
    clearTimeout(timer);
    timer = setTimeout(() => lost.abort(), 1000 * patience);
  };
  const stop = () => lost.abort();
  signal?.addEventListener("abort", stop, { once: true });
  const close = () => {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
    lost.abort();
  };
  const failure = (what: string, cause: unknown, help?: string): unknown => {
    close();
    if (signal?.aborted) return signal.reason;
    return new PassingError(`${what}: ${reasonOf(cause)}`, shown(url), cause, help);
  };
  signal?.throwIfAborted();
  awake();
  try {
    const response = await fetch(url, { ...init, signal: lost.signal });
    if (response.status >= 500 || response.status === 408 || response.status === 429) {
      close();
      throw new PassingError(`${url.host} answered ${response.status} ${response.statusText}`.trim(), shown(url));
    }
    const pieces = async function* () {
      const reader = response.body?.getReader();
      try {
        for (;;) {
          awake();
          const { value, done } = (await reader?.read()) ?? { value: undefined, done: true };
          if (done) return;
          yield value as Uint8Array;
        }
      } catch (cause) {
        throw failure(`the answer of ${url.host} broke off`, cause);
      } finally {
        close();
      }
    };
    return { response, pieces, close };
  } catch (cause) {
    throw cause instanceof OrielError ? cause : failure(`no answer from ${url.host}`, cause, forbidden(url));
  }
}

/** A browser does not tell a page of another origin that its server lets no other read it, only that there was no answer. */
const forbidden = ({ origin }: URL): string | undefined =>
  globalThis.location === undefined || location.origin === origin
    ? undefined
    : `check the connection, and that ${origin} allows pages of ${location.origin} (Access-Control-Allow-Origin)`;

/** fetch says only that it failed; what failed stands in the cause. */
const reasonOf = (error: unknown): string => {
  const { name, message, cause } = error as Error & { cause?: { code?: string; message?: string } };
  if (name === "AbortError") return "it fell silent";
  return cause?.code ?? cause?.message ?? message;
};

/** The whole body, of at most so many bytes. */
export async function bodyOf(
  answer: Answer,
  most: number,
  onProgress?: (done: number) => void,
): Promise<Uint8Array<ArrayBuffer>> {
  const pieces: Uint8Array[] = [];
  let length = 0;
  for await (const piece of answer.pieces()) {
    length += piece.byteLength;
    onProgress?.(length);
    if (length > most)
      throw new OrielError("http", { message: `an answer of more than ${most} bytes`, at: answer.response.url });
    pieces.push(piece);
  }
  return joinBytes(pieces);
}

/** An address without what may be secret in it. */
export const shown = (url: URL): string => `${url.origin}${url.pathname}`;
