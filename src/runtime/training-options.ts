// The engine's optimizers go through a graph one after the other, all of them again where one changed something, and each sorts the nodes
// anew: of a training step of a few thousand nodes that is most of the time that opening takes.  Those below are left out there.
// https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/optimizer/graph_transformer_utils.cc

/** They look for numbers of four or eight bits. */
const quantized = [
  "DoubleQDQPairsRemover",
  "DynamicQuantizeMatMulFusion",
  "EnsureUniqueDQForNodeUnit",
  "Level2_RuleBasedTransformer",
  "MatMulIntegerToFloatFusion",
  "MatMulNBitsFusion",
  "MatMulNBitsMlpFusion",
  "MatMulNBitsQkvFusion",
  "NhwcTransformer",
  "QDQFinalCleanupTransformer",
  "QDQPropagationTransformer",
  "QDQS8ToU8Transformer",
  "QDQSelectorActionTransformer",
  "TransposeOptimizer_CPUExecutionProvider",
  "WeightBiasQuantization",
  "WhereDummyDq",
];

/** They join operations of a forward pass between which nothing else reads, as gradients do, or that have constant weights. */
const forward = [
  "AttentionFusion",
  "BiasDropoutFusion",
  "BiasGeluFusion",
  "BiasSkipLayerNormFusion",
  "BiasSoftmaxFusion",
  "EmbedLayerNormFusion",
  "FastGeluFusion",
  "GatherToSliceFusion",
  "GeluFusionL1",
  "GeluFusionL2",
  "GroupQueryAttentionFusion",
  "GroupQueryAttentionPreNormFusion",
  "LayerNormFusionL1",
  "LayerNormFusionL2",
  "MatMulActivationFusion",
  "MatMulAddFusion",
  "QuickGeluFusion",
  "SimplifiedLayerNormFusion",
  "SkipLayerNormFusion",
  "SliceConcatToSpaceToDepthFusion",
];

/** It makes one of several reshapes in a row, which cost nothing; steps take up to 3 % longer with it. */
const harmful = ["ReshapeFusion"];

/** The session options of a training step: without what does nothing for it, or slows it down. */
export const trainingOptions = {
  optimization: { disable_specified_optimizers: [...quantized, ...forward, ...harmful].join(";") },
};
