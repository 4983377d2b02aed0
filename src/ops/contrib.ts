/** Operators of ONNX Runtime's own (domain com.microsoft and below).  They have no gradient: passes draw them where one has been drawn. */
import { ShapeError } from "../base/errors.ts";
import { known } from "../graph/shape.ts";
import { FloatAttr, type Tensor } from "../graph/tensor.ts";
import { type ConvAttrs, convSize } from "./conv.ts";
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

/**
 * The layout NCHWc: maps whose channels lie in blocks of as many as the processor computes at once, 8 or 16, which the engine's fastest
 * convolutions read.  Shapes stay those of [N, C, H, W]; only what is written here and in `blockedConv` may read the values.
 */
export const blocked = "com.microsoft.nchwc";

/** A map, of channels before or after the places, in blocks.  [N, C, H, W] or [N, H, W, C] -> [N, C, H, W] */
export const toBlocks = defineOp<["x"], { channelsLast: boolean }>({
  onnx: "ReorderInput",
  domain: blocked,
  inputs: ["x"],
  infer: ({ x }, { channelsLast }) => {
    const [n, a, b, c] = x.shape;
    return { dtype: x.dtype, shape: channelsLast ? [n, c, a, b] : x.shape };
  },
  form: ({ channelsLast }) => ({ attributes: { channels_last: channelsLast ? 1 : 0 } }),
  vjp: "none",
});

/** The way back.  [N, C, H, W] -> [N, C, H, W] or [N, H, W, C] */
export const fromBlocks = defineOp<["x"], { channelsLast: boolean }>({
  onnx: "ReorderOutput",
  domain: blocked,
  inputs: ["x"],
  infer: ({ x }, { channelsLast }) => {
    const [n, c, h, w] = x.shape;
    return { dtype: x.dtype, shape: channelsLast ? [n, h, w, c] : x.shape };
  },
  form: ({ channelsLast }, node) => ({
    attributes: { channels: known(node.inputs[0]!.shape[1]), channels_last: channelsLast ? 1 : 0 },
  }),
  vjp: "none",
});

/** Each place of a map in blocks, as often as `times` says along both axes.  [N, C, H, W] -> [N, C, H · t, W · u] */
export const enlargeBlocks = defineOp<["x"], { times: readonly number[] }>({
  onnx: "Upsample",
  domain: blocked,
  inputs: ["x"],
  infer: ({ x }, { times }) => ({
    dtype: x.dtype,
    shape: [...x.shape.slice(0, 2), ...times.map((t, i) => t * known(x.shape[i + 2]))],
  }),
  form: ({ times }) => ({ attributes: { scales: [1, 1, ...times], mode: "nearest" } }),
  vjp: "none",
});

/**
 * A convolution in blocks.  Depthwise weights lie as a map [1, C, K, L] in blocks does; others in blocks of output channels, in these
 * of input channels, in these places, in these one input channel after the other with its output channels side by side.
 * x: [N, C, H, W], w: [O, C / group, K, L], bias: [O] -> [N, O, H', W']
 */
export const blockedConv = defineOp<["x", "w", "bias?"], ConvAttrs>({
  onnx: "Conv",
  domain: blocked,
  inputs: ["x", "w", "bias?"],
  infer: ({ x, w }, { strides, pads, dilations }) => ({
    dtype: x.dtype,
    shape: [
      x.shape[0],
      w.shape[0],
      ...strides.map((stride, i) =>
        convSize(known(x.shape[i + 2]), known(w.shape[i + 2]), stride, pads[i] + pads[i + 2], dilations[i]),
      ),
    ],
  }),
  form: ({ strides, pads, dilations, group }) => ({ attributes: { strides, pads, dilations, group } }),
  vjp: "none",
});

/** A number a channel times a map, and one more, then another map added and negatives left out.  x, z: [N, C, H, W], gain, shift: [C] */
export const scaledMap = defineOp<["x", "gain", "shift", "z?"], { relu: boolean }>({
  onnx: "FusedConv",
  domain,
  inputs: ["x", "gain", "shift", "z?"],
  infer: ({ x }) => ({ dtype: x.dtype, shape: x.shape }),
  form: ({ relu }, { inputs: [x] }) => ({
    attributes: {
      ...{ group: known(x!.shape[1]), kernel_shape: [1, 1], strides: [1, 1], pads: [0, 0, 0, 0], dilations: [1, 1] },
      ...(relu ? { activation: "Relu" } : {}),
    },
  }),
  vjp: "none",
});
