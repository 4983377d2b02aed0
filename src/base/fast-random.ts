import type { Random } from "./philox.ts";

/**
 * Uniform numbers in [0, 1), 32 bits, from a small generator (Jenkins' sfc32) that `random` seeds: for tens of thousands of
 * numbers at a time, where the counter-based one would take seconds.
 */
export function fastUniform(random: Random): () => number {
  let [a, b, c, d] = [random.uint32() | 0, random.uint32() | 0, random.uint32() | 0, 1];
  const next = (): number => {
    const t = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + t) | 0;
    return (t >>> 0) / 0x1_0000_0000;
  };
  // The first few still resemble the seed.
  for (let i = 0; i < 12; i++) next();
  return next;
}

/** Standard normal numbers, by Box–Muller in pairs. */
export function fastNormal(random: Random): () => number {
  const uniform = fastUniform(random);
  let spare: number | undefined;
  return () => {
    if (spare !== undefined) {
      const kept = spare;
      spare = undefined;
      return kept;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
    const angle = 2 * Math.PI * uniform();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}
