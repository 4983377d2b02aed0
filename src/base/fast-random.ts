import type { Random } from "./philox.ts";

/** Fills a chunk of even length with a generator's next numbers: a call for each would take as long as making it. */
export type RandomChunks = (chunk: Float64Array) => void;

/**
 * Uniform numbers in [0, 1), 32 bits, from a small generator (Jenkins' sfc32) that `random` seeds: for tens of thousands of
 * numbers at a time, where the counter-based one would take seconds.
 */
export function fastUniform(random: Random): RandomChunks {
  let [a, b, c, d] = [random.uint32() | 0, random.uint32() | 0, random.uint32() | 0, 1];
  const next: RandomChunks = (chunk) => {
    for (let i = 0; i < chunk.length; i++) {
      const t = (((a + b) | 0) + d) | 0;
      d = (d + 1) | 0;
      a = b ^ (b >>> 9);
      b = (c + (c << 3)) | 0;
      c = (((c << 21) | (c >>> 11)) + t) | 0;
      chunk[i] = (t >>> 0) / 0x1_0000_0000;
    }
  };
  // The first few still resemble the seed.
  next(new Float64Array(12));
  return next;
}

/** Standard normal numbers, by Box–Muller in pairs. */
export function fastNormal(random: Random): RandomChunks {
  const uniform = fastUniform(random);
  return (chunk) => {
    uniform(chunk);
    for (let i = 0; i < chunk.length; i += 2) {
      const radius = Math.sqrt(-2 * Math.log(1 - chunk[i]));
      const angle = 2 * Math.PI * chunk[i + 1];
      chunk[i] = radius * Math.cos(angle);
      chunk[i + 1] = radius * Math.sin(angle);
    }
  };
}

/** The same numbers one by one. */
export function oneByOne(next: RandomChunks): () => number {
  const chunk = new Float64Array(512);
  let at = chunk.length;
  return () => {
    if (at === chunk.length) {
      next(chunk);
      at = 0;
    }
    return chunk[at++];
  };
}
