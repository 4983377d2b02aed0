import { dataOf } from "../graph/dtype.ts";
import { known } from "../graph/shape.ts";
import { constant, type Tensor } from "../graph/tensor.ts";
import { conv } from "../ops/conv.ts";
import { padAxes } from "../ops/move.ts";
import { Module } from "./module.ts";

/** Row n of Pascal's triangle, as shares of its sum. */
function binomial(size: number): number[] {
  let row = [1];
  while (row.length < size) row = [0, ...row].map((x, i) => x + (row[i] ?? 0));
  return row.map((x) => x / 2 ** (size - 1));
}

/**
 * Blurs a map before it takes every second pixel, so that a shifted image gives a shifted map; borders are reflected.
 * [N, C, H, W] -> [N, C, H / stride, W / stride].  Zhang, "Making Convolutional Networks Shift-Invariant Again" (ICML 2019),
 * https://arxiv.org/abs/1904.11486, section 3.
 */
export class BlurPool2d extends Module {
  readonly #size: number;
  readonly #stride: number;
  constructor({ size = 3, stride = 2 }: { size?: number; stride?: number } = {}) {
    super();
    this.#size = size;
    this.#stride = stride;
  }
  forward(x: Tensor): Tensor {
    const channels = known(x.shape[1], "the channel axis");
    const row = binomial(this.#size);
    const filter = row.flatMap((a) => row.map((b) => a * b));
    const values = Array.from({ length: channels }, () => filter).flat();
    const weight = constant(dataOf(x.dtype, values), [channels, 1, this.#size, this.#size], x.dtype);
    const pad = Math.floor((this.#stride + this.#size - 2) / 2);
    const mirrored = padAxes(x, { before: [0, 0, pad, pad], after: [0, 0, pad, pad], mode: "reflect" });
    return conv(mirrored, weight, undefined, { stride: this.#stride, groups: channels });
  }
}
