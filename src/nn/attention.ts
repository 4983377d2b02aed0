import { known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { linear } from "../ops/linalg.ts";
import { split } from "../ops/move.ts";
import { softmax } from "../ops/norm.ts";
import { Linear } from "./layers.ts";
import { Module } from "./module.ts";

/**
 * Queries, keys and values from one layer's weights, queries scaled by 1/√D.  The weights are cut rather than what they make, and
 * the scale is given to them: both cost next to nothing there.  x: [...B, C] -> three of [...B, C]
 */
export function projections({ weight, bias }: Pick<Linear, "weight" | "bias">, x: Tensor, heads: number): Tensor[] {
  const scale = (known(weight.shape[0]) / 3 / heads) ** -0.5;
  const weights = split(weight, 0, 3);
  const biases = bias ? split(bias, 0, 3) : [];
  const scaled = (t: Tensor, i: number): Tensor => (i === 0 ? t.mul(scale) : t);
  return weights.map((w, i) => linear(x, scaled(w, i), biases[i] && scaled(biases[i], i)));
}

/** A layer whose rows hold query, key and value of one head after the other: with all queries first, then keys, then values. */
export function queriesFirst(
  { weight, bias }: Pick<Linear, "weight" | "bias">,
  heads: number,
): Pick<Linear, "weight" | "bias"> {
  const sorted = (t: Tensor): Tensor => t.reshape([heads, 3, -1]).swapAxes(0, 1).reshape(t.shape);
  return { weight: sorted(weight), bias: bias && sorted(bias) };
}

/** What a layer makes, in equal parts along the last axis, its weights cut rather than what they make.  x: [...B, C] -> count of [...B, O / count] */
export function cutLinear({ weight, bias }: Linear, x: Tensor, count: number): Tensor[] {
  const biases = bias ? split(bias, 0, count) : [];
  return split(weight, 0, count).map((w, i) => linear(x, w, biases[i]));
}

/** softmax(q kᵀ) v for each head; q has been scaled.  q: [N, L, C], k, v: [N, M, C] -> [N, L, C] */
export function attend(q: Tensor, k: Tensor, v: Tensor, heads: number): Tensor {
  const [qs, ks, vs] = [q, k, v].map((t) =>
    t.reshape([t.shape[0], t.shape[1], heads, known(t.shape[2]) / heads]).permute(0, 2, 1, 3),
  ); // [N, heads, L, C / heads]
  return softmax(qs.matmul(ks.mT)).matmul(vs).permute(0, 2, 1, 3).reshape(q.shape);
}

/**
 * Each token attends to all.  Vaswani et al., "Attention Is All You Need" (2017), section 3.2.  [N, L, C] -> [N, L, C]
 * `bias`: whether queries, keys and values have one.
 */
export class Attention extends Module {
  qkv;
  proj;
  readonly #heads;
  constructor(dim: number, heads: number, { bias = true }: { bias?: boolean } = {}) {
    super();
    this.#heads = heads;
    this.qkv = new Linear(dim, 3 * dim, { bias });
    this.proj = new Linear(dim, dim);
  }
  forward(x: Tensor): Tensor {
    const [q, k, v] = projections(this.qkv, x, this.#heads);
    return this.proj.forward(attend(q, k, v, this.#heads));
  }
}
