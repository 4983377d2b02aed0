import "../ops/methods.ts"; // which passes draw with

export { alignNumbers } from "./align-numbers.ts";
export { biasesApart } from "./biases-apart.ts";
export { convolutionsInBlocks } from "./convolutions-in-blocks.ts";
export { type Cost, cost } from "./cost.ts";
export { depthwiseInBlocks } from "./depthwise-in-blocks.ts";
export { forOpset } from "./for-opset.ts";
export { applyPatterns, type FuseOptions, fuse, type Pattern, patterns, type Target, targetOf } from "./fuse.ts";
export { gatesInBlocks } from "./gates-in-blocks.ts";
export { inTiles } from "./in-tiles.ts";
export { kernelGradientsInBlocks } from "./kernel-gradients-in-blocks.ts";
export { executionOrder, type MemoryUse, memoryUse } from "./memory.ts";
export { placesByResampling } from "./places-by-resampling.ts";
export { pointwiseConvolutions } from "./pointwise-convolutions.ts";
export { poolsWithPlaces } from "./pools-with-places.ts";
export { productsInBlocks } from "./products-in-blocks.ts";
export { type RecomputeOptions, recompute } from "./recompute.ts";
export { scaleInOnePass } from "./scale-in-one-pass.ts";
export { simplify } from "./simplify.ts";
export { smallTransposes } from "./small-transposes.ts";
export { unplannedMemory } from "./unplanned-memory.ts";
export { refused } from "./webgpu.ts";
