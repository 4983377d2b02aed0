import { OrielError } from "../../base/errors.ts";
import { Graph } from "../../graph/graph.ts";
import { constantOp, input, leaf, scalar, type Tensor } from "../../graph/tensor.ts";
import { weightsOf } from "../../nn/module.ts";
import { Rng } from "../../nn/rng.ts";
import { trace } from "../../nn/trace.ts";
import { concat } from "../../ops/move.ts";
import type { Feeds, HostTensor, Runtime } from "../../runtime/runtime.ts";
import type { Tensors } from "./state.ts";
import type { Task } from "./task.ts";

/** The step that went wrong, as it was before it ran. */
export interface FailedStep {
  task: Task;
  runtime: Runtime;
  /** Parameters and buffers that the step read. */
  weights: Tensors;
  batch: Readonly<Record<string, HostTensor>>;
  seed: HostTensor;
  /** Parameters after the step. */
  after: Tensors;
}

/** The first non-finite tensor of a step: a parameter, the batch, the forward pass in order, then the gradients.  Says where it is. */
export async function firstNonFinite({ task, runtime, weights, batch, seed, after }: FailedStep): Promise<string> {
  const parameter = [...weights].find(([, { data }]) => !allFinite(data));
  if (parameter) return `the parameter ${parameter[0]}, which an earlier update had broken`;
  const given = Object.entries(batch).find(([, { data }]) => data instanceof Float32Array && !allFinite(data));
  if (given) return `the input ${given[0]}`;
  const activation = await firstActivation(task, runtime, { weights, batch, seed });
  if (activation !== undefined) return activation;
  const updated = [...after].find(([, { data }]) => !allFinite(data));
  return updated ? `the gradient of ${updated[0]}` : "the loss";
}

/** As the sum of 0 · x, which is NaN where one is not: a checkpoint has a hundred million of them. */
export function allFinite(values: Float32Array): boolean {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += 0 * values[i];
  return sum === 0;
}

type Given = Pick<FailedStep, "weights" | "batch" | "seed">;

/** Draws the forward pass again and asks of every tensor in it whether it is finite: 0 · x sums to NaN where it is not. */
async function firstActivation(
  task: Task,
  runtime: Runtime,
  { weights, batch, seed }: Given,
): Promise<string | undefined> {
  const seedInput = input([], "uint32");
  const inputs = Object.fromEntries(
    Object.entries(batch).map(([name, { dtype, shape }]) => [name, input(shape, dtype)]),
  );
  const { result } = trace(task, { training: true, rng: new Rng(seedInput) }, () => task.forward(inputs));
  const named: [string, Tensor][] = [
    ...Object.entries(inputs),
    ["seed", seedInput],
    ...weightsOf(task).map((w): [string, Tensor] => [w.path, w.tensor]),
  ];
  const { nodes } = new Graph(named, [["loss", result.loss]]);
  const asked = nodes.filter(({ op, outputs }) => op !== leaf && op !== constantOp && outputs[0].dtype === "float32");
  const marks = asked.map(({ outputs }) => outputs[0].mul(scalar(0)).sum().reshape([1]));
  const graph = new Graph(named, [["marks", concat(marks, 0)]]);
  const program = await runtime.compile(graph, { optimize: "basic" });
  try {
    const feeds: Feeds = {
      ...Object.fromEntries(
        [...weights].map(([name, { shape, data }]) => [name, { dtype: "float32" as const, shape, data }]),
      ),
      ...batch,
      seed,
    };
    const { marks: found } = await program.run(
      Object.fromEntries(Object.entries(feeds).filter(([name]) => graph.inputs.has(name))),
    );
    const at = (found.data as Float32Array).findIndex((mark) => Number.isNaN(mark));
    if (at < 0) return undefined;
    const { op, scope } = asked[at];
    return `the output of ${op.name} in ${scope || "the loss"}`;
  } finally {
    await program.release();
  }
}

/** What stops a run whose numbers have left the floats. */
export function nonFinite(facts: {
  step: number;
  lr: number;
  loss?: number;
  where: string;
  kept?: string;
}): OrielError {
  const { step, lr, loss, where, kept } = facts;
  return new OrielError("non-finite", {
    message: `${loss === undefined ? "the weights are no numbers" : `the loss is ${loss}`} at step ${step}, with learning rate ${lr}; the first tensor that is not finite is ${where}`,
    details: kept === undefined ? [] : [`${kept} is the last good state`],
    help: "lower the learning rate (--lr), warm up longer (--warmup) or clip gradients (--clip 1)",
  });
}
