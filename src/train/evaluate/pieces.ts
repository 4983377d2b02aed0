import { staticSize } from "../../graph/shape.ts";
import type { Runtime } from "../../runtime/runtime.ts";

/** Pixels of pictures that run at once on one of several streams.  Measured: `docs/notes/0004-speed.md`. */
const pixels = 4 * 224 ** 2;

/** How many pictures each run takes of a batch [N, 3, H, W]: all of them, or few where runs go on side by side, so that each stream has some. */
export function pieceSizes({ streams }: Pick<Runtime, "streams">, [n, , ...sides]: readonly number[]): number[] {
  if (streams === 1) return [n];
  const runs = Math.ceil((n * staticSize(sides)) / pixels / streams) * streams;
  const count = Math.min(n, runs);
  return Array.from({ length: count }, (_, i) => Math.floor(((i + 1) * n) / count) - Math.floor((i * n) / count));
}

/** Runs a batch in pieces.  data: [N, 3, H, W]; `run` gives as many values for each picture. */
export async function inPieces(
  runtime: Pick<Runtime, "streams">,
  data: Float32Array<ArrayBuffer>,
  shape: readonly number[],
  run: (data: Float32Array<ArrayBuffer>, shape: readonly number[]) => Promise<Float32Array>,
): Promise<Float32Array> {
  const sizes = pieceSizes(runtime, shape);
  if (sizes.length === 1) return run(data, shape);
  const picture = staticSize(shape.slice(1));
  let results = new Float32Array(); // made when the first piece shows how many values a picture has
  let [piece, start] = [0, 0];
  // One more than there are streams, so that the next piece is there when one ends.
  const lanes = Array.from({ length: runtime.streams + 1 }, async () => {
    while (piece < sizes.length) {
      const [from, size] = [start, sizes[piece++]];
      start += size;
      const found = await run(data.slice(from * picture, start * picture), [size, ...shape.slice(1)]);
      const each = found.length / size;
      if (results.length === 0) results = new Float32Array(shape[0] * each);
      results.set(found, from * each);
    }
  });
  await Promise.all(lanes);
  return results;
}
