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
  readonly #part?: Tensor;
  #draws = 0;

  /**
   * With `part` it draws for that part of a batch what it would draw for the part's images in the whole batch, as long as the
   * first axis is the images.  seed, part: uint32 []
   */
  constructor(seed: Tensor, part?: Tensor) {
    this.#seed = seed;
    this.#part = part;
  }

  /** Uniform in [0, 1), 24 bits, float32. */
  uniform(shape: readonly number[]): Tensor {
    const size = staticSize(shape);
    // What depends on i and d alone is folded while drawing.
    const draw = Math.imul(++this.#draws, 0x9e3779b1);
    const start = Uint32Array.from({ length: size }, (_, i) => (Math.imul(i, stride) + draw) >>> 0);
    const seed = mix(this.#seed);
    const from = this.#part ? seed.add(this.#part.mul(Math.imul(size, stride) >>> 0)) : seed;
    const h = mix(constant(start, [size], "uint32").add(from));
    return cast(h.div(256), { to: "float32" })
      .mul(2 ** -24)
      .reshape(shape);
  }

  /** 1 with probability `p`, else 0, float32. */
  bernoulli(p: number, shape: readonly number[]): Tensor {
    return cast(less(this.uniform(shape), scalar(p)), { to: "float32" });
  }
}

/** Between the numbers of a draw, before they are mixed. */
const stride = 0x85ebca6b;

/**
 * Folds the high half into the low one and multiplies x by a x + b, a even and b odd, twice: each bit reaches all high bits.  The
 * square is what tells neighbours apart: sums, shifts and products with constants are so close to linear that the difference of two
 * numbers would stay the same wherever they stand, and the masks of two layers would agree too often.
 */
function mix(h: Tensor): Tensor {
  const round = (x: Tensor): Tensor => {
    const folded = x.add(x.div(65536));
    return folded.mul(folded.mul(0x7feb352c).add(0x846ca68b));
  };
  return round(round(h));
}
