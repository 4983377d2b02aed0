import { fastNormal, fastUniform } from "../base/fast-random.ts";
import type { Random } from "../base/philox.ts";

/** Fills a new parameter.  The same shape and the same random stream give the same numbers. */
export type Initializer = (shape: readonly number[], random: Random) => Float32Array<ArrayBuffer>;

function fill(shape: readonly number[], value: () => number): Float32Array<ArrayBuffer> {
  const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
  for (let i = 0; i < values.length; i++) values[i] = value();
  return values;
}

/** Inputs of one output: all axes of a weight but the first.  [O, I, ...K] */
const fanIn = (shape: readonly number[]): number => shape.slice(1).reduce((a, b) => a * b, 1);

/** One value everywhere. */
export const fixed =
  (value: number): Initializer =>
  (shape) =>
    fill(shape, () => value);
export const zeros = fixed(0);
export const ones = fixed(1);

/**
 * Normal with the given deviation.  The published code of transformers names it truncated, and cuts at ±2: a hundred deviations away.
 */
export const normal =
  (std = 0.02): Initializer =>
  (shape, random) => {
    const next = fastNormal(random);
    return fill(shape, () => std * next());
  };

/** Normal, drawn again beyond two deviations, as TensorFlow and JAX have it: what is left deviates by 0.88 of `std`. */
export const truncatedNormal =
  (std: number): Initializer =>
  (shape, random) => {
    const next = fastNormal(random);
    return fill(shape, () => {
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
    return fill(shape, () => limit * (2 * next() - 1));
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
