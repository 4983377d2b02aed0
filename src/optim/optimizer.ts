import { UsageError } from "../base/errors.ts";
import { checkNumbers, isAmount, isRate } from "../base/options.ts";
import { scalar, type Tensor } from "../graph/tensor.ts";
import { greater, where } from "../ops/compare.ts";
import { maximum, minimum, tanh } from "../ops/elementwise.ts";

/** What an update rule knows besides the gradient.  Scalars of the running graph, so one program serves a whole schedule. */
export interface StepContext {
  /** Learning rate, float32 []. */
  lr: Tensor;
  /** Steps taken, this one included: 1, 2, 3, …  float32 [] */
  step: Tensor;
}

/** A parameter in the eyes of an update rule. */
export interface Updated {
  path: string;
  /** The parameter's own: `param` and the others may be vectors of several that are alike, of which `path` is the first. */
  shape: readonly number[];
  param: Tensor;
  grad: Tensor;
  /** State of the rule for this parameter, by name; zeros at first. */
  slots: Readonly<Record<string, Tensor>>;
}

/** An update rule: draws the next parameter and state from the gradient. */
export interface Rule {
  /** Names of the state that each parameter has, of the parameter's shape. */
  readonly slots: readonly string[];
  /**
   * What a parameter has in common with those that may be updated together with it, as one vector, since the rule looks at each number
   * alone; undefined where it looks at the parameter as a whole.  A rule without this gets each by itself.
   */
  readonly alike?: (path: string, shape: readonly number[]) => string | undefined;
  /** Draws what all parameters share, and returns what draws the update of one. */
  begin(context: StepContext): (updated: Updated) => { param: Tensor; slots: Record<string, Tensor> };
}

/** A change of all gradients together, before the rule sees them. */
export interface GradientTransform {
  (grads: ReadonlyMap<string, Tensor>): { grads: Map<string, Tensor>; metrics?: Record<string, Tensor> };
  /** Whether it does the same where several gradients come joined as one vector; otherwise it gets each by itself. */
  readonly joint?: boolean;
}

export interface Optimizer {
  readonly transforms: readonly GradientTransform[];
  readonly rule: Rule;
}

/** Gradient transforms in order, then the rule: `chain(clipNorm(1), adamw())`. */
export function chain(...parts: [...transforms: GradientTransform[], rule: Rule]): Optimizer {
  return { transforms: parts.slice(0, -1) as GradientTransform[], rule: parts[parts.length - 1] as Rule };
}

/** Which parameters decay, and by how much the learning rate of each is scaled.  Both are chosen by path. */
export interface PerParameter {
  /** Weight decay, decoupled from the gradient, but in sgd, which adds it to that; 0, none, unless given. */
  weightDecay?: number;
  /** Whether a parameter decays; by default matrices and kernels do, while norms, biases and what tells places apart do not. */
  decays?: (path: string, shape: readonly number[]) => boolean;
  /** Factor of the learning rate; layer-wise decay is one. */
  lrScale?: (path: string) => number;
}

/** Tables and tokens, and the layers that make position biases of offsets: what families tell timm not to decay. */
const tables =
  /(^|[._])(pos_embed\d?|cls_token|dist_token|relative_position_bias_table|position_bias|attention_biases|logit_scale)$|(^|\.)(cpb_mlp|rel_pos\.mlp)\./;

/** Matrices and kernels decay; norms, biases and position tables, or what makes them, do not. */
export const decaysByDefault = (path: string, shape: readonly number[]): boolean =>
  shape.length > 1 && !tables.test(path);

/** Parameters of one learning rate that decay, or that do not. */
const alikeBy =
  ({ decays = decaysByDefault, lrScale = () => 1 }: PerParameter): NonNullable<Rule["alike"]> =>
  (path, shape) =>
    `${lrScale(path)} ${decays(path, shape)}`;

/** Learning rates and decay factors of parameters, each distinct one drawn once. */
function rates({ weightDecay = 0, decays = decaysByDefault, lrScale = () => 1 }: PerParameter, lr: Tensor) {
  checkNumbers({ weightDecay }, isAmount, "at least 0");
  const drawn = new Map<number, { lr: Tensor; shrink?: Tensor }>();
  return ({ path, shape }: Updated): { lr: Tensor; decay: number; shrink?: Tensor } => {
    const factor = lrScale(path);
    let rate = drawn.get(factor);
    if (!rate) {
      const own = factor === 1 ? lr : lr.mul(factor);
      rate = { lr: own, shrink: weightDecay > 0 ? own.mul(-weightDecay).add(1) : undefined };
      drawn.set(factor, rate);
    }
    return weightDecay > 0 && decays(path, shape) ? { ...rate, decay: weightDecay } : { lr: rate.lr, decay: 0 };
  };
}

export interface SgdOptions extends PerParameter {
  /** 0.9 unless given; 0 for none. */
  momentum?: number;
  nesterov?: boolean;
}

/** Stochastic gradient descent with momentum, as PyTorch draws it: u' = μ u + g, p' = p - lr u'. */
export function sgd({ momentum = 0.9, nesterov = false, ...each }: SgdOptions = {}): Rule {
  checkNumbers({ momentum }, isRate, "from 0 to below 1");
  return {
    slots: momentum > 0 ? ["momentum"] : [],
    alike: alikeBy(each),
    begin(context) {
      const rateOf = rates(each, context.lr);
      return (updated) => {
        const { param, slots } = updated;
        const { lr, decay } = rateOf(updated);
        const grad = decay > 0 ? updated.grad.add(param.mul(decay)) : updated.grad;
        if (momentum === 0) return { param: param.sub(grad.mul(lr)), slots: {} as Record<string, Tensor> };
        const velocity = slots.momentum.mul(momentum).add(grad);
        const direction = nesterov ? velocity.mul(momentum).add(grad) : velocity;
        return { param: param.sub(direction.mul(lr)), slots: { momentum: velocity } };
      };
    },
  };
}

export interface AdamOptions extends PerParameter {
  /** Decay of the two moments, 0.9 and 0.999 unless given. */
  betas?: readonly [number, number];
  /** Added to the root of the second moment: 1e-8 unless given, in lamb 1e-6. */
  eps?: number;
}

/**
 * Adam with decoupled weight decay.  Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), algorithm 2.
 *
 * The moments are kept without the factors 1-β, which go into two scalars: M = m / (1-β₁), V = v / (1-β₂).  That is two passes
 * over the parameters fewer, and the same numbers but for rounding.
 */
export function adamw({ betas = [0.9, 0.999], eps = 1e-8, ...each }: AdamOptions = {}): Rule {
  const [beta1, beta2] = betas;
  checkNumbers({ beta1, beta2 }, isRate, "from 0 to below 1");
  checkNumbers({ eps }, isAmount, "at least 0");
  return {
    slots: ["m", "v"],
    alike: alikeBy(each),
    begin({ lr: top, step: t }) {
      const rateOf = rates(each, top);
      const rootBias2 = unbias(beta2, t).sqrt();
      const unit = rootBias2.div(unbias(beta1, t)).mul((1 - beta1) / Math.sqrt(1 - beta2));
      const epsilon = rootBias2.mul(eps / Math.sqrt(1 - beta2));
      return (updated) => {
        const { param, grad, slots } = updated;
        const { lr, shrink } = rateOf(updated);
        const m = slots.m.mul(beta1).add(grad);
        const v = slots.v.mul(beta2).add(grad.mul(grad));
        const step = m.div(v.sqrt().add(epsilon)).mul(lr.mul(unit));
        return { param: (shrink ? param.mul(shrink) : param).sub(step), slots: { m, v } };
      };
    },
  };
}

/** 1 - βᵗ = 2h / (1 + h), where h = tanh(-t ln β / 2): all digits are kept, where 1 - 0.999 in float32 has lost five. */
function unbias(beta: number, step: Tensor): Tensor {
  const half = tanh(step.mul(Math.log(Math.max(beta, 1e-30)) / -2));
  return half.mul(2).div(half.add(1));
}

/**
 * Adam's direction, scaled for each tensor to the length of its weights.
 * You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes" (2020), algorithm 2.
 */
export function lamb({ betas = [0.9, 0.999], eps = 1e-6, ...each }: AdamOptions = {}): Rule {
  const [beta1, beta2] = betas;
  checkNumbers({ beta1, beta2 }, isRate, "from 0 to below 1");
  checkNumbers({ eps }, isAmount, "at least 0");
  return {
    slots: ["m", "v"],
    begin({ lr: top, step: t }) {
      const rateOf = rates(each, top);
      const [bias1, bias2] = [unbias(beta1, t), unbias(beta2, t)];
      return (updated) => {
        const { param, grad, slots } = updated;
        const { lr, decay } = rateOf(updated);
        const m = slots.m.mul(beta1).add(grad.mul(1 - beta1));
        const v = slots.v.mul(beta2).add(grad.mul(grad).mul(1 - beta2));
        const adam = m.div(bias1).div(v.div(bias2).sqrt().add(eps));
        if (decay === 0) return { param: param.sub(adam.mul(lr)), slots: { m, v } };
        const direction = adam.add(param.mul(decay));
        const length = direction.square().sum().sqrt();
        const weight = param.square().sum().sqrt();
        // Where either length is 0 the ratio is 1, as in the reference; what does not decay is not rescaled either.
        const usable = greater(minimum(length, weight), scalar(0));
        const trust = where(usable, weight.div(where(usable, length, scalar(1))), scalar(1));
        return { param: param.sub(direction.mul(lr.mul(trust))), slots: { m, v } };
      };
    },
  };
}

/** Scales all gradients so that their common norm is at most `most`.  Pascanu et al. (2013). */
export function clipNorm(most: number): GradientTransform {
  if (!(most > 0)) throw new UsageError(`a norm to clip at must be positive, got ${most}`);
  const clip: GradientTransform = (grads) => {
    const norm = globalNorm([...grads.values()]);
    const factor = minimum(norm.add(1e-6).reciprocal().mul(most), scalar(1));
    return { grads: new Map([...grads].map(([path, g]) => [path, g.mul(factor)])), metrics: { gradNorm: norm } };
  };
  return Object.assign(clip, { joint: true });
}

/** √Σ g² over all tensors.  The last one is summed first, since backward reaches it first. */
export function globalNorm(grads: readonly Tensor[]): Tensor {
  const squares = grads.map((g) => g.square().sum());
  return squares.reduceRight((sum, s) => sum.add(s)).sqrt();
}

/**
 * How far a moving average goes at each step to what it follows: 1 - d once the run is long enough, and 9 / (10 + t) before, so that it is
 * about the last tenth of a run that is shorter than what d looks back on, and not where the run began.  TensorFlow's
 * `ExponentialMovingAverage` with its number of updates.
 */
export const averageRate = (decay: number, step: Tensor): Tensor =>
  maximum(scalar(9).div(step.add(10)), scalar(1 - decay));

/** An exponential moving average of what training changes, kept beside it: e' = e + rate (p' - e). */
export const average = (previous: Tensor, param: Tensor, rate: Tensor): Tensor =>
  previous.add(param.sub(previous).mul(rate));
