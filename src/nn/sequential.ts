import type { Tensor } from "../graph/tensor.ts";
import { Module } from "./module.ts";

/** A module from tensor to tensor. */
export type Layer = Module & { forward(x: Tensor): Tensor };

/** A layer, or a function where there are no weights. */
export type Step = Layer | ((x: Tensor) => Tensor);

/** Steps one after another, each named by its number; a plain function has a number too, but no weights. */
export class Sequential extends Module {
  readonly #steps;
  constructor(...steps: readonly Step[]) {
    super();
    this.#steps = steps;
  }
  override *parts(): Iterable<[string, Module]> {
    for (const [i, step] of this.#steps.entries()) if (step instanceof Module) yield [String(i), step];
  }
  forward(x: Tensor): Tensor {
    return this.#steps.reduce((y, step) => (step instanceof Module ? step.forward(y) : step(y)), x);
  }
}
