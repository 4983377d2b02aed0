export { refused } from "../../src/passes/webgpu.ts";
