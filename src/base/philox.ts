/**
 * Philox4x32-10, a counter-based generator: the numbers for a key and a counter need no state, so they do not depend on
 * who draws first.  Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011), section 3.
 */

/** High and low 32 bits of an unsigned 32 × 32 product. */
function mulHiLo(a: number, b: number): [number, number] {
  const aLo = a & 0xffff;
  const aHi = a >>> 16;
  const bLo = b & 0xffff;
  const bHi = b >>> 16;
  const low = aLo * bLo;
  const mid = aHi * bLo + (low >>> 16);
  const mid2 = aLo * bHi + (mid % 0x10000);
  const hi = aHi * bHi + Math.floor(mid / 0x10000) + Math.floor(mid2 / 0x10000);
  return [hi >>> 0, Math.imul(a, b) >>> 0];
}

/** Four uint32 for a 128-bit counter and a 64-bit key. */
export function philox4x32(counter: readonly number[], key: readonly number[]): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter.map((x) => x >>> 0);
  let [k0, k1] = key.map((x) => x >>> 0);
  for (let round = 0; round < 10; round++) {
    const [hi0, lo0] = mulHiLo(0xd2511f53, c0);
    const [hi1, lo1] = mulHiLo(0xcd9e8d57, c2);
    [c0, c1, c2, c3] = [(hi1 ^ c1 ^ k0) >>> 0, lo1, (hi0 ^ c3 ^ k1) >>> 0, lo0];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** 32-bit FNV-1a of a string's UTF-8 bytes: turns a name into a key. */
export function fnv1a(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash;
}

/** A stream of random numbers for one (seed, ...path): `random(seed, epoch, sample, "crop")`. The same path, the same numbers. */
export class Random {
  readonly #key: [number, number];
  readonly #counter: [number, number];
  #block = 0;
  #left: number[] = [];

  constructor(seed: number, ...path: (number | string)[]) {
    const [a = 0, b = 0, ...rest] = path.map((p) => (typeof p === "string" ? fnv1a(p) : p >>> 0));
    this.#key = [seed >>> 0, Math.floor(seed / 0x1_0000_0000) >>> 0];
    // Beyond two, the parts of the path are folded into the key, so that no two paths share a counter by accident.
    for (const part of rest) {
      const [x, y] = philox4x32([part, 0x6f72, 0x6965, rest.length], this.#key);
      this.#key = [x, y];
    }
    this.#counter = [a, b];
  }

  /** The next uint32. */
  uint32(): number {
    if (this.#left.length === 0) this.#left = philox4x32([this.#block++, 0, ...this.#counter], this.#key).reverse();
    return this.#left.pop() as number;
  }

  /** Uniform in [0, 1), 53 bits. */
  uniform(): number {
    return ((this.uint32() >>> 5) * 0x4000000 + (this.uint32() >>> 6)) / 0x20000000000000;
  }

  /** Uniform in [low, high). */
  between(low: number, high: number): number {
    return low + (high - low) * this.uniform();
  }

  /** An integer in 0 … n-1. */
  below(n: number): number {
    return Math.floor(this.uniform() * n);
  }

  /** Standard normal, by Box–Muller. */
  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
  }

  /** Beta(a, b) as a ratio of two gamma draws. */
  beta(a: number, b: number): number {
    const x = this.gamma(a);
    return x / (x + this.gamma(b));
  }

  /** Gamma(shape, 1).  Marsaglia and Tsang, "A Simple Method for Generating Gamma Variables" (2000). */
  gamma(shape: number): number {
    if (shape < 1) return this.gamma(shape + 1) * (1 - this.uniform()) ** (1 / shape);
    const d = shape - 1 / 3;
    const c = 1 / Math.sqrt(9 * d);
    for (;;) {
      const x = this.normal();
      const v = (1 + c * x) ** 3;
      if (v > 0 && Math.log(1 - this.uniform()) < 0.5 * x * x + d - d * v + d * Math.log(v)) return d * v;
    }
  }

  /** 0 … n-1 in random order (Fisher–Yates). */
  permutation(n: number): Uint32Array {
    const order = Uint32Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }
}
