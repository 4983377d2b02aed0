import type { Backbone } from "../backbones/backbone.ts";
import type { Tensor } from "../graph/tensor.ts";
import { Linear } from "../nn/layers.ts";
import { Module } from "../nn/module.ts";

/**
 * A backbone with a linear classifier on top.  Its paths are those of published checkpoints: the backbone's own, and the
 * classifier where the family keeps it.  [N, 3, H, W] -> [N, classes]
 */
export class Classifier extends Module {
  readonly backbone: Backbone;
  readonly head: Linear;
  constructor(backbone: Backbone, classes: number) {
    super();
    this.backbone = backbone;
    this.head = new Linear(backbone.dim, classes);
  }
  override *parts(): Iterable<[string, Module | Tensor]> {
    yield* this.backbone.parts();
    yield [this.backbone.headName, this.head];
  }
  forward(image: Tensor): Tensor {
    return this.head.forward(this.backbone.embed(image));
  }
}
