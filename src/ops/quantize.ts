import { OrielError, ShapeError } from "../base/errors.ts";
import type { DType } from "../graph/dtype.ts";
import { known, normalAxis } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { defineOp } from "./define.ts";

/** Whole numbers stand for floats: x ≈ (q - zero) · scale, with one scale for a tensor or one for each place of `axis`. */
interface Quantized {
  axis: number;
  dtype: DType;
}

/** A scale is one number, or one for each place of the axis; the zero point has its shape. */
function checkScale(x: Tensor, scale: Tensor, zero: Tensor | undefined, axis: number): void {
  const one = scale.rank === 0 || (scale.rank === 1 && scale.shape[0] === 1);
  if (!one && (scale.rank !== 1 || scale.shape[0] !== known(x.shape[normalAxis(axis, x.rank)], "a quantised axis")))
    throw new ShapeError("there is one scale for a tensor, or one for each place of its axis");
  if (zero && zero.rank !== scale.rank) throw new ShapeError("a zero point goes with each scale");
}

const inferenceOnly = (): never => {
  throw new OrielError("autodiff", {
    message: "the model is quantised, so it is for inference: rounding has no gradient",
    help: "fine-tune the float model that it was made from",
  });
};

/** Floats to whole numbers: round(x / scale) + zero, cut to the range of `dtype` (ONNX QuantizeLinear).  For inference. */
export const quantizeLinear = defineOp<["x", "scale", "zero?"], Quantized>({
  onnx: "QuantizeLinear",
  inputs: ["x", "scale", "zero?"],
  infer: ({ x, scale, zero }, { axis, dtype }) => {
    checkScale(x, scale, zero, axis);
    return { dtype, shape: x.shape };
  },
  vjp: inferenceOnly,
  form: ({ axis }) => ({ attributes: { axis } }),
});

/** Whole numbers back to floats: (q - zero) · scale (ONNX DequantizeLinear).  For inference. */
export const dequantizeLinear = defineOp<["x", "scale", "zero?"], { axis: number }>({
  onnx: "DequantizeLinear",
  inputs: ["x", "scale", "zero?"],
  infer: ({ x, scale, zero }, { axis }) => {
    checkScale(x, scale, zero, axis);
    if (zero && zero.dtype !== x.dtype)
      throw new ShapeError(`the zero point is ${zero.dtype}, what it shifts ${x.dtype}`);
    return { dtype: scale.dtype, shape: x.shape };
  },
  vjp: inferenceOnly,
});
