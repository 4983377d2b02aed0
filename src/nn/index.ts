export type { Random } from "../base/philox.ts";
export { Activation, type ActivationName, relu6 } from "./activation.ts";
export { type Adapt, offsetBiases, patchKernel, pictureChannels, positions, type Values } from "./adapt.ts";
export { Attention, attend, cutLinear, projections } from "./attention.ts";
export { bindWeights } from "./bind.ts";
export { BlurPool2d } from "./blur-pool.ts";
export { convByImage } from "./conv-by-image.ts";
export { ConvMlp, type ConvMlpOptions } from "./conv-mlp.ts";
export { DynamicConv2d, type DynamicConvOptions } from "./dynamic-conv.ts";
export { DynamicRelu, type DynamicReluOptions } from "./dynamic-relu.ts";
export { features } from "./features.ts";
export {
  fixed,
  heNormal,
  heNormalFor,
  type Initializer,
  normal,
  normalFanIn,
  ones,
  truncatedNormal,
  uniformFanIn,
  xavierUniform,
  zeros,
} from "./init.ts";
export { Involution, type InvolutionOptions } from "./involution.ts";
export {
  BatchNorm2d,
  Conv2d,
  type Conv2dOptions,
  Dropout,
  DropPath,
  GlobalResponseNorm,
  GroupNorm,
  Identity,
  LayerNorm,
  LayerScale,
  Linear,
  Mlp,
} from "./layers.ts";
export { channelsFirst, channelsLast, LayerNorm2d, normChannels } from "./layout.ts";
export { binaryCrossEntropy, type CrossEntropyOptions, crossEntropy } from "./losses.ts";
export {
  buffersOf,
  initializeMatrices,
  initialWeights,
  Module,
  parametersOf,
  stateOf,
  type Weight,
  weightsOf,
} from "./module.ts";
export { DisentangledNonLocal } from "./non-local.ts";
export { importOnnx, OnnxModule, type OnnxModuleOptions } from "./onnx-module.ts";
export { Rng } from "./rng.ts";
export { type Layer, Sequential, type Step } from "./sequential.ts";
export { SqueezeExcite, type SqueezeExciteOptions } from "./squeeze-excite.ts";
export { currentRng, isTraining, type TraceOptions, trace, updateBuffer } from "./trace.ts";
export {
  acrossWindows,
  addPlaces,
  fromWindows,
  planGrid,
  planWindows,
  relativeBias,
  shiftMask,
  toWindows,
  type WindowPlan,
} from "./window.ts";
