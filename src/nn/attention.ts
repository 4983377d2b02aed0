import { known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { linear } from "../ops/linalg.ts";
import { split } from "../ops/move.ts";
import type { Linear } from "./layers.ts";

/**
 * Queries, keys and values from one layer's weights, queries scaled by 1/√D.  The weights are cut rather than what they make, and
 * the scale is given to them: both cost next to nothing there.  x: [...B, C] -> three of [...B, C]
 */
export function projections({ weight, bias }: Linear, x: Tensor, heads: number): Tensor[] {
  const scale = (known(weight.shape[0]) / 3 / heads) ** -0.5;
  const weights = split(weight, 0, 3);
  const biases = bias ? split(bias, 0, 3) : [];
  const scaled = (t: Tensor, i: number): Tensor => (i === 0 ? t.mul(scale) : t);
  return weights.map((w, i) => linear(x, scaled(w, i), biases[i] && scaled(biases[i], i)));
}
