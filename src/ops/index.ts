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
  erf,
  exp,
  floor,
  gelu,
  hardSigmoid,
  hardSwish,
  leakyRelu,
  log,
  maximum,
  minimum,
  mul,
  neg,
  pow,
  reciprocal,
  relu,
  round,
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
export { gemm, matmul } from "./linalg.ts";
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
export { batchNorm, groupNorm, instanceNorm, layerNorm, logSoftmax, rmsNorm, softmax } from "./norm.ts";
export { averagePool, maxPool, type PoolOptions } from "./pool.ts";
export { argMax, cumSum, topK } from "./reduce.ts";
