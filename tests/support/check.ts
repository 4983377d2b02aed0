import assert from "node:assert/strict";
import { after } from "node:test";
import { gradients } from "../../src/autodiff/gradients.ts";
import { type DType, dataOf, isFloat } from "../../src/graph/dtype.ts";
import { Graph } from "../../src/graph/graph.ts";
import { bindShape, showShape } from "../../src/graph/shape.ts";
import { input, type Tensor } from "../../src/graph/tensor.ts";
import { blockSize, openNode } from "../../src/runtime/node.ts";
import type { CompileOptions, HostTensor } from "../../src/runtime/runtime.ts";
import { numbers, randn } from "./arrays.ts";

/** One engine for each test file. */
export const runtime = await openNode({ threads: 1 });
after(() => runtime.close());

/** Why a test cannot run that needs blocks of 16 channels: `skip` of a test. */
export const withoutWideBlocks = async (): Promise<string | false> =>
  process.arch !== "x64" || (await blockSize(runtime)) < 16 ? "this processor has no blocks of 16 channels" : false;

export type Drawing = (...xs: Tensor[]) => Tensor;

export interface CheckOptions {
  /** Where float inputs are computed; float32 for the operations that the engine has only there. */
  dtype?: "float64" | "float32";
  /** Relative to the largest value that is compared. */
  tolerance?: number;
  /** Which inputs a gradient is checked for; by default all of floats. */
  wrt?: readonly number[];
  /** Length of a difference step. */
  step?: number;
}

/** Float arrays as `dtype`, others as they are. */
export const as = (x: HostTensor, dtype: DType): HostTensor =>
  isFloat(x.dtype) ? { dtype, shape: x.shape, data: dataOf(dtype, numbers(x)) } : x;

/** Runs a graph on the engine: outputs by name. */
export async function runGraph(
  graph: Graph,
  feeds: Record<string, HostTensor>,
  options: CompileOptions = {},
): Promise<Record<string, HostTensor>> {
  const program = await runtime.compile(graph, options);
  const read = Object.fromEntries([...graph.inputs.keys()].map((name) => [name, feeds[name]]));
  const results = await program.run(read);
  await program.release();
  return results as Record<string, HostTensor>;
}

/** Random floats for all inputs of a graph. */
export const randomFeeds = (graph: Graph): Record<string, HostTensor> =>
  Object.fromEntries([...graph.inputs].map(([name, { shape }]) => [name, as(randn(shape as number[]), "float32")]));

/** What a graph gives as it is drawn, and as it is prepared for this processor, which is to bring some of it into blocks. */
export async function plainAndBlocked(graph: Graph, feeds: Record<string, HostTensor>) {
  const run = async (optimize: "all" | "extended"): Promise<[Record<string, HostTensor>, boolean]> => {
    const program = await runtime.compile(graph, { optimize, profile: true });
    const results = (await program.run(feeds)) as Record<string, HostTensor>;
    const blocked = (await program.profile()).some(({ op }) => op === "ReorderInput");
    await program.release();
    return [results, blocked];
  };
  const [[wanted, plain], [got, blocked]] = [await run("extended"), await run("all")];
  assert.deepEqual([plain, blocked], [false, true]);
  return [wanted, got];
}

/** What `draw` computes from `xs`. */
export async function evaluate(draw: Drawing, ...xs: HostTensor[]): Promise<HostTensor> {
  const inputs = xs.map((x) => input(x.shape, x.dtype));
  const y = draw(...inputs);
  const graph = new Graph(
    inputs.map((x, i) => [`x${i}`, x]),
    [["y", y]],
  );
  const result = (await runGraph(graph, Object.fromEntries(xs.map((x, i) => [`x${i}`, x])))).y;
  assert.equal(result.dtype, y.dtype);
  assert.deepEqual([...result.shape], bindShape(y.shape, -1), `drawn as ${showShape(y.shape)}`);
  return result;
}

/** The largest difference of two arrays, relative to the largest value of `wanted`. */
export function difference(got: HostTensor, wanted: HostTensor): number {
  assert.deepEqual([...got.shape], [...wanted.shape]);
  const [a, b] = [numbers(got), numbers(wanted)];
  const scale = b.reduce((most, x) => (Number.isFinite(x) ? Math.max(most, Math.abs(x)) : most), 1e-3);
  const equal = (x: number, y: number): boolean => Object.is(x, y) || x === y;
  return a.reduce((most, x, i) => Math.max(most, equal(x, b[i]) ? 0 : Math.abs(x - b[i]) / scale), 0);
}

/** Checks an operation against a second source, which is written down in the test. */
export async function checkOp(
  draw: Drawing,
  inputs: readonly HostTensor[],
  naive: (...xs: HostTensor[]) => HostTensor,
  { dtype = "float64", tolerance = dtype === "float64" ? 1e-9 : 2e-5 }: CheckOptions = {},
): Promise<void> {
  const got = await evaluate(draw, ...inputs.map((x) => as(x, dtype)));
  const error = difference(got, naive(...inputs));
  assert.ok(error <= tolerance, `${error} away from the naive loop`);
}

/**
 * Checks gradients: ⟨v, Jᵀu⟩, where the rule gives Jᵀu, against ⟨u, Jv⟩ by central differences of fourth order, for random u and
 * v, one input at a time.
 */
export async function checkGrad(
  draw: Drawing,
  inputs: readonly HostTensor[],
  { dtype = "float64", wrt, step = dtype === "float64" ? 1e-3 : 3e-2, ...options }: CheckOptions = {},
): Promise<void> {
  const tolerance = options.tolerance ?? (dtype === "float64" ? 1e-8 : 3e-4);
  const xs = inputs.map((x) => as(x, dtype));
  const chosen = wrt ?? xs.flatMap((x, i) => (isFloat(x.dtype) ? [i] : []));
  const drawn = xs.map((x) => input(x.shape, x.dtype));
  const y = draw(...drawn);
  const u = as(randn(bindShape(y.shape, -1)), dtype);
  const seed = input(u.shape, dtype);
  const grads = gradients(
    y,
    chosen.map((i) => drawn[i]),
    { seed },
  );
  const named = drawn.map((x, i): [string, Tensor] => [`x${i}`, x]);
  const feeds = Object.fromEntries(xs.map((x, i) => [`x${i}`, x]));
  const outputs = grads.map((dx, k): [string, Tensor] => [`dx${chosen[k]}`, dx]);
  const backward = await runGraph(new Graph([...named, ["seed", seed]], outputs), { ...feeds, seed: u });

  const forward = await runtime.compile(new Graph(named, [["y", y]]));
  const along = async (i: number, v: HostTensor, length: number): Promise<number> => {
    const moved = {
      ...xs[i],
      data: dataOf(
        dtype,
        numbers(xs[i]).map((x, k) => x + length * Number(v.data[k])),
      ),
    };
    const { y: value } = (await forward.run({ ...feeds, [`x${i}`]: moved })) as Record<string, HostTensor>;
    return dot(value, u);
  };
  for (const i of chosen) {
    const dx = backward[`dx${i}`];
    assert.deepEqual([dx.dtype, [...dx.shape]], [dtype, [...xs[i].shape]], `the gradient of input ${i}`);
    const v = randn(xs[i].shape);
    const [far, near, nearer, farther] = await Promise.all([-2, -1, 1, 2].map((k) => along(i, v, k * step)));
    const numeric = (8 * (nearer - near) - (farther - far)) / (12 * step);
    const ruled = dot(dx, v);
    // Relative to what the products could have been.
    const scale = Math.max(Math.hypot(...numbers(dx)) * Math.hypot(...numbers(v)), 1e-3);
    const error = Math.abs(ruled - numeric) / scale;
    assert.ok(error <= tolerance, `input ${i}: the rule gives ${ruled}, differences ${numeric} (${error})`);
  }
  await forward.release();
}

const dot = (a: HostTensor, b: HostTensor): number => numbers(a).reduce((sum, x, i) => sum + x * Number(b.data[i]), 0);
