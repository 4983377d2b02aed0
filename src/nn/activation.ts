import type { Tensor } from "../graph/tensor.ts";
import { clip, gelu, hardSwish, relu, silu } from "../ops/elementwise.ts";
import { Module } from "./module.ts";

/** min(max(x, 0), 6).  Sandler et al., "MobileNetV2" (2018), section 4. */
export const relu6 = (x: Tensor): Tensor => clip(x, { min: 0, max: 6 });

const functions = { relu, relu6, "hard-swish": hardSwish, silu, gelu };
export type ActivationName = keyof typeof functions;

/** An activation as a layer: one that has no parameters, by name. */
export class Activation extends Module {
  readonly #apply;
  constructor(name: ActivationName) {
    super();
    this.#apply = functions[name];
  }
  forward(x: Tensor): Tensor {
    return this.#apply(x);
  }
}
