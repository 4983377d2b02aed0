import { z } from "zod";
import { didYouMean, UsageError } from "../../base/errors.ts";
import { describeIssue } from "../../base/faults.ts";
import { camelCase } from "../../base/options.ts";

const whole = (least: number) => z.number().int().min(least);
const positive = () => z.number().gt(0);
const share = () => z.number().min(0).max(1);

/**
 * Everything that a training run may be told.  The command line's flags, config files and a run folder's `config.json` have these
 * keys; what is left out gets a default from the model, the optimizer and the data (`defaults.ts`).
 */
export const trainSchema = z.strictObject({
  data: z
    .string()
    .min(1)
    .describe("training pictures: a folder of class folders, a .csv list or a .tar archive; it may hold train and val"),
  val: z
    .union([z.number().gt(0).lt(1), z.string().min(1)], "a path, or a fraction between 0 and 1")
    .optional()
    .describe("validation pictures, or the fraction of every class to set aside (0.1 where data holds no val)"),
  model: z
    .string()
    .min(1)
    .describe("name of the model; `oriel models` lists them; or an .onnx file that another tool exported"),
  modelOptions: z
    .record(z.string(), z.union([z.string(), z.number(), z.boolean()]))
    .optional()
    .describe('what to change about the model, such as {"directions":"vertical"} for CSWin'),
  weights: z
    .string()
    .optional()
    .describe(
      "weights to start from: .safetensors, a torch or ONNX file, a name on the hub; what does not fit starts afresh",
    ),
  licence: z
    .string()
    .optional()
    .describe("who may use those weights for what, such as MIT; goes into exports (what the file says)"),
  source: z.string().optional().describe("where those weights come from; goes into exports (what the file says)"),
  out: z.string().min(1).optional().describe("run folder to write (runs/<model>)"),
  epochs: whole(1).default(30).describe("passes over the training pictures"),
  batch: whole(1).optional().describe("pictures in a step (64 up to 64 pixels, 16 above; fewer for small sets)"),
  accumulate: whole(1)
    .default(1)
    .describe("parts to cut each batch into, to save memory; the step stays that of the whole"),
  memoryBudget: z
    .string()
    .regex(/^\d+(\.\d+)?\s*[kmgt]?b$/i, "a size such as 1.5GB")
    .optional()
    .describe("memory that a step may take, such as 1.5GB; what does not fit is computed again, to the same results"),
  imageSize: whole(1)
    .max(16_384)
    .optional()
    .describe("side of the pictures that the model sees, in pixels (the model's)"),
  optimizer: z.enum(["adamw", "sgd", "lamb"]).default("adamw").describe("update rule"),
  lr: positive()
    .optional()
    .describe("highest learning rate (by optimizer and batch; a tenth when starting from weights)"),
  minLr: z
    .number()
    .min(0)
    .optional()
    .describe("learning rate at the end (a hundredth of lr; 0 where it falls in steps)"),
  schedule: z
    .enum(["cosine", "step", "polynomial", "one-cycle", "constant"])
    .default("cosine")
    .describe("how the learning rate falls"),
  warmup: z
    .number()
    .min(0)
    .optional()
    .describe("epochs during which the learning rate rises (a tenth of them, at most 5)"),
  momentum: z.number().min(0).lt(1).default(0.9).describe("momentum of sgd"),
  betas: z
    .tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)])
    .default([0.9, 0.999])
    .describe("decay of adamw's and lamb's two moments"),
  eps: positive().optional().describe("added to the root of the second moment (1e-8; lamb 1e-6)"),
  weightDecay: z
    .number()
    .min(0)
    .optional()
    .describe("weight decay, never on norms, biases and position tables (adamw 0.05, sgd 1e-4, lamb 0.02)"),
  clip: z
    .number()
    .min(0)
    .optional()
    .describe("largest norm of all gradients together, 0 for no limit (adamw and lamb 1, sgd 0)"),
  ema: z
    .number()
    .gt(0)
    .lt(1)
    .optional()
    .describe("keep a moving average of the weights with this decay, shorter at first, and judge by it"),
  layerDecay: z
    .number()
    .gt(0)
    .max(1)
    .default(1)
    .describe("each layer learns at this times the rate of the one above it"),
  dropPath: z
    .number()
    .min(0)
    .lt(1)
    .default(0)
    .describe("probability of skipping the last block; falls to 0 at the first"),
  loss: z
    .enum(["cross-entropy", "bce"])
    .default("cross-entropy")
    .describe("what is minimised: the classes of a picture together, or bce, each on its own"),
  smoothing: z.number().min(0).lt(1).default(0.1).describe("share of each target spread over all classes"),
  mixup: z.number().min(0).default(0).describe("alpha of Mixup, such as 0.8; 0 for none"),
  cutmix: z.number().min(0).default(0).describe("alpha of CutMix, such as 1; 0 for none"),
  augment: z
    .string()
    .regex(/^(?:none|light|rand(?:-.*)?)$/, "none, light, or a RandAugment policy such as rand-m9-mstd0.5-inc1")
    .default("light")
    .describe("none, light (crop and flip), or a RandAugment policy such as rand-m9-mstd0.5-inc1"),
  cropScale: z
    .number()
    .gt(0)
    .max(1)
    .default(0.08)
    .describe("smallest share of a picture that a random resized crop keeps"),
  padding: whole(0)
    .optional()
    .describe(
      "crop the largest square, moved by up to this many pixels beyond the edge, where it is black (an eighth of sides up to 64)",
    ),
  hflip: share()
    .default(0.5)
    .describe("probability of a left-right flip; 0 for what must not be mirrored, such as digits"),
  vflip: share().default(0).describe("probability of an upside-down flip"),
  colorJitter: z.number().min(0).max(1).default(0).describe("random change of brightness, contrast and saturation"),
  erasing: share().default(0).describe("probability of erasing a random rectangle"),
  repeats: whole(1)
    .default(1)
    .describe("views of each picture in a row (repeated augmentation); an epoch stays as long"),
  classWeights: z.boolean().default(false).describe("weigh the loss so that every class counts the same"),
  balanced: z.boolean().default(false).describe("draw every class equally often"),
  freeze: z
    .array(z.string())
    .default([])
    .describe("parameters that stay as they are, by path: layers.0, *.bias, or backbone for all but the classifier"),
  seed: whole(0).default(0).describe("where all randomness comes from"),
  device: z.enum(["auto", "cpu", "webgpu", "cuda"]).default("cpu").describe("where to compute"),
  threads: whole(1)
    .optional()
    .describe("threads of the engine (one for each core); resuming gives equal bytes for an equal number only"),
  streams: whole(1)
    .optional()
    .describe(
      "parts of each batch that go through the model side by side, each in its share of the threads (several for small models); resuming gives equal bytes for an equal number only",
    ),
  workers: whole(0)
    .optional()
    .describe("threads that read pictures (half the cores, at least two); the number changes no result"),
  patience: whole(1).optional().describe("stop when validation has not got better for this many epochs"),
  saveEvery: whole(1).optional().describe("steps between checkpoints, besides the one after each epoch"),
  resume: z.boolean().default(false).describe("go on with the run in --out as it was told, but for what is given"),
});

export type TrainConfig = z.output<typeof trainSchema>;
export type TrainConfigInput = z.input<typeof trainSchema>;
export type ConfigKey = keyof TrainConfig;

/** Checks a config; `where` names its source in messages.  Keys may be written as flags are: `image-size`. */
export function parseConfig(given: Readonly<Record<string, unknown>>, where?: string): TrainConfig {
  if (typeof given !== "object" || given === null || Array.isArray(given))
    throw new UsageError({ message: "a config is an object of keys and values", at: where });
  const values = Object.fromEntries(Object.entries(given).map(([k, v]) => [camelCase(k), v]));
  const parsed = trainSchema.safeParse(values);
  if (parsed.success) return parsed.data;
  const details = parsed.error.issues.flatMap((issue) => explain(issue, values));
  if (details.length === 1) throw new UsageError({ message: details[0].message, at: where, help: details[0].help });
  throw new UsageError({
    message: `${details.length} things in the config are wrong`,
    at: where,
    details: details.map(({ message, help }) => (help ? `${message}; ${help}` : message)),
  });
}

interface Explained {
  message: string;
  help?: string;
}

function explain(issue: z.core.$ZodIssue, given: Readonly<Record<string, unknown>>): Explained | Explained[] {
  if (issue.code === "unrecognized_keys") {
    const known = Object.keys(trainSchema.shape);
    return issue.keys.map((key) => ({
      message: `there is no key "${key}"`,
      help: didYouMean(key, known, "`oriel train --help` lists all"),
    }));
  }
  const key = String(issue.path[0]);
  const message = `${issue.path.map(String).join(".")} ${describeIssue(issue, given)}`;
  return { message, help: trainSchema.shape[key as ConfigKey]?.description };
}
