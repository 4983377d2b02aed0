/** Fused operators of ONNX Runtime (domain com.microsoft).  They make inference faster; training does without, since they have no gradient. */
import { ShapeError } from "../base/errors.ts";
import { FloatAttr, type Tensor } from "../graph/tensor.ts";
import { defineMany, defineOp } from "./define.ts";

const domain = "com.microsoft";

/**
 * softmax(q kᵀ · scale + bias) v for each head.  q: [B, L, heads · D], k, v: [B, S, heads · D], bias: [1 or B, 1 or heads, L, S]
 * -> [B, L, heads · D]
 */
export const multiHeadAttention = defineOp<
  ["q", "k", "v", "projectionBias?", "mask?", "bias?"],
  { heads: number; scale: number }
>({
  onnx: "MultiHeadAttention",
  domain,
  inputs: ["q", "k", "v", "projectionBias?", "mask?", "bias?"],
  infer: ({ q, k, v }) => {
    if (q.rank !== 3 || k.rank !== 3 || v.rank !== 3) throw new ShapeError("q, k and v have three axes");
    return { dtype: q.dtype, shape: [q.shape[0], q.shape[1], v.shape[2]] };
  },
  form: ({ heads, scale }) => ({ attributes: { num_heads: heads, scale: new FloatAttr(scale) } }),
  vjp: "none",
  cost: ([q, k], [y]) =>
    [y, q as Tensor].reduce((sum, x) => sum + Number(x.shape[1]) * Number(x.shape[2]) * Number(k!.shape[1]), 0),
});

/** gelu(x + bias).  x: [...B, C], bias: [C] */
export const biasGelu = defineOp({
  onnx: "BiasGelu",
  domain,
  inputs: ["x", "bias"],
  infer: ({ x }) => ({ dtype: x.dtype, shape: x.shape }),
  vjp: "none",
});

/** y = layerNorm(s) and s = x + skip + bias, in one pass.  x, skip: [N, L, C] */
export const skipLayerNorm = defineMany<{ epsilon: number }>({
  onnx: "SkipLayerNormalization",
  domain,
  inputs: ["x", "skip", "scale", "shift?", "bias?"],
  infer: ([x]) => {
    const same = { dtype: x.dtype, shape: x.shape };
    return [same, { dtype: "float32", shape: [] }, { dtype: "float32", shape: [] }, same];
  },
  form: ({ epsilon }) => ({ attributes: { epsilon: new FloatAttr(epsilon) } }),
  vjp: "none",
});
