/** Runs the loops over pixels in `assembly/pixels.ts`: in WebAssembly's vectors they take a sixth of the time (docs/notes/0009-pixels.md). */
import { OrielError } from "../base/errors.ts";
import { mendWebAssembly } from "../base/webassembly.ts";
import { code } from "./pixels-code.ts";

/** What `assembly/pixels.ts` exports, which says what each does. */
interface Pixels {
  readonly memory: WebAssembly.Memory;
  /** Where memory is free from. */
  readonly start: { readonly value: number };
  resizeRows(
    ...args: [from: number, to: number, rows: number, inWidth: number, width: number, ...weights: WeightPlaces]
  ): void;
  resizeColumns(...args: [from: number, to: number, row: number, height: number, ...weights: WeightPlaces]): void;
  transform(
    ...args: [
      ...[from: number, to: number, width: number, height: number],
      ...[a: number, b: number, c: number, d: number, e: number, f: number],
      ...[fill: number, bicubic: boolean],
    ]
  ): void;
}
type WeightPlaces = [first: number, count: number, weight: number, stride: number];

let compiled: WebAssembly.Module | undefined;
let running: Pixels | undefined;

function open(): Pixels {
  try {
    compiled ??= new WebAssembly.Module(Uint8Array.from(atob(code), (c) => c.charCodeAt(0)));
    return new WebAssembly.Instance(compiled).exports as unknown as Pixels;
  } catch (cause) {
    const { message } = cause as Error;
    throw new OrielError("runtime", {
      message: `pictures cannot be resized without WebAssembly: ${message}`,
      help: mendWebAssembly(message),
      cause,
    });
  }
}

const page = 2 ** 16;
/** Memory only grows; what a large picture took beyond this is given back after it. */
const kept = 2 ** 26;

/** The next place where a vector may begin, with room for one that reads past what lies before. */
const after = (at: number): number => (at + 31) & ~15;

/**
 * Lays `inputs` into WebAssembly's memory, has `work` write `size` bytes to `to`, and returns these.  `places` tells where each input lies.
 */
export function compute(
  size: number,
  inputs: readonly (Uint8Array | Int32Array)[],
  work: (pixels: Pixels, to: number, places: readonly number[]) => void,
): Uint8Array<ArrayBuffer> {
  running ??= open();
  const pixels = running;
  const { memory, start } = pixels;
  const to = after(start.value);
  let end = after(to + size);
  const places = inputs.map(({ byteLength }) => {
    const at = end;
    end = after(at + byteLength);
    return at;
  });
  const missing = Math.ceil((end - memory.buffer.byteLength) / page);
  if (missing > 0) memory.grow(missing);
  const bytes = new Uint8Array(memory.buffer);
  inputs.forEach(({ buffer, byteOffset, byteLength }, i) => {
    bytes.set(new Uint8Array(buffer, byteOffset, byteLength), places[i]);
  });
  work(pixels, to, places);
  if (memory.buffer.byteLength > kept) running = undefined;
  return bytes.slice(to, to + size);
}
