import { ShapeError } from "../base/errors.ts";
import { type DType, dataOf } from "../graph/dtype.ts";
import { isCount, known } from "../graph/shape.ts";
import { constant, type Tensor } from "../graph/tensor.ts";
import { explained } from "./define.ts";

// Discrete Fourier transforms of maps as products with matrices of cosines and sines, axis by axis: every device runs them, and their
// gradients are products too.  Maps are small enough that a product costs less than what stands around it.

/** rows × columns numbers, by row and column. */
function matrix(rows: number, columns: number, dtype: DType, value: (row: number, column: number) => number): Tensor {
  const values = Float64Array.from({ length: rows * columns }, (_, i) => value(Math.floor(i / columns), i % columns));
  return constant(dataOf(dtype, values), [rows, columns], dtype);
}

/** Multiplies real and imaginary parts, one above the other, by e^(-i 2π jk / H) / √H: a rotation.  [2H, 2H] */
function rotation(height: number, dtype: DType): Tensor {
  return matrix(2 * height, 2 * height, dtype, (row, column) => {
    const angle = (2 * Math.PI * (((row % height) * (column % height)) % height)) / height;
    const [real, imaginary] = [row < height, column < height];
    const value = real === imaginary ? Math.cos(angle) : real ? Math.sin(angle) : -Math.sin(angle);
    return value / Math.sqrt(height);
  });
}

/**
 * The two-dimensional Fourier transform of real maps, scaled by 1/√(HW); the half of the frequencies that determines the rest.  Real
 * and imaginary parts lie side by side.  [N, H, W, C] -> [N, 2, H, W / 2 + 1, C]
 */
export function rfft2(x: Tensor): Tensor {
  explained("rfft2", [x], ["x"], () => {
    if (x.rank !== 4) throw new ShapeError(`maps are [N, H, W, C], x has ${x.rank} axes`);
  });
  const [batch, height, width, channels] = [x.shape[0], ...x.shape.slice(1).map((d) => known(d))];
  const count = Math.floor(width / 2) + 1;
  const waves = matrix(2 * count, width, x.dtype, (row, column) => {
    const angle = (2 * Math.PI * (((row % count) * column) % width)) / width;
    return (row < count ? Math.cos(angle) : -Math.sin(angle)) / Math.sqrt(width);
  });
  const along = waves.matmul(x).reshape([batch, height, 2, count, channels]);
  const columns = along.permute(0, 2, 1, 3, 4).reshape([batch, 2 * height, count * channels]);
  return rotation(height, x.dtype).matmul(columns).reshape([batch, 2, height, count, channels]);
}

/** What `rfft2` came from; `width` tells W and W + 1 apart.  [N, 2, H, W / 2 + 1, C] -> [N, H, W, C] */
export function irfft2(y: Tensor, width: number): Tensor {
  explained("irfft2", [y], ["y"], () => {
    if (y.rank !== 5 || y.shape[1] !== 2 || !isCount(width) || y.shape[3] !== Math.floor(width / 2) + 1)
      throw new ShapeError(`frequencies of maps ${width} wide are [N, 2, H, ${Math.floor(width / 2) + 1}, C]`);
  });
  const [batch, , height, count, channels] = [y.shape[0], ...y.shape.slice(1).map((d) => known(d))];
  const columns = rotation(height, y.dtype).mT.matmul(y.reshape([batch, 2 * height, count * channels]));
  const along = columns
    .reshape([batch, 2, height, count, channels])
    .permute(0, 2, 1, 3, 4)
    .reshape([batch, height, 2 * count, channels]);
  // Every frequency stands for two but those that are their own mirror: 0, and W / 2 where W is even.
  const waves = matrix(width, 2 * count, y.dtype, (row, column) => {
    const k = column % count;
    const angle = (2 * Math.PI * ((k * row) % width)) / width;
    const times = k === 0 || 2 * k === width ? 1 : 2;
    return (times * (column < count ? Math.cos(angle) : -Math.sin(angle))) / Math.sqrt(width);
  });
  return waves.matmul(along);
}
