import { ShapeError } from "../base/errors.ts";
import { type DType, dataOf } from "../graph/dtype.ts";
import { isCount, isOpen, known, normalAxis, type Shape, sameShape, showShape, sizeOf } from "../graph/shape.ts";
import { constant, FloatAttr, type Tensor, type TensorType } from "../graph/tensor.ts";
import { cast } from "./compare.ts";
import { type DrawMany, defineMany, defineOp, explained, sameDtype } from "./define.ts";
import { columnSums } from "./linalg.ts";
import { withGradient } from "./move.ts";
import { reduceSumSquare } from "./reduce.ts";

/** eˣ / Σ eˣ along an axis (ONNX Softmax). */
const softmaxOp = defineOp<["x"], { axis: number }>({
  onnx: "Softmax",
  inputs: ["x"],
  infer: ({ x }) => ({ dtype: x.dtype, shape: x.shape }),
  // dx = y (dy - Σ dy y)
  vjp: (_, dy, { y, attrs: { axis } }) => {
    const mixed = axis === y.rank - 1 && shortSum(dy, y);
    if (mixed) return { x: y.mul(dy.sub(mixed)) };
    const weighted = dy.mul(y);
    return { x: weighted.sub(y.mul(weighted.sum([axis], true))) };
  },
});

/**
 * Σ dy y along the last axis where y are the weights of a mean, as in attention: from o = y v comes dy = g vᵀ, so that it is Σ g o, over
 * shorter rows where fewer values are mixed than there are weights.  o is drawn as the forward pass drew it: the engine merges the two.
 * Dao et al., "FlashAttention" (2022), appendix B.2.  dy, y: [...B, M] -> [...B, 1], or nothing where dy is no such product
 */
function shortSum(dy: Tensor, y: Tensor): Tensor | undefined {
  const [g, vT] = dy.node.op.name === "MatMul" ? (dy.node.inputs as Tensor[]) : [];
  if (!vT || vT.rank !== y.rank || y.rank < 2) return undefined;
  const [values, weights] = vT.shape.slice(-2);
  if (isOpen(values) || isOpen(weights) || values >= weights) return undefined;
  const o = y.matmul(vT.mT);
  return sameShape(o.shape, g.shape) ? g.mul(o).sum([-1], true) : undefined;
}

/** eˣ / Σ eˣ along an axis. */
export const softmax = (x: Tensor, { axis = -1 }: { axis?: number } = {}): Tensor =>
  explained("Softmax", [x], ["x"], () => softmaxOp(x, { axis: normalAxis(axis, x.rank) }));

/** ln softmax(x), drawn from what WebGPU has. */
export const logSoftmax = (x: Tensor, { axis = -1 }: { axis?: number } = {}): Tensor =>
  x.sub(x.logSumExp([axis], true));

/** The same number, count times.  [count] */
const filled = (count: number, value: number, dtype: DType): Tensor =>
  constant(dataOf(dtype, new Float32Array(count).fill(value)), [count], dtype);

/** What scales and shifts the normalised axes has their shape. */
function numberEach(x: Tensor, normalised: Shape, others: Readonly<Record<string, Tensor | undefined>>): void {
  for (const [name, other] of Object.entries(others)) {
    sameDtype(x, other);
    if (other && !sameShape(other.shape, normalised))
      throw new ShapeError(`it normalises ${showShape(normalised)}, ${name} has ${showShape(other.shape)}`);
  }
}

/** ONNX LayerNormalization: the result, and of each row in float32 its mean and 1/σ. */
export const layerNormOp: DrawMany<{ axis: number; epsilon: number }> = defineMany({
  onnx: "LayerNormalization",
  inputs: ["x", "scale", "bias?"],
  infer: ([x, scale, bias], { axis }) => {
    if (axis < 0 || axis >= x.rank) throw new ShapeError(`${x.rank - axis} axes are to be normalised, x has ${x.rank}`);
    numberEach(x, x.shape.slice(axis), { scale, bias });
    // The mean and 1/σ come out in float32 whatever x is.
    const one: TensorType = { dtype: "float32", shape: x.shape.map((d, i) => (i < axis ? d : 1)) };
    return [{ dtype: x.dtype, shape: x.shape }, one, one];
  },
  form: ({ axis, epsilon }) => ({ attributes: { axis, epsilon: new FloatAttr(epsilon) } }),
  // With x̂ = (x - μ)/σ and g = dy γ:  dx = (g - mean(g) - x̂ mean(g x̂)) / σ,  dγ = Σ dy x̂,  dβ = Σ dy.
  // x̂ is normalised again rather than kept: one pass over x, and nothing to store.
  // A gradient of a gradient arrives at the statistics too:  dμ/dx = 1/n,  d(1/σ)/dx = -x̂ / (n σ²).
  vjp: ([x, scale, bias], [dy, dMean, dInverse], { ys, attrs: { axis, epsilon } }) => {
    const count = known(sizeOf(x.shape.slice(axis)));
    const unit = filled(count, 1, x.dtype).reshape(scale.shape);
    const xhat = layerNormOp([x, unit], { axis, epsilon })[0];
    const inverse = cast(ys[2], { to: x.dtype });
    const dxs: Tensor[] = [];
    if (dMean) dxs.push(cast(dMean, { to: x.dtype }).mul(1 / count));
    if (dInverse)
      dxs.push(
        cast(dInverse, { to: x.dtype })
          .mul(inverse)
          .mul(inverse)
          .mul(-1 / count)
          .mul(xhat),
      );
    if (!dy) return [dxs.reduce((sum, dx) => sum.add(dx)), null, null];
    // The two means weigh by γ, so they are products with it: nothing of the size of x is made for them.
    const flat = (t: Tensor): Tensor => t.reshape([sizeOf(x.shape.slice(0, axis)), count]);
    const weigh = scale.reshape([count, 1]).mul(1 / count);
    const mean = (t: Tensor): Tensor => flat(t).matmul(weigh).reshape(inverse.shape);
    const share = dy.mul(xhat);
    dxs.push(
      dy
        .mul(scale)
        .sub(mean(dy))
        .sub(xhat.mul(mean(share)))
        .mul(inverse),
    );
    return [
      dxs.reduce((sum, dx) => sum.add(dx)),
      columnSums(flat(share)).reshape(scale.shape),
      bias ? columnSums(flat(dy)).reshape(bias.shape) : null,
    ];
  },
});

/**
 * Normalises the last axes to mean 0 and variance 1, then scales and shifts (ONNX LayerNormalization).
 * Ba et al., "Layer Normalization" (2016).  x: [...B, ...S], scale, bias: [...S]
 */
export function layerNorm(x: Tensor, scale: Tensor, bias: Tensor | undefined, epsilon: number): Tensor {
  return layerNormOp([x, scale, bias], { axis: x.rank - scale.rank, epsilon })[0];
}

/** The type of x, a map of so many axes or more, which the others have a number for each channel of. */
function perChannelType(x: Tensor, others: Readonly<Record<string, Tensor | undefined>>, axes = 2): TensorType {
  if (x.rank < axes) throw new ShapeError(`${axes} axes or more are needed, [N, C, ...S]; x has ${x.rank}`);
  for (const [name, other] of Object.entries(others)) {
    sameDtype(x, other);
    if (other && !sameShape(other.shape, x.shape.slice(1, 2)))
      throw new ShapeError(`${x.shape[1]} channels came, ${name} has ${showShape(other.shape)}`);
  }
  return { dtype: x.dtype, shape: x.shape };
}

/** (x - mean) / √(var + ε) · scale + bias with given statistics (ONNX BatchNormalization).  x: [N, C, ...S], others [C] */
export const batchNorm = defineOp<["x", "scale", "bias", "mean", "variance"], { epsilon: number }>({
  onnx: "BatchNormalization",
  inputs: ["x", "scale", "bias", "mean", "variance"],
  infer: ({ x, ...others }) => perChannelType(x, others),
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

/**
 * Batch normalisation by the statistics of the batch itself, and these statistics.  x: [N, C, ...S], scale, bias: [C]
 * Its gradient is a rule of its own: with n values a channel and x̂ = (x - μ)/σ,
 *
 *     dβ = Σ dy,  dγ = Σ dy x̂,  dx = γ/σ (dy - dβ/n - x̂ dγ/n)
 *
 * where dx is written as a dy + b (x - μ) + c with three numbers a channel: two passes over x instead of a dozen.
 */
export function batchNormTraining(
  x: Tensor,
  scale: Tensor,
  bias: Tensor,
  epsilon: number,
): { y: Tensor; mean: Tensor; variance: Tensor } {
  explained("batchNormTraining", [x, scale, bias], ["x", "scale", "bias"], () => perChannelType(x, { scale, bias }));
  const [batch, channels] = [known(x.shape[0], "the batch"), known(x.shape[1], "the channel axis")];
  const places = known(sizeOf(x.shape.slice(2)), "a spatial axis");
  const flat = (t: Tensor): Tensor => t.reshape([batch, channels, places]);
  const each = (t: Tensor): Tensor => t.reshape([1, channels, 1]);
  const normalise = places >= manyPlaces && x.dtype !== "float64" ? centredMaps : centred;
  const { mean, variance, scaled, weigh } = normalise(flat(x));
  const deviation = variance.add(epsilon).sqrt();
  const draw = withGradient(
    (_, gain, shift) => scaled(each(gain).div(deviation), each(shift)).reshape(x.shape),
    (y, _, gain) => {
      const dy = flat(y);
      const sums = dy.sum([2], true); // [N, C, 1]
      // Both passes over dy follow one another: they can be made tile by tile.
      const dScale = weigh(dy, sums).div(deviation);
      const dBias = sums.sum([0], true);
      const a = each(gain).div(deviation);
      const share = a.mul(-1 / (batch * places));
      const rest = scaled(dScale.div(deviation).mul(share), dBias.mul(share));
      return [dy.mul(a).add(rest).reshape(x.shape), dScale.reshape([channels]), dBias.reshape([channels])];
    },
  );
  return { y: draw(x, scale, bias), mean: mean.reshape([channels]), variance: variance.reshape([channels]) };
}

/** Places of a map from which it is normalised by itself first: that is one pass over memory, and costs a start. */
const manyPlaces = 128;

/** x - μ, in whatever form: [N, C, S]. */
interface Centred {
  /** [1, C, 1] */
  mean: Tensor;
  /** [1, C, 1] */
  variance: Tensor;
  /** (x - μ) gain + shift.  gain, shift: [1, C, 1] -> [N, C, S] */
  scaled(gain: Tensor, shift: Tensor): Tensor;
  /** Σ dy (x - μ).  dy: [N, C, S], its sums over S: [N, C, 1] -> [1, C, 1] */
  weigh(dy: Tensor, sums: Tensor): Tensor;
}

function centred(x: Tensor): Centred {
  const mean = x.mean([2], true).mean([0], true);
  // Centred first: E[x²] - μ² would lose digits.
  const map = x.sub(mean);
  const squares = reduceSumSquare(map, { axes: [2], keepdims: true }).mul(1 / known(x.shape[2]));
  return {
    mean,
    variance: squares.mean([0], true),
    scaled: (gain, shift) => scaleChannels(map, gain, shift),
    weigh: (dy) => dy.mul(map).sum([2], true).sum([0], true),
  };
}

/** The same from the statistics μₙ and σₙ of each map, which one accurate pass finds: x - μ = σₙ x̂ₙ + (μₙ - μ). */
function centredMaps(x: Tensor): Centred {
  const [batch, channels, places] = x.shape as number[];
  // The variance of a map that is the same everywhere is not to be 0; beside any other this cannot be seen.
  const normal = layerNormOp([x, filled(places, 1, x.dtype)], { axis: 2, epsilon: 1e-12 });
  const [unit, means, inverses] = [normal[0], ...normal.slice(1).map((t) => cast(t, { to: x.dtype }))]; // the last two: [N, C, 1]
  const deviation = inverses.reciprocal();
  const mean = means.mean([0], true);
  const offset = means.sub(mean);
  return {
    mean,
    variance: deviation.square().add(offset.square()).mean([0], true),
    scaled(gain, shift) {
      const maps = unit.reshape([1, batch * channels, places]);
      return scaleChannels(maps, gain.mul(deviation), gain.mul(offset).add(shift)).reshape(x.shape);
    },
    weigh: (dy, sums) => dy.mul(unit).sum([2], true).mul(deviation).add(sums.mul(offset)).sum([0], true),
  };
}

/** x gain + shift.  x: [N, C, S], gain, shift: C numbers */
function scaleChannels(x: Tensor, gain: Tensor, shift: Tensor): Tensor {
  const count = known(x.shape[1]);
  const [zeros, ones] = [0, 1].map((value) => filled(count, value, x.dtype));
  return batchNorm(x, gain.reshape([count]), shift.reshape([count]), zeros, ones, { epsilon: 0 });
}

/** Normalises each channel of each image over its map (ONNX InstanceNormalization).  x: [N, C, ...S], scale, bias: [C] */
export const instanceNorm = defineOp<["x", "scale", "bias"], { epsilon: number }>({
  onnx: "InstanceNormalization",
  inputs: ["x", "scale", "bias"],
  infer: ({ x, ...others }) => perChannelType(x, others, 3),
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
export function groupNorm(x: Tensor, groups: number, scale: Tensor, bias: Tensor | undefined, epsilon: number): Tensor {
  explained("groupNorm", [x, scale, bias], ["x", "scale", "bias"], () => {
    perChannelType(x, { scale, bias });
    if (!isCount(groups) || known(x.shape[1]) % groups !== 0)
      throw new ShapeError(`${x.shape[1]} channels do not divide into ${groups} groups`);
  });
  const constantly = (value: number): Tensor => filled(groups, value, x.dtype);
  const map = sizeOf(x.shape.slice(1));
  const each = known(map) / groups;
  const normal = instanceNorm(x.reshape([x.shape[0], groups, each]), constantly(1), constantly(0), { epsilon });
  const shape = [-1, ...x.shape.slice(2).map(() => 1)];
  const scaled = normal.reshape(x.shape).mul(scale.reshape(shape));
  return bias ? scaled.add(bias.reshape(shape)) : scaled;
}

/** x / √(mean(x²) + ε) · scale over the last axis.  Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019). */
export function rmsNorm(x: Tensor, scale: Tensor, epsilon: number): Tensor {
  explained("rmsNorm", [x, scale], ["x", "scale"], () => numberEach(x, x.shape.slice(-1), { scale }));
  return x.mul(x.mul(x).mean([-1], true).add(epsilon).sqrt().reciprocal()).mul(scale);
}

/** x / |x| along the last axis; zeros stay zeros.  Cosine similarity is the product of two of these. */
export const unitNorm = (x: Tensor, epsilon = 1e-12): Tensor =>
  x.mul(
    reduceSumSquare(x, { axes: [x.rank - 1], keepdims: true })
      .add(epsilon ** 2)
      .sqrt()
      .reciprocal(),
  );
