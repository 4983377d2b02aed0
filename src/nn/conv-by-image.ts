import { isOpen, known, mulDim } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { conv } from "../ops/conv.ts";

/**
 * Convolution with kernels of its own for each image.  x: [N, C, H, W], kernels: [N, O, C, K, K], or [N, C, 1, K, K] for each channel
 * alone -> [N, O, H', W'].  Where the batch is known it is one convolution whose groups are the images; where it is open, products for
 * each place of the kernel.
 */
export function convByImage(
  x: Tensor,
  kernels: Tensor,
  { stride = 1, padding = 0 }: { stride?: number; padding?: number } = {},
): Tensor {
  const [batch, channels, ...map] = x.shape;
  const [outputs, inputs, ...sides] = kernels.shape.slice(1).map((d) => known(d));
  if (!isOpen(batch)) {
    const groups = batch * (known(channels) / inputs);
    const images = x.reshape([1, mulDim(batch, channels), ...map]);
    const y = conv(images, kernels.reshape([batch * outputs, inputs, ...sides]), undefined, {
      stride,
      padding,
      groups,
    });
    return y.reshape([batch, outputs, ...y.shape.slice(2)]);
  }
  const padded = [2, 3].reduce((y, axis) => y.pad(axis, padding, padding), x);
  const size = map.map((d, i) => Math.floor((known(d) + 2 * padding - sides[i]) / stride) + 1);
  const places = Array.from({ length: sides[0] * sides[1] }, (_, i) => [Math.floor(i / sides[1]), i % sides[1]]);
  const taps = places.map((place) => {
    const seen = place.reduce(
      (y, start, i) => y.slice(i + 2, start, start + (size[i] - 1) * stride + 1, stride),
      padded,
    );
    const pixels = seen.reshape([batch, channels, size[0] * size[1]]);
    const tap = place.reduce((k, at, i) => k.slice(i + 3, at, at + 1), kernels).reshape([batch, outputs, inputs]);
    return inputs === 1 ? tap.mul(pixels) : tap.matmul(pixels); // [N, O, H' · W']
  });
  return taps.reduce((sum, tap) => sum.add(tap)).reshape([batch, outputs, ...size]);
}
