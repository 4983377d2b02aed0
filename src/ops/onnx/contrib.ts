import { known } from "../../graph/shape.ts";
import type { Tensor } from "../../graph/tensor.ts";
import * as elementwise from "../elementwise.ts";
import * as norm from "../norm.ts";
import type { At, Importer } from "./at.ts";
import { attention, conv, fromHeads, toHeads } from "./layers.ts";

/** x + skip + bias, normalised, and the sum itself as the fourth output. */
const skipNorm =
  (normalise: (sum: Tensor, at: At) => Tensor): Importer =>
  (at) => {
    const bias = at.maybe(at.node.op === "SkipLayerNormalization" ? 4 : 3);
    const skipped = at.x(0).add(at.x(1));
    const sum = bias ? skipped.add(bias) : skipped;
    const y = normalise(sum, at);
    return [y, y, y, sum];
  };

/** What may follow a convolution in one operator, with its numbers. */
const followers: Readonly<Record<string, (y: Tensor, numbers: readonly number[]) => Tensor>> = {
  "": (y) => y,
  Relu: (y) => elementwise.relu(y),
  Sigmoid: (y) => elementwise.sigmoid(y),
  Tanh: (y) => elementwise.tanh(y),
  LeakyRelu: (y, [alpha]) => elementwise.leakyRelu(y, { alpha }),
  Clip: (y, [min, max]) => elementwise.clip(y, { min, max }),
  HardSigmoid: (y, [alpha, beta]) => elementwise.clip(y.mul(alpha).add(beta), { min: 0, max: 1 }),
};

/**
 * The fused operators that ONNX Runtime puts into files it has optimised (domain com.microsoft), drawn apart again: so they can be
 * differentiated, and run where those operators are not.
 */
export const contrib: Readonly<Record<string, Importer>> = {
  Gelu: (at) => elementwise.gelu(at.x(0)),
  BiasGelu: (at) => elementwise.gelu(at.x(0).add(at.x(1))),
  FastGelu: (at) => {
    const bias = at.maybe(1);
    return elementwise.geluTanh(bias ? at.x(0).add(bias) : at.x(0));
  },
  QuickGelu: (at) => {
    const x = at.x(0);
    return x.mul(elementwise.sigmoid(x.mul(at.attr("alpha", 1.702))));
  },
  BiasAdd: (at) => at.x(0).add(at.x(1)).add(at.x(2)),
  SkipLayerNormalization: skipNorm((sum, at) => norm.layerNorm(sum, at.x(2), at.maybe(3), at.attr("epsilon", 1e-12))),
  SkipSimplifiedLayerNormalization: skipNorm((sum, at) => norm.rmsNorm(sum, at.x(2), at.attr("epsilon", 1e-12))),
  FusedConv: (at) => {
    const name = at.text("activation", "");
    if (!Object.hasOwn(followers, name)) throw at.wrong(`is followed by ${name}`);
    const z = at.maybe(3);
    const y = conv(at);
    return followers[name](z ? y.add(z) : y, at.ints("activation_params") ?? []);
  },
  MultiHeadAttention: (at) => {
    const heads = at.attr("num_heads", 1);
    if (at.attr("unidirectional", 0) !== 0) throw at.wrong("is causal");
    if (at.has(3) || at.has(4) || at.has(6) || at.has(7)) throw at.wrong("has a bias, a padding mask or a past");
    const [q, k, v] = [0, 1, 2].map((i) => toHeads(at.x(i), heads));
    const scale = at.attr("scale", 0) || 1 / Math.sqrt(known(q.shape[3]));
    return fromHeads(attention(q, k, v, scale, at.maybe(5)));
  },
};
