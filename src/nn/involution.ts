import { ShapeError } from "../base/errors.ts";
import { known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { relu } from "../ops/elementwise.ts";
import { averagePool } from "../ops/pool.ts";
import { BatchNorm2d, Conv2d } from "./layers.ts";
import { Module } from "./module.ts";

export interface InvolutionOptions {
  /** Side of the window; odd. */
  kernel: number;
  stride?: number;
  /** Channels that share a kernel. */
  groupWidth?: number;
  /** The channels divided by those that kernels are made from. */
  reduction?: number;
}

/**
 * A kernel of its own for each place, made from the pixel there and shared by the channels of a group: the inverse of a convolution,
 * which shares its kernel between places and has one for each channel.  [N, C, H, W] -> [N, C, H / stride, W / stride].
 * Li et al., "Involution: Inverting the Inherence of Convolution for Visual Recognition" (CVPR 2021), https://arxiv.org/abs/2103.06255,
 * equations 4 and 6.  Parameter paths are those of the official repository (d-li14/involution).
 */
export class Involution extends Module {
  readonly #reduce;
  readonly #norm;
  readonly #span;
  readonly #kernel: number;
  readonly #stride: number;
  readonly #groups: number;
  constructor(channels: number, { kernel, stride = 1, groupWidth = 16, reduction = 4 }: InvolutionOptions) {
    super();
    if (channels % groupWidth !== 0 || channels % reduction !== 0)
      throw new ShapeError({
        message: `${channels} channels do not divide into groups of ${groupWidth}, or by ${reduction}`,
        help: "choose another groupWidth or reduction",
      });
    if (kernel % 2 === 0) throw new ShapeError(`a window of ${kernel} × ${kernel} has no middle: its side must be odd`);
    this.#kernel = kernel;
    this.#stride = stride;
    this.#groups = channels / groupWidth;
    this.#reduce = new Conv2d(channels, channels / reduction, { kernel: 1, bias: false });
    this.#norm = new BatchNorm2d(channels / reduction);
    this.#span = new Conv2d(channels / reduction, kernel * kernel * this.#groups, { kernel: 1 });
  }
  override *parts(): Iterable<[string, Module]> {
    yield ["conv1.conv", this.#reduce];
    yield ["conv1.bn", this.#norm];
    yield ["conv2.conv", this.#span];
  }
  forward(x: Tensor): Tensor {
    const [k, stride, groups] = [this.#kernel, this.#stride, this.#groups];
    const seen = stride === 1 ? x : averagePool(x, { kernel: stride });
    const made = this.#span.forward(relu(this.#norm.forward(this.#reduce.forward(seen)))); // [N, G · K², H', W']
    const [batch, , height, width] = made.shape;
    const [h, w] = [known(height), known(width)];
    const kernels = made.reshape([batch, groups, k * k, 1, h, w]);
    const around = [2, 3].reduce((y, axis) => y.pad(axis, (k - 1) / 2, (k - 1) / 2), x);
    const window = (start: number, size: number): [number, number, number] => [
      start,
      start + (size - 1) * stride + 1,
      stride,
    ];
    const terms = Array.from({ length: k * k }, (_, place) => {
      const row = around.slice(2, ...window(Math.floor(place / k), h));
      const pixels = row.slice(3, ...window(place % k, w)).reshape([batch, groups, -1, h, w]);
      return pixels.mul(kernels.slice(2, place, place + 1).reshape([batch, groups, 1, h, w]));
    });
    return terms.reduce((sum, term) => sum.add(term)).reshape([batch, x.shape[1], h, w]);
  }
}
