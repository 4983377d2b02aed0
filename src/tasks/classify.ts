import { type Backbone, createHeads, headNames, logitsOf } from "../backbones/backbone.ts";
import { known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { binaryCrossEntropy, type CrossEntropyOptions, crossEntropy, weightOfTargets } from "../nn/losses.ts";
import { Module } from "../nn/module.ts";
import type { Layer } from "../nn/sequential.ts";
import { cast, greaterOrEqual, oneHot } from "../ops/compare.ts";

/**
 * A backbone with a classifier on top, a linear one unless the family has another.  Its paths are those of published checkpoints: the
 * backbone's own, and the classifier where the family keeps it.  [N, 3, H, W] -> [N, classes]
 */
export class Classifier extends Module {
  readonly backbone: Backbone;
  /** One, or several where the family has several; what they say together are the logits. */
  readonly heads: readonly Layer[];
  constructor(backbone: Backbone, classes: number, heads: readonly Layer[] = createHeads(backbone, classes)) {
    super();
    this.backbone = backbone;
    this.heads = heads;
  }
  override *parts(): Iterable<[string, Module | Tensor]> {
    yield* this.backbone.parts();
    for (const [i, name] of headNames(this.backbone).entries()) yield [name, this.heads[i]];
  }
  forward(image: Tensor): Tensor {
    return logitsOf(this.backbone, image, this.heads);
  }
}

export interface ClassificationOptions extends CrossEntropyOptions {
  /** What the logits are judged by: all classes of an image together, by default, or each on its own. */
  loss?: keyof typeof losses;
}

const losses = { "cross-entropy": crossEntropy, bce: binaryCrossEntropy };

/** Learns to classify: a loss against labels or soft targets, and how many of the batch were right. */
export class Classification extends Module {
  readonly model: Module & { forward(image: Tensor): Tensor };
  readonly #options: ClassificationOptions;
  constructor(model: Module & { forward(image: Tensor): Tensor }, options: ClassificationOptions = {}) {
    super();
    this.model = model;
    this.#options = options;
  }
  override parts(): Iterable<[string, Module | Tensor]> {
    return this.model.parts();
  }
  /** image [N, 3, H, W]; target int32 [N] or a distribution [N, classes] */
  forward({ image, target }: Readonly<Record<string, Tensor>>): { loss: Tensor; accuracy: Tensor } {
    const { loss = "cross-entropy", ...options } = this.#options;
    const logits = this.model.forward(image);
    return { loss: losses[loss](logits, target, options), accuracy: accuracyOf(logits, target) };
  }
  lossWeight({ target }: Readonly<Record<string, Tensor>>): Tensor | undefined {
    const { classWeights, loss } = this.#options;
    return classWeights && loss !== "bce" && target.rank === 1 ? weightOfTargets(target, classWeights) : undefined;
  }
}

/** The share of images whose largest logit is at the largest target; one of several alike counts as a part.  float32 [] */
export function accuracyOf(logits: Tensor, target: Tensor): Tensor {
  const classes = known(logits.shape[1]);
  const best = cast(greaterOrEqual(logits, logits.max([1], true)), { to: "float32" });
  const wanted =
    target.rank === 1
      ? oneHot(target, classes)
      : cast(greaterOrEqual(target, target.max([1], true)), { to: "float32" });
  return best
    .mul(wanted)
    .sum([1])
    .div(best.sum([1]))
    .mean();
}
