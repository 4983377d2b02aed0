export { Activation, type ActivationName, relu6 } from "./activation.ts";
export { projections } from "./attention.ts";
export { bindWeights } from "./bind.ts";
export { BlurPool2d } from "./blur-pool.ts";
export { convByImage } from "./conv-by-image.ts";
export { DynamicConv2d, type DynamicConvOptions } from "./dynamic-conv.ts";
export { DynamicRelu, type DynamicReluOptions } from "./dynamic-relu.ts";
export { features } from "./features.ts";
export {
  fixed,
  heNormal,
  type Initializer,
  normal,
  ones,
  truncatedNormal,
  uniformFanIn,
  zeros,
} from "./init.ts";
export { Involution, type InvolutionOptions } from "./involution.ts";
export { BatchNorm2d, Conv2d, Dropout, DropPath, Identity, LayerNorm, Linear, Mlp } from "./layers.ts";
export { type CrossEntropyOptions, crossEntropy } from "./losses.ts";
export { buffersOf, initialWeights, Module, parametersOf, type Weight, weightsOf } from "./module.ts";
export { DisentangledNonLocal } from "./non-local.ts";
export { Rng } from "./rng.ts";
export { type Layer, Sequential, type Step } from "./sequential.ts";
export { SqueezeExcite, type SqueezeExciteOptions } from "./squeeze-excite.ts";
export { currentRng, isTraining, type TraceOptions, trace, updateBuffer } from "./trace.ts";
export { fromWindows, planWindows, relativeBias, shiftMask, toWindows, type WindowPlan } from "./window.ts";
