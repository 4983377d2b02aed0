import { gradientsReached } from "../../autodiff/gradients.ts";
import { OrielError } from "../../base/errors.ts";
import { type DType, isFloat } from "../../graph/dtype.ts";
import { type Dim, known, type Shape, sameDim, showShape } from "../../graph/shape.ts";
import { constant, input, Tensor } from "../../graph/tensor.ts";
import { overWeight } from "../../nn/losses.ts";
import type { Module, Weight } from "../../nn/module.ts";
import { concat, gather, waitFor } from "../../ops/move.ts";

/**
 * A module that learns: from a batch, by name, to a loss and whatever else is worth knowing, each a number or one entry for every
 * image of the batch.
 */
export interface Task extends Module {
  /** The loss is a mean over the batch's images: where the batch is cut into parts, those of its parts are averaged. */
  forward(batch: Readonly<Record<string, Tensor>>): { loss: Tensor } & Record<string, Tensor>;
  /**
   * What the loss is a mean over where that is not the batch's images, but weights of their classes, say: by it the parts of a batch
   * count.  [] or undefined
   */
  lossWeight?(batch: Readonly<Record<string, Tensor>>): Tensor | undefined;
}

export type BatchTypes = Readonly<Record<string, { dtype: DType; shape: readonly number[] }>>;

export const batchInputs = (types: BatchTypes): Record<string, Tensor> =>
  Object.fromEntries(Object.entries(types).map(([name, { dtype, shape }]) => [name, input(shape as Shape, dtype)]));

interface Drawn {
  metrics: Record<string, Tensor>;
  /** Of the parameters that the loss depends on. */
  grads: Map<string, Tensor>;
}

/** Loss, metrics and gradients of a batch that is cut into parts.  Each part waits for the one before it. */
export function lossAndGradients(
  task: Task,
  trained: readonly Weight[],
  parts: readonly Record<string, Tensor>[],
): Drawn {
  if (parts.length === 1) return drawPart(task, trained, parts[0]);
  const weights = parts.map((part) => weightOf(task, part)).filter((weight) => weight !== undefined);
  const whole = weights.length > 0 ? weights.reduce((a, b) => a.add(b)) : undefined;
  const results: Record<string, Tensor>[] = [];
  let grads: Map<string, Tensor> | undefined;
  for (const [i, part] of parts.entries()) {
    const share = whole ? overWeight(weights[i], whole) : 1 / parts.length;
    const { metrics, grads: found } = drawPart(task, trained, grads ? after(part, grads.values()) : part, share);
    const before = grads;
    grads = before ? new Map([...found].map(([path, g]) => [path, (before.get(path) as Tensor).add(g)])) : found;
    results.push(metrics);
  }
  const batch = Object.values(parts[0])[0].shape[0];
  return { metrics: joinMetrics(results, batch), grads: grads as Map<string, Tensor> };
}

/** The same of one part, whose loss is multiplied by its share of the whole. */
export function drawPart(
  task: Task,
  trained: readonly Weight[],
  batch: Record<string, Tensor>,
  share?: Tensor | number,
): Drawn {
  const metrics = drawTask(task, batch);
  const loss = share === undefined ? metrics.loss : metrics.loss.mul(share);
  return { metrics: { ...metrics, loss }, grads: gradientsByPath(loss, trained) };
}

/** By what a part of a batch counts, where that is not its images. */
export const weightOf = (task: Task, part: Record<string, Tensor>): Tensor | undefined =>
  giveBatch(part, (batch) => task.lossWeight?.(batch)).result;

/** Metrics of a batch from those of its parts of `size` images: the sum of the losses' shares, and of the rest what `overParts` makes. */
export function joinMetrics(parts: readonly Record<string, Tensor>[], size: Dim): Record<string, Tensor> {
  const { loss: first, ...rest } = parts[0];
  const loss = parts.slice(1).reduce((sum, part) => sum.add(part.loss), first);
  const others = Object.keys(rest).map((name): [string, Tensor] => {
    const values = parts.map((part) => part[name]);
    return [name, overParts(name, values, size)];
  });
  return { loss, ...Object.fromEntries(others) };
}

/** What a task makes of a batch, all of which it reads: a loss at the least. */
function drawTask(task: Task, batch: Record<string, Tensor>): ReturnType<Task["forward"]> {
  const { result: metrics, asked } = giveBatch(batch, (given) => task.forward(given));
  if (!(metrics?.loss instanceof Tensor))
    throw new OrielError("train", {
      message: "the task's forward() gave no loss",
      help: "return { loss }, a tensor, and whatever else is worth knowing",
    });
  const unread = Object.keys(batch).filter((name) => !asked.includes(name));
  if (unread.length === 0) return metrics;
  throw new OrielError("train", {
    message: `the batch holds ${unread.join(", ")}, which the task does not read`,
    help: `it reads ${asked.join(", ") || "nothing"}`,
  });
}

/** Gives a batch to what draws from it, and tells which names it asked for; one that is missing is a fault by that name. */
function giveBatch<T>(
  batch: Record<string, Tensor>,
  draw: (batch: Readonly<Record<string, Tensor>>) => T,
): { result: T; asked: string[] } {
  const asked = new Set<string>();
  const get = (held: typeof batch, name: string): Tensor => {
    asked.add(name);
    return held[name];
  };
  try {
    return { result: draw(new Proxy(batch, { get })), asked: [...asked] };
  } catch (cause) {
    const missing = [...asked].filter((name) => !(name in batch));
    if (!(cause instanceof TypeError) || missing.length === 0) throw cause;
    throw new OrielError("train", {
      message: `the task reads ${missing.join(", ")}, which the batch does not hold`,
      help: `it holds ${Object.keys(batch).join(", ") || "nothing"}`,
      cause,
    });
  }
}

/** Gradients of the parameters that a loss depends on. */
function gradientsByPath(loss: Tensor, trained: readonly Weight[]): Map<string, Tensor> {
  const dxs = gradientsReached(
    loss,
    trained.map((w) => w.tensor),
  );
  const grads = new Map(trained.flatMap(({ path }, i): [string, Tensor][] => (dxs[i] ? [[path, dxs[i]]] : [])));
  if (grads.size > 0) return grads;
  throw new OrielError("train", {
    message: `the loss depends on none of the ${trained.length} parameters that are to be trained`,
    help: "see that forward() reads them, and that nothing stops the gradient",
  });
}

/** A metric of the batch from those of its parts: the mean of numbers, or what each has for its images, joined. */
function overParts(name: string, values: readonly Tensor[], batch: Dim): Tensor {
  const [first] = values;
  if (first.rank === 0) return values.reduce((a, b) => a.add(b)).mul(1 / values.length);
  if (sameDim(first.shape[0], batch)) return concat(values, 0);
  throw new OrielError("train", {
    message: `"${name}" is ${showShape(first.shape)} for a part of ${batch}`,
    help: "where a batch is cut into parts (accumulate, streams), a task returns numbers, or an entry for each image",
  });
}

/** A batch, made to wait until every gradient is there: one that is not would hold what it reads of the part before. */
function after(batch: Record<string, Tensor>, grads: Iterable<Tensor>): Record<string, Tensor> {
  const gate = concat(
    Array.from(grads, (g) => g.reshape([-1]).slice(0, 0, 1)),
    0,
  );
  const waiting = (x: Tensor): Tensor => (x.dtype === "bool" ? x : waitFor(x, gate)); // which is a product
  return Object.fromEntries(Object.entries(batch).map(([name, x]) => [name, waiting(x)]));
}

export function cutBatch(batch: Record<string, Tensor>, parts: number): Record<string, Tensor>[] {
  if (!Number.isInteger(parts) || parts < 1)
    throw new OrielError("train", {
      message: `a batch cannot be cut into ${parts} parts`,
      help: "accumulate is 1, 2, …",
    });
  if (parts === 1) return [batch];
  return Array.from({ length: parts }, (_, i) =>
    Object.fromEntries(
      Object.entries(batch).map(([name, x]) => {
        const size = partSize(known(x.shape[0], "the batch"), parts);
        return [name, rowsOf(x, i * size, size)];
      }),
    ),
  );
}

/** The images of one of several parts of a batch, which are all as large. */
export function partSize(size: number, parts: number): number {
  if (size % parts === 0) return size / parts;
  throw new OrielError("train", {
    message: `a batch of ${size} does not divide into ${parts} parts`,
    help: "choose a batch that does",
  });
}

/** Rows of what a batch holds.  WebGPU cuts no whole numbers, but gathers them. */
function rowsOf(x: Tensor, start: number, count: number): Tensor {
  if (isFloat(x.dtype)) return x.slice(0, start, start + count);
  const rows = Int32Array.from({ length: count }, (_, i) => start + i);
  return gather(x, constant(rows, [count], "int32"), { axis: 0 });
}
