import { known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { oneHot } from "../ops/compare.ts";
import { logSoftmax } from "../ops/norm.ts";

export interface CrossEntropyOptions {
  /** Weight of the uniform distribution in the targets.  Szegedy et al. (2016), section 7. */
  smoothing?: number;
  /** A weight for each class; the mean is then taken over weights, as in PyTorch.  [classes] */
  classWeights?: Tensor;
}

/** Mean of -Σ target · ln softmax(logits).  logits [N, classes]; targets int32 [N], or a distribution [N, classes] */
export function crossEntropy(logits: Tensor, targets: Tensor, options: CrossEntropyOptions = {}): Tensor {
  const { smoothing = 0, classWeights } = options;
  const classes = known(logits.shape[1], "the class axis");
  const hard = targets.rank === 1;
  const wanted = hard ? oneHot(targets, classes, logits.dtype) : targets;
  const smooth = smoothing > 0 && hard ? wanted.mul(1 - smoothing).add(smoothing / classes) : wanted;
  const losses = logSoftmax(logits).mul(smooth).neg(); // [N, classes]
  if (!classWeights) return losses.sum([1]).mean();
  return losses.mul(classWeights).sum().div(wanted.mul(classWeights).sum());
}
