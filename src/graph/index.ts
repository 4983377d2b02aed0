export { type Data, type DType, dtypeCodes } from "./dtype.ts";
export { countUses, Graph, redraw, rewrite, sortNodes, substitute, validate } from "./graph.ts";
export {
  type ExternalPlace,
  loadExternal,
  type OnnxGraph,
  type OnnxModel,
  type OnnxNode,
  type OnnxTensor,
  readModel,
} from "./onnx/model.ts";
export { type ModelMetadata, type ModelValue, readMetadata } from "./onnx/read.ts";
export {
  largestFile,
  type OnnxParts,
  type Opset,
  opsets,
  type WriteOptions,
  writeOnnx,
  writeOnnxParts,
} from "./onnx/write.ts";
export { printGraph } from "./print.ts";
export { bindShape, type Dim, OpenDim, type Shape, showShape, staticSize } from "./shape.ts";
export { constant, constantData, input, type Node, type Op, scalar, type Tensor, withScope } from "./tensor.ts";
