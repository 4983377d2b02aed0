import "./methods.ts";

export * from "./compare.ts";
export { type ConvOptions, conv, convTranspose } from "./conv.ts";
export {
  abs,
  add,
  ceil,
  clip,
  cos,
  div,
  elu,
  erf,
  exp,
  floor,
  gelu,
  geluTanh,
  hardSigmoid,
  hardSwish,
  leakyRelu,
  log,
  maximum,
  minimum,
  mish,
  mul,
  neg,
  pow,
  prelu,
  reciprocal,
  relu,
  round,
  selu,
  sigmoid,
  sign,
  silu,
  sin,
  softplus,
  sqrt,
  square,
  sub,
  tanh,
} from "./elementwise.ts";
export { irfft2, rfft2 } from "./fourier.ts";
export { along, columnSums, einsum, gemm, linear, matmul } from "./linalg.ts";
export {
  concat,
  expandBatch,
  gather,
  gatherElements,
  padAxes,
  permuteAlong,
  roll,
  scatterElementsAdd,
  scatterNdAdd,
  split,
  stack,
  stopGradient,
  withGradient,
  zerosLike,
} from "./move.ts";
export {
  batchNorm,
  batchNormTraining,
  groupNorm,
  instanceNorm,
  layerNorm,
  logSoftmax,
  rmsNorm,
  softmax,
  unitNorm,
} from "./norm.ts";
export { adaptiveAveragePool, averagePool, globalAveragePool, maxPool, type PoolOptions } from "./pool.ts";
export { argMax, cumSum, reduceSumSquare, topK } from "./reduce.ts";
export { type ResizeMode, type ResizeOptions, resize } from "./resize.ts";
