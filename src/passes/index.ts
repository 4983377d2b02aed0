export { alignNumbers } from "./align.ts";
export { depthwiseInBlocks } from "./blocks.ts";
export { type Cost, cost } from "./cost.ts";
export { applyPatterns, type FuseOptions, fuse, type Pattern, patterns, type Target, targetOf } from "./fuse.ts";
export { executionOrder, type MemoryUse, memoryUse } from "./memory.ts";
export { forOpset } from "./opset.ts";
export { type RecomputeOptions, recompute } from "./recompute.ts";
export { simplify } from "./simplify.ts";
export { refused } from "./webgpu.ts";
