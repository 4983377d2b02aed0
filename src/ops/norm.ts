import { ShapeError } from "../base/errors.ts";
import { dataOf } from "../graph/dtype.ts";
import { known, normalAxis, sizeOf } from "../graph/shape.ts";
import { constant, FloatAttr, type Tensor } from "../graph/tensor.ts";
import { type DrawMany, defineMany, defineOp } from "./define.ts";

/** eˣ / Σ eˣ along an axis (ONNX Softmax). */
const softmaxOp = defineOp<["x"], { axis: number }>({
  onnx: "Softmax",
  inputs: ["x"],
  infer: ({ x }) => ({ dtype: x.dtype, shape: x.shape }),
  // dx = y (dy - Σ dy y)
  vjp: (_, dy, { y, attrs: { axis } }) => {
    const weighted = dy.mul(y);
    return { x: weighted.sub(y.mul(weighted.sum([axis], true))) };
  },
});

/** eˣ / Σ eˣ along an axis. */
export const softmax = (x: Tensor, { axis = -1 }: { axis?: number } = {}): Tensor =>
  softmaxOp(x, { axis: normalAxis(axis, x.rank) });

/** ln softmax(x), drawn from what WebGPU has. */
export const logSoftmax = (x: Tensor, { axis = -1 }: { axis?: number } = {}): Tensor =>
  x.sub(x.logSumExp([axis], true));

const layerNormOp: DrawMany<{ axis: number; epsilon: number }> = defineMany({
  onnx: "LayerNormalization",
  inputs: ["x", "scale", "bias?"],
  infer: ([x, scale], { axis }) => {
    if (sizeOf(scale.shape) !== sizeOf(x.shape.slice(axis)))
      throw new ShapeError(`it normalises ${x.shape.slice(axis)} and scales ${scale.shape}`);
    const one = { dtype: x.dtype, shape: x.shape.map((d, i) => (i < axis ? d : 1)) };
    return [{ dtype: x.dtype, shape: x.shape }, one, one];
  },
  form: ({ axis, epsilon }) => ({ attributes: { axis, epsilon: new FloatAttr(epsilon) } }),
  // With x̂ = (x - μ)/σ and g = dy γ:  dx = (g - mean(g) - x̂ mean(g x̂)) / σ,  dγ = Σ dy x̂,  dβ = Σ dy.
  // x̂ is normalised again rather than kept: one pass over x, and nothing to store.
  vjp: ([x, scale, bias], [dy], { ys, attrs: { axis, epsilon } }) => {
    if (!dy) return [null, null, null];
    const normal = x.shape.slice(axis).map((_, i) => axis + i);
    const leading = x.shape.slice(0, axis).map((_, i) => i);
    const count = known(sizeOf(x.shape.slice(axis)));
    const unit = constant(dataOf(x.dtype, new Float32Array(count).fill(1)), scale.shape as number[], x.dtype);
    const xhat = layerNormOp([x, unit], { axis, epsilon })[0];
    const g = dy.mul(scale);
    const along = g.mul(xhat).mean(normal, true);
    const dx = g.sub(g.mean(normal, true)).sub(xhat.mul(along)).mul(ys[2]);
    return [dx, dy.mul(xhat).sum(leading, false), bias ? dy.sum(leading, false) : null];
  },
});

/**
 * Normalises the last axes to mean 0 and variance 1, then scales and shifts (ONNX LayerNormalization).
 * Ba et al., "Layer Normalization" (2016).  x: [...B, ...S], scale, bias: [...S]
 */
export function layerNorm(x: Tensor, scale: Tensor, bias: Tensor | undefined, epsilon: number): Tensor {
  return layerNormOp([x, scale, bias], { axis: x.rank - scale.rank, epsilon })[0];
}

/** (x - mean) / √(var + ε) · scale + bias with given statistics (ONNX BatchNormalization).  x: [N, C, ...S], others [C] */
export const batchNorm = defineOp<["x", "scale", "bias", "mean", "variance"], { epsilon: number }>({
  onnx: "BatchNormalization",
  inputs: ["x", "scale", "bias", "mean", "variance"],
  infer: ({ x }) => ({ dtype: x.dtype, shape: x.shape }),
  form: ({ epsilon }) => ({ attributes: { epsilon: new FloatAttr(epsilon) } }),
  vjp: ({ x, scale, mean, variance }, dy, { attrs: { epsilon } }) => {
    const perChannel = (v: Tensor): Tensor => v.reshape([1, -1, ...x.shape.slice(2).map(() => 1)]);
    const others = x.shape.flatMap((_, i) => (i === 1 ? [] : [i]));
    const inverse = variance.add(epsilon).sqrt().reciprocal();
    const dBias = dy.sum(others, false);
    const dScale = dy
      .mul(x.sub(perChannel(mean)))
      .sum(others, false)
      .mul(inverse);
    return {
      x: dy.mul(perChannel(scale.mul(inverse))),
      scale: dScale,
      bias: dBias,
      mean: dBias.mul(scale).mul(inverse).neg(),
      variance: dScale.mul(scale).mul(inverse).mul(inverse).mul(-0.5),
    };
  },
});

/** Normalises each channel of each image over its map (ONNX InstanceNormalization).  x: [N, C, ...S], scale, bias: [C] */
export const instanceNorm = defineOp<["x", "scale", "bias"], { epsilon: number }>({
  onnx: "InstanceNormalization",
  inputs: ["x", "scale", "bias"],
  infer: ({ x }) => ({ dtype: x.dtype, shape: x.shape }),
  form: ({ epsilon }) => ({ attributes: { epsilon: new FloatAttr(epsilon) } }),
  vjp: ({ x, scale }, dy, { attrs: { epsilon } }) => {
    const map = x.shape.slice(2).map((_, i) => i + 2);
    const perChannel = (v: Tensor): Tensor => v.reshape([1, -1, ...map.map(() => 1)]);
    const centred = x.sub(x.mean(map, true));
    const inverse = centred.mul(centred).mean(map, true).add(epsilon).sqrt().reciprocal();
    const xhat = centred.mul(inverse);
    const g = dy.mul(perChannel(scale));
    const dx = g
      .sub(g.mean(map, true))
      .sub(xhat.mul(g.mul(xhat).mean(map, true)))
      .mul(inverse);
    return { x: dx, scale: dy.mul(xhat).sum([0, ...map], false), bias: dy.sum([0, ...map], false) };
  },
});

/**
 * Normalises groups of channels, drawn from InstanceNormalization since WebGPU has no GroupNormalization.
 * Wu and He, "Group Normalization" (2018).  x: [N, C, ...S], scale, bias: [C]
 */
export function groupNorm(x: Tensor, groups: number, scale: Tensor, bias: Tensor, epsilon: number): Tensor {
  const constantly = (value: number): Tensor =>
    constant(dataOf(x.dtype, new Float32Array(groups).fill(value)), [groups], x.dtype);
  const map = sizeOf(x.shape.slice(1));
  const each = known(map) / groups;
  const normal = instanceNorm(x.reshape([x.shape[0], groups, each]), constantly(1), constantly(0), { epsilon });
  const shape = [-1, ...x.shape.slice(2).map(() => 1)];
  return normal.reshape(x.shape).mul(scale.reshape(shape)).add(bias.reshape(shape));
}

/** x / √(mean(x²) + ε) · scale over the last axis.  Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019). */
export const rmsNorm = (x: Tensor, scale: Tensor, epsilon: number): Tensor =>
  x.mul(x.mul(x).mean([-1], true).add(epsilon).sqrt().reciprocal()).mul(scale);
