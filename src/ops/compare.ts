import { ShapeError } from "../base/errors.ts";
import { type DType, dtypeCodes, isFloat } from "../graph/dtype.ts";
import { broadcast, isCount } from "../graph/shape.ts";
import { constant, scalar, type Tensor, type TensorType } from "../graph/tensor.ts";
import { broadcastShape, type Draw, defineOp, explained, sameDtype } from "./define.ts";

function truth({ a, b }: { a: Tensor; b: Tensor }): TensorType {
  sameDtype(a, b);
  return { dtype: "bool", shape: broadcastShape(a, b) };
}
const flat = () => ({ a: null, b: null });

function checkBool(x: Tensor): void {
  if (x.dtype !== "bool") throw new ShapeError({ message: `it reads bool, not ${x.dtype}`, help: "compare it" });
}

export const equal = defineOp({ onnx: "Equal", inputs: ["a", "b"], infer: truth, vjp: flat });
export const greater = defineOp({ onnx: "Greater", inputs: ["a", "b"], infer: truth, vjp: flat });
export const greaterOrEqual = defineOp({ onnx: "GreaterOrEqual", inputs: ["a", "b"], infer: truth, vjp: flat });
export const less = defineOp({ onnx: "Less", inputs: ["a", "b"], infer: truth, vjp: flat });
export const lessOrEqual = defineOp({ onnx: "LessOrEqual", inputs: ["a", "b"], infer: truth, vjp: flat });
export const and = defineOp({
  onnx: "And",
  inputs: ["a", "b"],
  infer: ({ a, b }) => {
    checkBool(a);
    return truth({ a, b });
  },
  vjp: flat,
});
export const not = defineOp({
  onnx: "Not",
  inputs: ["x"],
  infer: ({ x }) => {
    checkBool(x);
    return { dtype: "bool", shape: x.shape };
  },
  vjp: () => ({ x: null }),
});

const castOp: Draw<["x"], { to: DType }> = defineOp({
  onnx: "Cast",
  inputs: ["x"],
  infer: ({ x }, { to }) => ({ dtype: to, shape: x.shape }),
  vjp: ({ x }, dy, { attrs }) => ({ x: isFloat(x.dtype) && isFloat(attrs.to) ? cast(dy, { to: x.dtype }) : null }),
  form: ({ to }) => ({ attributes: { to: dtypeCodes[to] } }),
});

/** The same values as another dtype.  A gradient flows between float types only. */
export const cast = (x: Tensor, { to }: { to: DType }): Tensor => (x.dtype === to ? x : castOp(x, { to }));

/** a where the condition holds, else b. */
export const where: Draw<["condition", "a", "b"]> = defineOp({
  onnx: "Where",
  inputs: ["condition", "a", "b"],
  infer: ({ condition, a, b }) => {
    if (condition.dtype !== "bool") throw new ShapeError({ message: "the condition must be bool", help: "compare it" });
    sameDtype(a, b);
    const shape = broadcast(broadcastShape(a, b), condition.shape);
    if (!shape) throw new ShapeError("the condition does not broadcast with the others");
    return { dtype: a.dtype, shape };
  },
  vjp: ({ condition }, dy) => {
    const zero = scalar(0, dy.dtype);
    return { condition: null, a: where(condition, dy, zero), b: where(condition, zero, dy) };
  },
});

/** 1 at the label's place, else 0.  labels int32 [...B] -> [...B, classes] of `dtype` */
export function oneHot(labels: Tensor, classes: number, dtype: DType = "float32"): Tensor {
  explained("oneHot", [labels], ["labels"], () => {
    if (!isCount(classes)) throw new ShapeError(`there are no ${classes} classes`);
  });
  const range = constant(
    Int32Array.from({ length: classes }, (_, i) => i),
    [classes],
    "int32",
  );
  return cast(equal(labels.unsqueeze(-1), range), { to: dtype });
}
