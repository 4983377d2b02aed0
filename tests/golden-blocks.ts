import type { Tensor } from "../src/graph/tensor.ts";
import { DynamicConv2d } from "../src/nn/dynamic-conv.ts";
import { DynamicRelu } from "../src/nn/dynamic-relu.ts";
import type { Module } from "../src/nn/module.ts";
import { DisentangledNonLocal } from "../src/nn/non-local.ts";

/** Layers that have a golden file of their own, made as its note says. */
export const blocks: Readonly<Record<string, () => Module & { forward(x: Tensor): Tensor }>> = {
  dynamic_relu_b: () => new DynamicRelu(32, { reduction: 4 }),
  dynamic_conv2d: () => new DynamicConv2d(16, 24, { kernel: 3, padding: 1, kernels: 4, ratio: 0.25, temperature: 31 }),
  dnl_block_in: () => new DisentangledNonLocal(64, 32),
};
