export { depthwiseInBlocks } from "./blocks.ts";
export { type Cost, cost } from "./cost.ts";
export { applyPatterns, type FuseOptions, fuse, type Pattern, patterns, type Target } from "./fuse.ts";
export { simplify } from "./simplify.ts";
