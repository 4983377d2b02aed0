import { fastNormal, fastUniform, oneByOne, type RandomChunks } from "../base/fast-random.ts";
import type { Random } from "../base/philox.ts";
import { staticSize } from "../graph/shape.ts";

/** Fills a new parameter.  The same shape and the same random stream give the same numbers. */
export type Initializer = (shape: readonly number[], random: Random) => Float32Array<ArrayBuffer>;

/** Values of random numbers, made by the chunk. */
function fill(shape: readonly number[], next: RandomChunks): Float32Array<ArrayBuffer> {
  const values = new Float32Array(staticSize(shape));
  const chunk = new Float64Array(4096);
  for (let at = 0; at < values.length; at += chunk.length) {
    next(chunk);
    values.set(chunk.subarray(0, values.length - at), at);
  }
  return values;
}

/** Inputs of one output: all axes of a weight but the first.  [O, I, ...K] */
const fanIn = (shape: readonly number[]): number => staticSize(shape.slice(1));

/** One value everywhere. */
export const fixed =
  (value: number): Initializer =>
  (shape) =>
    new Float32Array(staticSize(shape)).fill(value);
export const zeros = fixed(0);
export const ones = fixed(1);

/**
 * Normal with the given deviation.  The published code of transformers names it truncated, and cuts at ±2: a hundred deviations away.
 */
export const normal =
  (std = 0.02): Initializer =>
  (shape, random) => {
    const next = fastNormal(random);
    return fill(shape, (chunk) => {
      next(chunk);
      for (let i = 0; i < chunk.length; i++) chunk[i] *= std;
    });
  };

/** Normal, drawn again beyond two deviations, as TensorFlow and JAX have it: what is left deviates by 0.88 of `std`. */
export const truncatedNormal =
  (std: number): Initializer =>
  (shape, random) => {
    const next = oneByOne(fastNormal(random));
    return new Float32Array(staticSize(shape)).map(() => {
      let x = next();
      while (Math.abs(x) > 2) x = next();
      return std * x;
    });
  };

/** Normal with variance 1 / fan-in before what lies beyond two deviations is drawn again.  LeCun et al., "Efficient BackProp" (1998). */
export const normalFanIn: Initializer = (shape, random) => truncatedNormal(1 / Math.sqrt(fanIn(shape)))(shape, random);

/** Uniform in ±limit. */
const uniform =
  (limit: number): Initializer =>
  (shape, random) => {
    const next = fastUniform(random);
    return fill(shape, (chunk) => {
      next(chunk);
      for (let i = 0; i < chunk.length; i++) chunk[i] = limit * (2 * chunk[i] - 1);
    });
  };

/** Uniform in ±1/√fan-in, PyTorch's default for linear layers and convolutions. */
export const uniformFanIn: Initializer = (shape, random) => uniform(1 / Math.sqrt(fanIn(shape)))(shape, random);

/** Uniform with variance 2 / (fan-in + fan-out).  Glorot and Bengio, "Understanding the difficulty of training" (2010).  [O, I] */
export const xavierUniform: Initializer = (shape, random) =>
  uniform(Math.sqrt(6 / (shape[0] + fanIn(shape))))(shape, random);

/** Normal with variance 2 / fan-out, of a convolution in groups: K² O / groups.  [O, I / groups, ...K] */
export const heNormalFor =
  (groups: number): Initializer =>
  (shape, random) =>
    normal(Math.sqrt((2 * groups) / (shape[0] * fanIn([1, ...shape.slice(2)]))))(shape, random);

/** Normal with variance 2 / fan-out.  He et al., "Delving Deep into Rectifiers" (2015). */
export const heNormal = heNormalFor(1);
