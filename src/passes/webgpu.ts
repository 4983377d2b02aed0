import type { DType } from "../graph/dtype.ts";
import { constantOp, leaf, type Node } from "../graph/tensor.ts";

// What ONNX Runtime 1.30's WebGPU provider was measured to run in float32; the rest falls back to the processor.
const kernels = new Set(
  `Abs Neg Exp Sqrt Log Erf Sigmoid Tanh Relu Elu LeakyRelu PRelu HardSigmoid HardSwish ThresholdedRelu Softplus Mish Gelu Clip
  Reciprocal Floor Ceil Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Atanh Add Sub Mul Div Pow Max Min Equal Greater Less
  GreaterOrEqual LessOrEqual And Not Where ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum
  ReduceLogSumExp ReduceSumSquare ArgMax ArgMin TopK CumSum MatMul Gemm Einsum Conv ConvTranspose MaxPool AveragePool
  GlobalAveragePool GlobalMaxPool LayerNormalization InstanceNormalization RMSNormalization BatchNormalization LpNormalization
  Softmax Reshape Flatten Transpose Squeeze Unsqueeze Expand Tile Concat Split Slice Pad DepthToSpace Trilu Range Shape Identity
  Gather GatherElements GatherND ScatterElements ScatterND Resize DequantizeLinear Cast If`.split(/\s+/),
);

const number: readonly DType[] = ["float32", "int32", "uint32"];
const float: readonly DType[] = ["float32"];
/** Where fewer dtypes are run than numbers and floats. */
const dtypes: Readonly<Record<string, readonly DType[]>> = {
  ...Object.fromEntries(["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"].map((op) => [op, number])),
  ...Object.fromEntries(["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"].map((op) => [op, number])),
  ...Object.fromEntries(["And", "Not"].map((op) => [op, ["bool"]])),
  ...Object.fromEntries(["Reshape", "Expand", "Gather", "Concat", "Transpose"].map((op) => [op, ["float32", "int32"]])),
  Shape: [...number, "bool"],
};
const casts: Readonly<Record<string, readonly DType[]>> = {
  float32: ["int32", "uint32", "bool", "int64", "uint8", "float32"],
  int32: ["float32", "uint32", "bool", "int32", "int64"],
  uint32: ["float32", "int32", "bool", "uint32"],
  bool: ["float32", "int32", "uint32", "bool"],
  uint8: ["float32", "int32"],
};

/** Why a node cannot stay on the device; undefined where it can. */
function refusal({ op, inputs, attrs, outputs }: Node): string | undefined {
  if (op.domain !== "" || !kernels.has(op.name)) return "no kernel";
  const [x] = inputs;
  if (!x) return undefined;
  if (op.name === "Cast") return casts[x.dtype]?.includes(attrs.to) ? undefined : `from ${x.dtype} to ${attrs.to}`;
  if (op.name === "Where") return inputs[1]?.dtype === "float32" ? undefined : `chooses ${inputs[1]?.dtype}`;
  if (!(dtypes[op.name] ?? float).includes(x.dtype)) return `reads ${x.dtype}`;
  if (op.name === "ConvTranspose" && x.rank > 4) return "in three dimensions";
  if (op.name === "Conv" && x.rank > 4 && attrs.group > 1) return "groups in three dimensions";
  if (op.name === "MaxPool" && outputs.length > 1) return "gives places";
  return undefined;
}

/** The nodes of a lowered graph that a WebGPU device would leave to the processor, and why. */
export function refused(nodes: Iterable<Node>): string[] {
  return [...nodes].flatMap((node) => {
    const why = node.op === leaf || node.op === constantOp ? undefined : refusal(node);
    return why ? [`${node.op.name}: ${why}`] : [];
  });
}
