import { ShapeError } from "../base/errors.ts";
import { type DType, dtypeCodes, isFloat } from "../graph/dtype.ts";
import { broadcast } from "../graph/shape.ts";
import { constant, scalar, type Tensor, type TensorType } from "../graph/tensor.ts";
import { type Draw, defineOp } from "./define.ts";

function truth({ a, b }: { a: Tensor; b: Tensor }): TensorType {
  const shape = broadcast(a.shape, b.shape);
  if (!shape) throw new ShapeError("shapes do not broadcast");
  if (a.dtype !== b.dtype) throw new ShapeError({ message: "dtypes differ", help: "cast one of them" });
  return { dtype: "bool", shape };
}
const flat = () => ({ a: null, b: null });

export const equal = defineOp({ onnx: "Equal", inputs: ["a", "b"], infer: truth, vjp: flat });
export const greater = defineOp({ onnx: "Greater", inputs: ["a", "b"], infer: truth, vjp: flat });
export const greaterOrEqual = defineOp({ onnx: "GreaterOrEqual", inputs: ["a", "b"], infer: truth, vjp: flat });
export const less = defineOp({ onnx: "Less", inputs: ["a", "b"], infer: truth, vjp: flat });
export const lessOrEqual = defineOp({ onnx: "LessOrEqual", inputs: ["a", "b"], infer: truth, vjp: flat });
export const and = defineOp({ onnx: "And", inputs: ["a", "b"], infer: truth, vjp: flat });
export const not = defineOp({
  onnx: "Not",
  inputs: ["x"],
  infer: ({ x }) => ({ dtype: "bool", shape: x.shape }),
  vjp: () => ({ x: null }),
});

/** The same values as another dtype.  A gradient flows between float types only. */
export const cast: Draw<["x"], { to: DType }> = defineOp({
  onnx: "Cast",
  inputs: ["x"],
  infer: ({ x }, { to }) => ({ dtype: to, shape: x.shape }),
  vjp: ({ x }, dy, { attrs }) => ({ x: isFloat(x.dtype) && isFloat(attrs.to) ? cast(dy, { to: x.dtype }) : null }),
  form: ({ to }) => ({ attributes: { to: dtypeCodes[to] } }),
});

/** a where the condition holds, else b. */
export const where: Draw<["condition", "a", "b"]> = defineOp({
  onnx: "Where",
  inputs: ["condition", "a", "b"],
  infer: ({ condition, a, b }) => {
    const shape = broadcast(a.shape, b.shape);
    const full = shape && broadcast(condition.shape, shape);
    if (!full) throw new ShapeError("shapes do not broadcast");
    if (condition.dtype !== "bool") throw new ShapeError("the condition must be bool");
    if (a.dtype !== b.dtype) throw new ShapeError({ message: "dtypes differ", help: "cast one of them" });
    return { dtype: a.dtype, shape: full };
  },
  vjp: ({ condition }, dy) => {
    const zero = scalar(0, dy.dtype);
    return { condition: null, a: where(condition, dy, zero), b: where(condition, zero, dy) };
  },
});

/** 1 at the label's place, else 0.  labels int32 [...B] -> [...B, classes] of `dtype` */
export function oneHot(labels: Tensor, classes: number, dtype: DType = "float32"): Tensor {
  const range = constant(
    Int32Array.from({ length: classes }, (_, i) => i),
    [classes],
    "int32",
  );
  return cast(equal(labels.unsqueeze(-1), range), { to: dtype });
}
