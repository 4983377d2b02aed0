import { ShapeError } from "../base/errors.ts";
import { checkNumbers, isRate } from "../base/options.ts";
import { isFloat } from "../graph/dtype.ts";
import { known, sameDim, sameShape, showShape } from "../graph/shape.ts";
import { scalar, type Tensor } from "../graph/tensor.ts";
import { cast, greater, oneHot, where } from "../ops/compare.ts";
import { explained } from "../ops/define.ts";
import { softplus } from "../ops/elementwise.ts";
import { logSoftmax } from "../ops/norm.ts";

export interface CrossEntropyOptions {
  /** Weight of the uniform distribution in the targets.  Szegedy et al. (2016), section 7. */
  smoothing?: number;
  /** A weight for each class; cross-entropy with class indices is then a mean over weights, 0 where none has any.  [classes] */
  classWeights?: Tensor;
}

/**
 * Mean of -Σ target · ln softmax(logits).  A label that is none of the classes makes it NaN or infinite.
 * logits [N, classes]; targets int32 [N], or a distribution [N, classes]
 */
export const crossEntropy = (logits: Tensor, targets: Tensor, options: CrossEntropyOptions = {}): Tensor =>
  explained("crossEntropy", [logits, targets], ["logits", "targets"], () => {
    checkTargets(logits, targets);
    const { smoothing = 0, classWeights } = options;
    checkNumbers({ smoothing }, isRate, "from 0 to below 1");
    const hard = targets.rank === 1;
    const wanted = distributionOf(targets, logits);
    const smooth = smoothed(wanted, smoothing);
    const logs = logSoftmax(logits).neg();
    // A class that is not wanted may be ruled out altogether, by a logit of -∞, which times 0 would be no number.
    const losses =
      hard && smoothing === 0
        ? where(greater(wanted, scalar(0, wanted.dtype)), logs, scalar(0, logs.dtype))
        : logs.mul(smooth); // [N, classes]
    const each = (classWeights ? losses.mul(classWeights) : losses).sum([1]); // [N]
    if (!hard) return each.mean();
    const told = overWanted(each, wanted);
    return classWeights ? overWeight(told.sum(), wanted.mul(classWeights).sum()) : told.mean();
  });

/**
 * Mean over images and classes of -t ln σ(x) - (1 - t) ln(1 - σ(x)): whether an image shows a class is asked for each class on its own.
 * Wightman et al., "ResNet strikes back" (2021), section 2.2.  logits [N, classes]; targets int32 [N], or numbers from 0 to 1 [N, classes]
 */
export const binaryCrossEntropy = (logits: Tensor, targets: Tensor, options: CrossEntropyOptions = {}): Tensor =>
  explained("binaryCrossEntropy", [logits, targets], ["logits", "targets"], () => {
    checkTargets(logits, targets);
    const { smoothing = 0, classWeights } = options;
    checkNumbers({ smoothing }, isRate, "from 0 to below 1");
    const wanted = distributionOf(targets, logits);
    const losses = softplus(logits).sub(logits.mul(smoothed(wanted, smoothing)));
    const each = (classWeights ? losses.mul(classWeights) : losses).mean([1]); // [N]
    return (targets.rank === 1 ? overWanted(each, wanted) : each).mean();
  });

/** Losses of labels as they are, but no finite numbers where a label is no class: that wants nothing, which is 0.  [N], [N, classes] -> [N] */
const overWanted = (each: Tensor, wanted: Tensor): Tensor => each.div(wanted.sum([1]));

/** Labels as distributions, others as they are.  -> [N, classes] */
const distributionOf = (targets: Tensor, logits: Tensor): Tensor =>
  targets.rank === 1 ? labelsOf(targets, known(logits.shape[1], "the class axis"), logits) : targets;

/** A share of each target spread over all classes.  [N, classes] */
const smoothed = (wanted: Tensor, smoothing: number): Tensor =>
  smoothing > 0 ? wanted.mul(1 - smoothing).add(smoothing / known(wanted.shape[1])) : wanted;

/** The sum of the class weights of a batch's targets, over which their loss is a mean.  targets int32 [N] -> [] */
export function weightOfTargets(targets: Tensor, classWeights: Tensor): Tensor {
  const classes = known(classWeights.shape[0], "the class axis");
  return labelsOf(targets, classes, classWeights).mul(classWeights).sum();
}

/** A sum over its weight, and as it is where that is 0: nothing was summed.  [...], [] -> [...] */
export const overWeight = (sum: Tensor, weight: Tensor): Tensor =>
  sum.div(where(greater(weight, scalar(0, weight.dtype)), weight, scalar(1, weight.dtype)));

const labelsOf = (targets: Tensor, classes: number, like: Tensor): Tensor =>
  oneHot(targets.dtype === "int64" ? cast(targets, { to: "int32" }) : targets, classes, like.dtype);

function checkTargets(logits: Tensor, targets: Tensor): void {
  if (logits.rank !== 2) throw new ShapeError("the logits are [N, classes]");
  const labels = targets.rank === 1 && !isFloat(targets.dtype) && sameDim(targets.shape[0], logits.shape[0]);
  if (labels || (isFloat(targets.dtype) && sameShape(targets.shape, logits.shape))) return;
  const [rows, classes] = logits.shape;
  throw new ShapeError({
    message: `targets of ${targets.dtype} ${showShape(targets.shape)} do not fit logits ${showShape(logits.shape)}`,
    help: `give the class of each, int32 [${rows}], or a distribution, ${logits.dtype} [${rows}, ${classes}]`,
  });
}
