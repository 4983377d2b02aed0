import { readFile } from "node:fs/promises";
import { z } from "zod";
import { gradients } from "../src/autodiff/gradients.ts";
import { findModel, listModels } from "../src/backbones/index.ts";
import { UsageError } from "../src/base/errors.ts";
import { fnv1a } from "../src/base/philox.ts";
import { dataOf } from "../src/graph/dtype.ts";
import { Graph } from "../src/graph/graph.ts";
import { staticSize } from "../src/graph/shape.ts";
import { constant, input, type Tensor } from "../src/graph/tensor.ts";
import { crossEntropy } from "../src/nn/losses.ts";
import { weightsOf } from "../src/nn/module.ts";
import { Rng } from "../src/nn/rng.ts";
import { trace } from "../src/nn/trace.ts";
import type { CompileOptions, Feeds, HostTensor, Runtime, Value } from "../src/runtime/runtime.ts";
import { Classifier } from "../src/tasks/classify.ts";
import { blocks } from "./golden-blocks.ts";
import { inFloat64 } from "./in-float64.ts";

const pair = z.tuple([z.number(), z.number()]);
const shapes = z.record(z.string(), z.array(z.int()));

/** What a reference implementation answers for one model, with weights and input made from names. */
const goldenFile = z.object({
  name: z.string(),
  input: z.array(z.int().positive()),
  targets: z.array(z.int()),
  params: z.int(),
  fixed_buffers: z.array(z.string()),
  eval: z.object({ shape: z.array(z.int()), head: z.array(z.array(z.number())), fingerprint: pair }),
  train: z.object({ loss: z.number(), logits_fingerprint: pair, grads: z.record(z.string(), pair) }),
  shapes: z.union([
    shapes,
    z
      .array(z.tuple([z.string(), z.array(z.int())]))
      .transform(Object.fromEntries)
      .pipe(shapes),
  ]),
});
export type Golden = z.infer<typeof goldenFile>;

/** Reads a golden file; an error says what is wrong with it. */
export async function readGolden(file: string): Promise<Golden> {
  const text = await readFile(file, "utf8").catch((cause) => {
    throw new UsageError({ message: `${file} cannot be read: ${cause.code ?? cause}`, cause });
  });
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new UsageError({ message: `${file} is no JSON: ${(cause as Error).message}`, cause });
  }
  const { data, error } = goldenFile.safeParse(json);
  if (data) return data;
  throw new UsageError({ message: `${file} is no golden file`, details: z.prettifyError(error).split("\n") });
}

/** How far a gradient's norm and projection are from the reference's, relative to its norm. */
export interface GradientError {
  path: string;
  norm: number;
  projection: number;
}

/** What a training step gives, against the reference: relative to the norm of what is compared. */
export interface StepErrors {
  logits: number;
  loss: number;
  gradients: readonly GradientError[];
}

export interface GoldenResult extends StepErrors {
  name: string;
  /** Whether nothing in the network decides between branches: no ReLU, no maximum, no clipping. */
  smooth: boolean;
  /** The same step in float64, where in float32 units changed side: then it has to agree as a smooth network does. */
  exact?: StepErrors;
  /** What does not agree; empty where the model passes. */
  problems: string[];
}

/** The larger of a gradient's two errors. */
export const errorOf = ({ norm, projection }: GradientError): number => Math.max(norm, projection);

/** The gradient that is furthest off. */
export const worst = (gradients: readonly GradientError[]): GradientError =>
  gradients.reduce((a, b) => (errorOf(b) > errorOf(a) || Number.isNaN(errorOf(b)) ? b : a));

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1];
}

const outputLimit = 1e-4;
const smoothLimits = { norm: 1e-3, projection: 1e-3 };
/** Where ReLU or a maximum decides, a few of millions of units change side in float32; beyond these limits float64 has to show why. */
const kinkedLimits = { median: 1e-3, norm: 3e-2, projection: 3e-2 };
/**
 * How far the reference itself moves when it runs in float32.  Measured with PyTorch on resnet50: the median error of norms is 4e-4,
 * single norms move by 7e-3, projections by 3e-2; on spnasnet_100 5e-4, 8e-3 and 3e-2.
 */
const float32Limits = { medianNorm: 1e-3, norm: 1.5e-2, projection: 5e-2 };

/** Operations whose derivative jumps. */
const kinks = new Set(
  "Relu LeakyRelu PRelu ThresholdedRelu Clip HardSigmoid HardSwish Abs Max Min MaxPool ReduceMax ReduceMin TopK Floor Ceil Greater GreaterOrEqual Less LessOrEqual".split(
    " ",
  ),
);

/** u(name): numbers in [-1, 1) from mulberry32 seeded with the name's hash. */
export function uniform(name: string, size: number): Float64Array {
  const u = new Float64Array(size);
  let state = fnv1a(name) | 0;
  for (let i = 0; i < size; i++) {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    u[i] = 2 * (((t ^ (t >>> 14)) >>> 0) / 4294967296) - 1;
  }
  return u;
}

/** The value that the rule gives to a weight called `name`. */
export function goldenWeight(name: string, shape: readonly number[]): Float32Array<ArrayBuffer> {
  const u = uniform(name, staticSize(shape));
  const aroundZero = shape.length >= 2 || name.endsWith("bias") || name.endsWith("running_mean");
  const scale = shape.length >= 2 ? Math.sqrt(3 / staticSize(shape.slice(1))) : 0.2;
  const weight = new Float32Array(u.length);
  // A plain loop, as above: with `Float32Array.from` these numbers took three quarters of a golden file's time.
  for (let i = 0; i < u.length; i++) weight[i] = (aroundZero ? 0 : 1) + scale * u[i];
  return weight;
}

/** The model that a golden file is about: its whole name, or what stands before a trailing image size. */
export async function goldenModel(name: string) {
  const models = await listModels();
  const known = (wanted: string) => models.some((m) => m.name === wanted || m.aliases.includes(wanted));
  if (known(name)) return findModel(name);
  const [, stem, size] = /^(.*)_(\d+)$/.exec(name) ?? [];
  if (!stem || !known(stem)) return undefined;
  const entry = await findModel(stem);
  return { ...entry, create: (options = {}) => entry.create({ imageSize: Number(size), ...options }) };
}

/** A tensor in two numbers: its norm, and its projection on the probe of that name. */
export const fingerprint = (data: ArrayLike<number>, name: string): [number, number] => {
  const probe = uniform(`probe:${name}`, data.length);
  let square = 0;
  let dot = 0;
  for (let i = 0; i < data.length; i++) {
    square += data[i] * data[i];
    dot += data[i] * probe[i];
  }
  return [Math.sqrt(square), dot];
};

const relative = (ours: number, theirs: number, scale: number): number => Math.abs(ours - theirs) / scale;
const difference = (ours: readonly number[], theirs: readonly number[]): number =>
  Math.max(relative(ours[0], theirs[0], theirs[0]), relative(ours[1], theirs[1], theirs[0]));

/**
 * What a reference did that the published model does not do, as options of ours.  GC ViT: images of a batch were mixed.  FBNet-C: timm
 * gives a fresh model another ε than its published weights.
 */
const quirks: Readonly<Record<string, object>> = { gcvit_xxtiny: { queries: "tiled" }, fbnetc_100: { eps: 1e-5 } };

/** What a golden file is about: a classifier, or a layer alone; undefined where it does not exist. */
async function goldenModule({ name, input, eval: { shape } }: Golden) {
  if (Object.hasOwn(blocks, name)) return blocks[name]();
  const entry = await goldenModel(name);
  const [, inChannels, height, width] = input;
  return entry && new Classifier(entry.create({ ...quirks[name], imageSize: [height, width], inChannels }), shape[1]);
}

/** The loss of a golden file: cross-entropy, or without targets the mean of the outputs weighed by a probe. */
function goldenLoss(outputs: Tensor, targets: Tensor): Tensor {
  if (targets.shape[0] !== 0) return crossEntropy(outputs, targets);
  const probe = Float32Array.from(uniform("probe:loss", staticSize(outputs.shape)));
  return outputs.mul(constant(probe, outputs.shape as number[], "float32")).mean();
}

/** Compares a model with its golden file; undefined where the model does not exist. */
export async function checkGolden(golden: Golden, runtime: Runtime): Promise<GoldenResult | undefined> {
  const model = await goldenModule(golden);
  if (!model) return undefined;
  const each = staticSize(golden.eval.shape.slice(1));
  const weights = weightsOf(model);
  const mismatches = compareShapes(golden, weights);
  if (mismatches.length > 0)
    return { name: golden.name, smooth: true, logits: NaN, loss: NaN, gradients: [], problems: mismatches };

  const image = input(golden.input);
  const named = weights.map((w): [string, Tensor] => [w.path, w.tensor]);
  const values: Record<string, HostTensor> = {
    image: float32(golden.input, Float32Array.from(uniform("input", staticSize(golden.input)))),
    targets: { dtype: "int32", shape: [golden.targets.length], data: Int32Array.from(golden.targets) },
    seed: { dtype: "uint32", shape: [], data: Uint32Array.of(1) },
  };
  for (const { path, tensor } of weights) {
    const shape = tensor.shape as number[];
    values[path] = float32(shape, goldenWeight(path, shape));
  }

  const { result: logits } = trace(model, {}, () => model.forward(image));
  const forward = new Graph([["image", image], ...named], [["logits", logits]]);
  const evaluated = await run(runtime, forward, values);

  const [targets, seed] = [input([golden.targets.length], "int32"), input([], "uint32")];
  const trained = weights.filter((w) => w.kind === "parameter");
  const { result } = trace(model, { training: true, rng: new Rng(seed) }, () => {
    const trainLogits = model.forward(image);
    const loss = goldenLoss(trainLogits, targets);
    const wrt = trained.map((w) => w.tensor);
    return { trainLogits, loss, grads: gradients(loss, wrt) };
  });
  const step = new Graph(
    [["image", image], ["targets", targets], ["seed", seed], ...named],
    [
      ["loss", result.loss],
      ["logits", result.trainLogits],
      ...trained.map(({ path }, i): [string, Tensor] => [`grad:${path}`, result.grads[i]]),
    ],
  );
  const answers = await run(runtime, step, values, { training: true });
  const head = golden.eval.head.flatMap((row, n) =>
    row.map((x, i) => relative(evaluated.logits[n * each + i], x, golden.eval.fingerprint[0])),
  );
  const found = stepErrors(golden, answers);
  const compared: Compared = {
    ...found,
    name: golden.name,
    smooth: !forward.nodes.some((node) => kinks.has(node.op.name)),
    logits: Math.max(
      found.logits,
      difference(fingerprint(evaluated.logits, "logits"), golden.eval.fingerprint),
      ...head,
    ),
  };
  if (!compared.smooth && judgeGradients(compared.gradients, kinkedLimits).length > 0) {
    const wide = Object.entries(values).map(([name, x]) => [name, x.dtype === "float32" ? inFloat64Too(x) : x]);
    compared.exact = stepErrors(
      golden,
      await run(runtime, inFloat64(step), Object.fromEntries(wide), { training: true }),
    );
  }
  return { ...compared, problems: judge(compared) };
}

type Compared = Omit<GoldenResult, "problems">;

/** What a training step answered, against the reference. */
function stepErrors({ train }: Golden, answers: Answers): StepErrors {
  // A gradient that is zero by construction is rounding on both sides: in float64 theirs, in float32 ours.
  const whole = Math.hypot(...Object.values(train.grads).map(([norm]) => norm));
  const paths = Object.keys(answers).flatMap((name) => (name.startsWith("grad:") ? [name.slice(5)] : []));
  return {
    logits: difference(fingerprint(answers.logits, "logits"), train.logits_fingerprint),
    loss: relative(answers.loss[0], train.loss, Math.abs(train.loss)),
    gradients: paths.map((path) => {
      const [ours, theirs] = [fingerprint(answers[`grad:${path}`], path), train.grads[path] ?? [NaN, NaN]];
      const scale = theirs[0] < 1e-13 * whole ? 1e-4 * whole : Math.max(theirs[0], 1e-6 * whole);
      return { path, norm: relative(ours[0], theirs[0], scale), projection: relative(ours[1], theirs[1], scale) };
    }),
  };
}

const float32 = (shape: readonly number[], data: Float32Array<ArrayBuffer>): HostTensor => ({
  dtype: "float32",
  shape,
  data,
});

const inFloat64Too = ({ shape, data }: HostTensor): HostTensor => ({
  dtype: "float64",
  shape,
  data: dataOf("float64", data as Float32Array),
});

/** Which limits are passed.  What is no number passes none. */
function judge({ smooth, exact, ...inFloat32 }: Compared): string[] {
  if (smooth) return [...judgeOutputs(inFloat32), ...judgeGradients(inFloat32.gradients, smoothLimits)];
  if (!exact) return judgeOutputs(inFloat32);
  const medianNorm = median(inFloat32.gradients.map((g) => g.norm));
  return [
    ...judgeOutputs(inFloat32),
    ...exceeds("the median gradient's norm", medianNorm, float32Limits.medianNorm),
    ...judgeGradients(inFloat32.gradients, float32Limits),
    ...[...judgeOutputs(exact), ...judgeGradients(exact.gradients, smoothLimits)].map((p) => `in float64 ${p}`),
  ];
}

const judgeOutputs = ({ logits, loss }: StepErrors): string[] => [
  ...exceeds("the logits' fingerprint", logits, outputLimit),
  ...exceeds("the loss", loss, outputLimit),
];

const judgeGradients = (
  gradients: readonly GradientError[],
  limits: { median?: number; norm: number; projection: number },
): string[] => [
  ...exceeds("the median gradient", median(gradients.map(errorOf)), limits.median ?? Infinity),
  ...gradients.flatMap(({ path, norm, projection }) => [
    ...exceeds(`the norm of ${path}'s gradient`, norm, limits.norm),
    ...exceeds(`the projection of ${path}'s gradient`, projection, limits.projection),
  ]),
];

const exceeds = (what: string, error: number, limit: number): string[] =>
  error <= limit ? [] : [`${what} is off by ${show(error)}, the limit is ${show(limit)}`];

/** A small number, as people read it: "2.0e-7". */
export const show = (x: number): string => x.toExponential(1);

/** Names and shapes that do not agree with the reference's state dict. */
function compareShapes(golden: Golden, weights: ReturnType<typeof weightsOf>): string[] {
  const theirs = new Map(Object.entries(golden.shapes));
  const ours = new Map(weights.map((w) => [w.path, w.tensor.shape.join()]));
  for (const name of golden.fixed_buffers) theirs.delete(name);
  const problems = [...theirs].flatMap(([name, shape]) =>
    ours.get(name) === shape.join()
      ? []
      : [`${name}: theirs [${shape}], ours ${ours.has(name) ? `[${ours.get(name)}]` : "missing"}`],
  );
  for (const name of ours.keys()) if (!theirs.has(name)) problems.push(`${name}: not theirs`);
  const params = weights.filter((w) => w.kind === "parameter").reduce((n, w) => n + staticSize(w.tensor.shape), 0);
  if (params !== golden.params) problems.push(`${params} parameters, theirs ${golden.params}`);
  return problems;
}

type Answers = Record<string, Float32Array | Float64Array>;

async function run(runtime: Runtime, graph: Graph, values: Feeds, options?: CompileOptions): Promise<Answers> {
  const program = await runtime.compile(graph, options);
  const feeds = Object.fromEntries([...graph.inputs.keys()].map((name) => [name, values[name]]));
  const outputs: Record<string, Value> = await program.run(feeds);
  await program.release();
  return Object.fromEntries(
    Object.entries(outputs).map(([name, value]) => [name, (value as HostTensor).data as Answers[string]]),
  );
}
