import { staticSize } from "../graph/shape.ts";
import { constant, scalar, type Tensor } from "../graph/tensor.ts";
import { cast, less } from "../ops/compare.ts";

/**
 * Random numbers inside a graph, from a seed that each run is given.  Number i of draw d is a hash of (i, d, seed) made of uint32
 * products, sums and quotients alone, which wrap alike on every device: the engines have no xor and no random operation that all
 * of them share.
 */
export class Rng {
  readonly #seed: Tensor;
  #draws = 0;

  /** seed: uint32 [] */
  constructor(seed: Tensor) {
    this.#seed = seed;
  }

  /** Uniform in [0, 1), 24 bits, float32. */
  uniform(shape: readonly number[]): Tensor {
    const size = staticSize(shape);
    // What depends on i and d alone is folded while drawing.
    const draw = Math.imul(++this.#draws, 0x9e3779b1);
    const start = Uint32Array.from({ length: size }, (_, i) => (Math.imul(i, 0x85ebca6b) + draw) >>> 0);
    let h = constant(start, [size], "uint32").add(mix(this.#seed));
    h = mix(mix(h));
    return cast(h.div(scalar(256, "uint32")), { to: "float32" })
      .mul(2 ** -24)
      .reshape(shape);
  }

  /** 1 with probability `p`, else 0, float32. */
  bernoulli(p: number, shape: readonly number[]): Tensor {
    return cast(less(this.uniform(shape), scalar(p)), { to: "float32" });
  }
}

/** Folds the high half into the low one and multiplies by an odd number, twice: each input bit reaches all high output bits. */
function mix(h: Tensor): Tensor {
  const fold = (x: Tensor): Tensor => x.add(x.div(scalar(65536, "uint32")));
  return fold(fold(h).mul(scalar(0x7feb352d, "uint32"))).mul(scalar(0x846ca68b, "uint32"));
}
