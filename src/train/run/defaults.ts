import { availableParallelism } from "node:os";
import type { Preprocessing } from "../../backbones/index.ts";
import { UsageError } from "../../base/errors.ts";
import { kebabCase } from "../../base/options.ts";
import { Random } from "../../base/philox.ts";
import type { MixOptions, TrainTransform } from "../../data/index.ts";
import type { Weight } from "../../nn/module.ts";
import { adamw, chain, clipNorm, lamb, type Optimizer, type PerParameter, sgd } from "../../optim/optimizer.ts";
import { constantRate, cosine, oneCycle, polynomial, type Schedule, stepped } from "../../optim/schedule.ts";
import { isOnnx } from "../checkpoint/imported.ts";
import { partsThatPay } from "../step/split-step.ts";
import { type ConfigKey, type TrainConfig, trainSchema } from "./config.ts";

/** A config whose defaults have been worked out: what `config.json` holds. */
export type ResolvedConfig = TrainConfig &
  Required<
    Pick<TrainConfig, "batch" | "imageSize" | "lr" | "minLr" | "warmup" | "eps" | "weightDecay" | "clip" | "out">
  >;

/** Up to this side pictures count as small: they are padded and cropped at their own size, as is usual for CIFAR. */
const smallSide = 64;

/** Puts in what was left out.  `pictures` is the number to train on. */
export function resolveConfig(
  config: TrainConfig,
  preprocessing: Pick<Preprocessing, "imageSize">,
  pictures: number,
  out: string,
): ResolvedConfig {
  const imageSize = config.imageSize ?? preprocessing.imageSize;
  const batch = config.batch ?? defaultBatch(imageSize, pictures, config.accumulate);
  const lr = config.lr ?? defaultRate(config.optimizer, batch, imageSize) * (isTrained(config) ? 0.1 : 1);
  const adaptive = config.optimizer !== "sgd";
  const { epochs, minLr = config.schedule === "step" ? 0 : lr / 100, warmup = Math.min(5, epochs / 10) } = config;
  const { schedule } = config;
  if (minLr > lr && schedule !== "constant" && schedule !== "one-cycle")
    throw new UsageError({
      message: `the learning rate falls from ${lr}, so it cannot end at ${minLr}`,
      help: "give a --min-lr below --lr",
    });
  if (warmup >= epochs && schedule !== "one-cycle")
    throw new UsageError({
      message: `a warm-up of ${warmup} epochs leaves nothing of ${epochs}`,
      help: "give fewer to --warmup, or more to --epochs",
    });
  return {
    ...config,
    out,
    imageSize,
    batch,
    lr,
    minLr,
    warmup,
    eps: config.eps ?? (config.optimizer === "lamb" ? 1e-6 : 1e-8),
    weightDecay: config.weightDecay ?? { adamw: 0.05, sgd: 1e-4, lamb: 0.02 }[config.optimizer],
    clip: config.clip ?? (adaptive ? 1 : 0),
  };
}

/** What was asked for and does nothing, since another value rules it out: a sentence each. */
export function idleValues(config: ResolvedConfig): string[] {
  const { data, model, epochs, lr, batch, imageSize, optimizer, schedule } = config;
  const usual = resolveConfig(
    trainSchema.parse({ data, model, epochs, lr, batch, imageSize, optimizer }),
    config,
    0,
    "",
  );
  const rules: [applies: boolean, because: string, keys: ConfigKey[]][] = [
    [config.augment === "none", "augment none", ["cropScale", "padding", "hflip", "vflip", "colorJitter", "erasing"]],
    [schedule === "one-cycle", `schedule ${schedule}`, ["warmup", "minLr"]],
    [schedule === "constant", `schedule ${schedule}`, ["minLr"]],
    [optimizer !== "sgd", `optimizer ${optimizer}`, ["momentum"]],
    [optimizer === "sgd", `optimizer ${optimizer}`, ["betas", "eps"]],
    [
      isPadded(config),
      config.padding === undefined ? `image-size ${imageSize}` : `padding ${config.padding}`,
      ["cropScale"],
    ],
  ];
  const asked = (key: ConfigKey): boolean =>
    Boolean(config[key]) && JSON.stringify(config[key]) !== JSON.stringify(usual[key]);
  return rules.flatMap(([applies, because, keys]) =>
    (applies ? keys.filter(asked) : []).map((key) => `--${kebabCase(key)} does nothing with --${because}`),
  );
}

/** Whether pictures are padded and cropped at one size, not by random shares of them. */
const isPadded = ({ augment, imageSize, padding }: ResolvedConfig): boolean =>
  augment !== "none" && (imageSize <= smallSide || padding !== undefined);

/** Whether a run begins with weights that somebody trained. */
const isTrained = ({ model, weights }: TrainConfig): boolean => weights !== undefined || isOnnx(model);

/** A set of a few dozen pictures still gets several steps an epoch. */
function defaultBatch(imageSize: number, pictures: number, parts: number): number {
  const usual = imageSize <= smallSide ? 64 : 16;
  const few = 2 ** Math.floor(Math.log2(Math.max(pictures / 8, 2)));
  return Math.max(Math.ceil(Math.min(usual, few) / parts), 1) * parts;
}

/**
 * Rates known to work from scratch: SGD grows with the batch (Goyal et al., "Accurate, Large Minibatch SGD", 2017), the adaptive
 * rules with its root (Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms", 2022).  Small pictures go
 * with small models and short runs, which bear four times as much: a micro CSWin had 57.0 % of CIFAR-10 after three epochs, not 54.6 %.
 */
function defaultRate(optimizer: TrainConfig["optimizer"], batch: number, imageSize: number): number {
  if (optimizer === "sgd") return (0.1 * batch) / 256;
  if (optimizer === "lamb") return 5e-3 * Math.sqrt(batch / 2048);
  const [usual, most] = imageSize <= smallSide ? [2e-3, 3e-3] : [5e-4, 1e-3];
  return Math.min(usual * Math.sqrt(batch / 64), most);
}

/** The update rule that a config asks for. */
export function optimizerOf(config: ResolvedConfig, each: Pick<PerParameter, "lrScale"> = {}): Optimizer {
  const { weightDecay, momentum, betas, eps, clip } = config;
  const rule = {
    adamw: () => adamw({ betas, eps, weightDecay, ...each }),
    lamb: () => lamb({ betas, eps, weightDecay, ...each }),
    sgd: () => sgd({ momentum, weightDecay, ...each }),
  }[config.optimizer]();
  return clip > 0 ? chain(clipNorm(clip), rule) : chain(rule);
}

/** Parts of a batch that a run takes side by side: as many as it is told, or as pay. */
export function streamsOf(config: ResolvedConfig, weights: readonly Weight[]): number {
  const { device, batch, accumulate, memoryBudget, streams, threads = availableParallelism() } = config;
  const saves = accumulate > 1 || memoryBudget !== undefined;
  if (streams === undefined) return saves ? 1 : partsThatPay({ batch, device, threads }, weights);
  if (streams > 1 && saves)
    throw new UsageError({
      message: "what saves memory leaves no parts of a batch to go side by side",
      help: "give --streams 1, or leave out --accumulate and --memory-budget",
    });
  if (streams > 1 && device !== "cpu")
    throw new UsageError({ message: `${streams} streams are for the processor`, help: "leave out --streams" });
  if (batch % streams !== 0)
    throw new UsageError({
      message: `a batch of ${batch} does not divide into ${streams} streams`,
      help: "choose --batch as a multiple of --streams",
    });
  return streams;
}

/** The learning rate of each step. */
export function scheduleOf(config: ResolvedConfig, stepsPerEpoch: number): Schedule {
  const { lr, minLr } = config;
  const steps = config.epochs * stepsPerEpoch;
  // A run of a step or two has no room to warm up in.
  const warmup = Math.min(Math.round(config.warmup * stepsPerEpoch), Math.max(steps - 1, 0));
  const options = { lr, minLr, steps, warmup };
  const kinds = { cosine, step: stepped, polynomial, "one-cycle": oneCycle, constant: constantRate };
  return kinds[config.schedule](options);
}

/** The bytes that a text such as "1.5GB" stands for. */
export function bytesOfText(text: string): number {
  const [, number, unit] = /^([\d.]+)\s*([kmgt]?)b$/i.exec(text)!;
  return Number(number) * 1000 ** ["", "k", "m", "g", "t"].indexOf(unit.toLowerCase());
}

/** Keys the random masks of a step, counted from 0. */
export const stepSeed = (seed: number, step: number): number => new Random(seed, step, "step").uint32();

/** How training pictures are varied. */
export function trainTransform(config: ResolvedConfig, { mean, std, interpolation }: Preprocessing): TrainTransform {
  const { imageSize, augment, hflip, vflip, cropScale, padding, colorJitter, erasing } = config;
  const common = { kind: "train", size: imageSize, mean, std } as const;
  if (augment === "none") {
    return { ...common, scale: [1, 1], ratio: [1, 1], interpolation, hflip: 0 };
  }
  return {
    ...common,
    ...(isPadded(config)
      ? { padding: padding ?? Math.max(Math.round(imageSize / 8), 1), interpolation }
      : { scale: [cropScale, 1] as const }),
    hflip,
    vflip,
    randAugment: augment === "light" ? undefined : augment,
    colorJitter: colorJitter || undefined,
    erasing: erasing > 0 ? { prob: erasing } : undefined,
  };
}

/** Mixing of a batch's pictures, where there is any; it then smooths the targets too. */
export function mixOf({ mixup, cutmix, smoothing }: TrainConfig): MixOptions | undefined {
  if (mixup === 0 && cutmix === 0) return undefined;
  return { alpha: mixup, cutmixAlpha: cutmix, labelSmoothing: smoothing };
}
