import { gradients } from "../src/autodiff/gradients.ts";
import { findModel, listModels } from "../src/backbones/index.ts";
import { fnv1a } from "../src/base/philox.ts";
import { Graph } from "../src/graph/graph.ts";
import { staticSize } from "../src/graph/shape.ts";
import { input, type Tensor } from "../src/graph/tensor.ts";
import { crossEntropy } from "../src/nn/losses.ts";
import { weightsOf } from "../src/nn/module.ts";
import { Rng } from "../src/nn/rng.ts";
import { trace } from "../src/nn/trace.ts";
import type { Feeds, HostTensor, Runtime, Value } from "../src/runtime/runtime.ts";
import { Classifier } from "../src/tasks/classify.ts";

/** What a reference implementation answers for one model, with weights and input made from names. */
export interface Golden {
  name: string;
  input: number[];
  targets: number[];
  params: number;
  fixed_buffers: string[];
  eval: { shape: number[]; head: number[][]; fingerprint: [number, number] };
  train: { loss: number; logits_fingerprint: [number, number]; grads: Record<string, [number, number]> };
  shapes: Record<string, number[]> | [string, number[]][];
}

export interface GoldenResult {
  name: string;
  /** Errors relative to the norm of what is compared. */
  logits: number;
  loss: number;
  worstGradient: { path: string; error: number };
  medianGradient: number;
  problems: string[];
}

/** u(name): numbers in [-1, 1) from mulberry32 seeded with the name's hash. */
export function uniform(name: string, size: number): Float64Array {
  let state = fnv1a(name);
  return Float64Array.from({ length: size }, () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return 2 * (((t ^ (t >>> 14)) >>> 0) / 4294967296) - 1;
  });
}

/** The value that the rule gives to a weight called `name`. */
export function goldenWeight(name: string, shape: readonly number[]): Float32Array<ArrayBuffer> {
  const u = uniform(name, staticSize(shape));
  if (shape.length >= 2) {
    const scale = Math.sqrt(3 / staticSize(shape.slice(1)));
    return Float32Array.from(u, (x) => x * scale);
  }
  const shifted = name.endsWith("bias") || name.endsWith("running_mean");
  return Float32Array.from(u, (x) => (shifted ? 0 : 1) + 0.2 * x);
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

const fingerprint = (data: ArrayLike<number>, name: string): [number, number] => {
  const probe = uniform(`probe:${name}`, data.length);
  let square = 0;
  let dot = 0;
  for (let i = 0; i < data.length; i++) {
    square += data[i] * data[i];
    dot += data[i] * probe[i];
  }
  return [Math.sqrt(square), dot];
};

const difference = (ours: [number, number], theirs: [number, number], floor = 0): number =>
  Math.max(Math.abs(ours[0] - theirs[0]), Math.abs(ours[1] - theirs[1])) / Math.max(theirs[0], floor);

/** Compares a model with its golden file; undefined where the model does not exist. */
export async function checkGolden(golden: Golden, runtime: Runtime): Promise<GoldenResult | undefined> {
  const entry = await goldenModel(golden.name);
  if (!entry) return undefined;
  const [batch, , height, width] = golden.input;
  const model = new Classifier(entry.create({ imageSize: [height, width] }), golden.eval.shape[1]);
  const weights = weightsOf(model);
  const problems = compareShapes(golden, weights);

  const image = input(golden.input);
  const named = weights.map((w): [string, Tensor] => [w.path, w.tensor]);
  const values: Record<string, HostTensor> = {
    image: {
      dtype: "float32",
      shape: golden.input,
      data: Float32Array.from(uniform("input", staticSize(golden.input))),
    },
    targets: { dtype: "int32", shape: [batch], data: Int32Array.from(golden.targets) },
    seed: { dtype: "uint32", shape: [], data: Uint32Array.of(1) },
  };
  for (const { path, tensor } of weights)
    values[path] = {
      dtype: "float32",
      shape: tensor.shape as number[],
      data: goldenWeight(path, tensor.shape as number[]),
    };

  const logits = trace(model, {}, () => model.forward(image)).result;
  const evaluated = await run(runtime, new Graph([["image", image], ...named], [["logits", logits]]), values);

  const targets = input([batch], "int32");
  const seed = input([], "uint32");
  const trained = weights.filter((w) => w.kind === "parameter");
  const { result } = trace(model, { training: true, rng: new Rng(seed) }, () => {
    const trainLogits = model.forward(image);
    const loss = crossEntropy(trainLogits, targets);
    return {
      trainLogits,
      loss,
      grads: gradients(
        loss,
        trained.map((w) => w.tensor),
      ),
    };
  });
  const step = new Graph(
    [["image", image], ["targets", targets], ["seed", seed], ...named],
    [
      ["loss", result.loss],
      ["logits", result.trainLogits],
      ...trained.map(({ path }, i): [string, Tensor] => [`grad:${path}`, result.grads[i]]),
    ],
  );
  const answers = await run(runtime, step, values);

  const theirNorms = Object.values(golden.train.grads).map(([norm]) => norm);
  const floor = 1e-6 * Math.hypot(...theirNorms);
  const errors = trained.map(({ path }) => {
    const theirs = golden.train.grads[path];
    return { path, error: theirs ? difference(fingerprint(answers[`grad:${path}`], path), theirs, floor) : Number.NaN };
  });
  const sorted = errors.map((e) => e.error).sort((a, b) => a - b);
  const head = golden.eval.head.flatMap((row, n) =>
    row.map((x, i) => Math.abs(evaluated.logits[n * golden.eval.shape[1] + i] - x)),
  );
  return {
    name: golden.name,
    logits: Math.max(
      difference(fingerprint(evaluated.logits, "logits"), golden.eval.fingerprint),
      difference(fingerprint(answers.logits, "logits"), golden.train.logits_fingerprint),
      Math.max(...head) / golden.eval.fingerprint[0],
    ),
    loss: Math.abs(answers.loss[0] - golden.train.loss) / Math.abs(golden.train.loss),
    worstGradient: errors.reduce((worst, e) => (e.error > worst.error || Number.isNaN(e.error) ? e : worst)),
    medianGradient: sorted[sorted.length >> 1],
    problems,
  };
}

/** Names and shapes that do not agree with the reference's state dict. */
function compareShapes(golden: Golden, weights: ReturnType<typeof weightsOf>): string[] {
  const theirs = new Map(Array.isArray(golden.shapes) ? golden.shapes : Object.entries(golden.shapes));
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

async function run(runtime: Runtime, graph: Graph, values: Feeds): Promise<Record<string, Float32Array>> {
  const program = await runtime.compile(graph);
  const feeds = Object.fromEntries([...graph.inputs.keys()].map((name) => [name, values[name]]));
  const outputs: Record<string, Value> = await program.run(feeds);
  await program.release();
  return Object.fromEntries(
    Object.entries(outputs).map(([name, value]) => [name, (value as HostTensor).data as Float32Array]),
  );
}
