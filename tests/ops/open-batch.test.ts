import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { gradients } from "../../src/autodiff/gradients.ts";
import { Graph } from "../../src/graph/graph.ts";
import { OpenDim } from "../../src/graph/shape.ts";
import { constant, input, type Tensor } from "../../src/graph/tensor.ts";
import * as ops from "../../src/ops/index.ts";
import type { HostTensor } from "../../src/runtime/runtime.ts";
import { nd, positive, randn } from "../support/arrays.ts";
import { as, difference, runGraph } from "../support/check.ts";

interface Case {
  /** Of one image; the batch comes in front. */
  image: number[];
  weights?: readonly HostTensor[];
  draw: (x: Tensor, ...weights: Tensor[]) => Tensor;
}

/** -1, -2, ... for the images of a batch.  [N, ...] -> int32 [N] */
function placesFromTheEnd(x: Tensor): Tensor {
  const ones = x
    .mul(0)
    .mean(x.shape.map((_, axis) => axis).slice(1))
    .add(1);
  return ops.cast(ops.cumSum(ones, { axis: 0 }).mul(-1), { to: "int32" });
}

const resized = (x: Tensor, size: number[]): Tensor[] =>
  (["nearest-exact", "linear", "cubic"] as const).map((mode) => ops.resize(x, { size, mode }));

/** What backbones draw. */
const cases: Record<string, Case> = {
  "linear layer": { image: [4, 3], weights: [randn([3, 5]), randn([5])], draw: (x, w, b) => x.matmul(w).add(b) },
  convolution: {
    image: [2, 5, 5],
    weights: [randn([4, 2, 3, 3]), randn([4])],
    draw: (x, w, b) => ops.conv(x, w, b, { padding: 1 }),
  },
  "convolution with a stride": {
    image: [2, 6, 6],
    weights: [randn([4, 2, 3, 3])],
    draw: (x, w) => ops.conv(x, w, undefined, { stride: 2, padding: 1 }),
  },
  "patch embedding": {
    image: [2, 4, 4],
    weights: [randn([3, 2, 2, 2])],
    draw: (x, w) => ops.conv(x, w, undefined, { stride: 2 }).reshape([x.shape[0], 3, 4]).mT,
  },
  "depthwise convolution": {
    image: [2, 5, 5],
    weights: [randn([2, 1, 3, 3])],
    draw: (x, w) => ops.conv(x, w, undefined, { padding: 1, groups: 2 }),
  },
  "grouped convolution": {
    image: [4, 5, 5],
    weights: [randn([4, 2, 3, 3])],
    draw: (x, w) => ops.conv(x, w, undefined, { groups: 2, stride: 2 }),
  },
  "transposed convolution": {
    image: [2, 3, 3],
    weights: [randn([2, 3, 2, 2])],
    draw: (x, w) => ops.convTranspose(x, w, undefined, { stride: 2 }),
  },
  "layer norm": { image: [4, 3], weights: [randn([3]), randn([3])], draw: (x, s, b) => ops.layerNorm(x, s, b, 1e-5) },
  "batch norm": {
    image: [2, 3, 3],
    weights: [randn([2]), randn([2]), randn([2]), positive([2])],
    draw: (x, s, b, m, v) => ops.batchNorm(x, s, b, m, v, { epsilon: 1e-5 }),
  },
  "group norm": {
    image: [4, 3, 3],
    weights: [randn([4]), randn([4])],
    draw: (x, s, b) => ops.groupNorm(x, 2, s, b, 1e-5),
  },
  "instance norm": {
    image: [2, 3, 3],
    weights: [randn([2]), randn([2])],
    draw: (x, s, b) => ops.instanceNorm(x, s, b, { epsilon: 1e-5 }),
  },
  "rms norm": { image: [4, 3], weights: [randn([3])], draw: (x, s) => ops.rmsNorm(x, s, 1e-5) },
  attention: {
    image: [4, 6],
    draw: (x) => {
      const heads = x.reshape([-1, 4, 2, 3]).permute(0, 2, 1, 3);
      return ops.softmax(heads.matmul(heads.mT)).matmul(heads).permute(0, 2, 1, 3).reshape([-1, 4, 6]);
    },
  },
  "attention by einsum": { image: [4, 3], draw: (x) => ops.einsum("nqd,nkd->nqk", x, x.exp()) },
  "windows, merged into the batch": {
    image: [4, 4, 2],
    weights: [randn([4, 4, 4])],
    draw: (x, mask) => {
      const windows = ops
        .permuteAlong(x.reshape([-1, 16, 2]), [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15], 1)
        .reshape([-1, 4, 2]);
      const scores = windows.matmul(windows.mT).reshape([-1, 4, 4, 4]).add(mask).reshape([-1, 4, 4]);
      return ops.softmax(scores).matmul(windows).reshape(x.shape);
    },
  },
  "class token": {
    image: [4, 3],
    weights: [randn([1, 1, 3])],
    draw: (x, token) => ops.concat([ops.expandBatch(token, x), x], 1),
  },
  "max pool": { image: [2, 5, 5], draw: (x) => ops.maxPool(x, { kernel: 3, stride: 2, padding: 1 }) },
  "max pool, side by side": { image: [2, 5, 4], draw: (x) => ops.maxPool(x, { kernel: 2 }) },
  "average pool": { image: [2, 5, 5], draw: (x) => ops.averagePool(x, { kernel: 3, stride: 2, padding: 1 }) },
  "average pool, side by side": { image: [2, 4, 4], draw: (x) => ops.averagePool(x, { kernel: 2 }) },
  "adaptive pool": { image: [2, 5, 5], draw: (x) => ops.adaptiveAveragePool(x, [2, 3]) },
  "global pool": { image: [2, 5, 5], draw: (x) => x.mean([2, 3]) },
  "sum over the batch": { image: [3], draw: (x) => x.sum([0]) },
  "mean over the batch": { image: [3], draw: (x) => x.mean([0], true) },
  "largest of the batch": { image: [3], draw: (x) => x.max([0]) },
  "statistics of the batch": {
    image: [2, 3],
    draw: (x) =>
      x
        .sub(x.mean([0], true))
        .square()
        .mean([0, 2]),
  },
  resize: { image: [2, 3, 3], draw: (x) => ops.resize(x, { size: [6, 5] }) },
  "resize, channels last": {
    image: [5, 4, 3],
    draw: (x) => {
      const map = x.permute(0, 3, 1, 2);
      const sizes = [...resized(map, [7, 9]), ...resized(map, [3, 2])];
      return ops.concat(
        sizes.map((y) => y.permute(0, 2, 3, 1).reshape([x.shape[0], -1])),
        1,
      );
    },
  },
  activations: { image: [3], draw: (x) => ops.gelu(x).add(ops.silu(x)).add(ops.hardSwish(x)).add(ops.relu(x)) },
  "log-softmax and one-hot labels": {
    image: [5],
    draw: (x) =>
      ops
        .logSoftmax(x)
        .mul(ops.oneHot(ops.cast(x.max([1]).mul(0), { to: "int32" }), 5))
        .sum([1]),
  },
  "slice, pad, roll, flip, split": {
    image: [6, 2],
    draw: (x) => {
      const [a, b] = ops.split(ops.roll(x, 2, 1).flip(1), 1, 2);
      return a.mul(b).slice(1, 0, 3, 2).pad(1, 1, 0).pad(1, 1, 1, { mode: "reflect" });
    },
  },
  "gather of tokens": {
    image: [4, 3],
    draw: (x) => ops.gather(x, ops.cast(x.sum().mul(0), { to: "int32" }).reshape([1]), { axis: 1 }),
  },
  "gather of images, as many as there are, the last first": {
    image: [2, 3],
    draw: (x) => ops.gather(x, placesFromTheEnd(x), { axis: 0 }),
  },
  "gather of images, a few": {
    image: [2],
    draw: (x) => ops.gather(x, constant(Int32Array.of(0, -1, 0), [3], "int32"), { axis: 0 }),
  },
  "gather of rows and columns of a table for each image": {
    image: [2, 3],
    weights: [randn([4, 5])],
    draw: (x, w) =>
      ops
        .gather(w, placesFromTheEnd(x), { axis: 0 })
        .sum([1])
        .mul(ops.gather(w, placesFromTheEnd(x), { axis: 1 }).sum([0]))
        .mul(x.sum([1, 2])),
  },
  "tokens by rank": {
    image: [5],
    draw: (x) => ops.gatherElements(x, ops.topK(x, 3).indices, { axis: 1 }).add(ops.topK(x, 3).values),
  },
  "running sum": { image: [3, 2], draw: (x) => ops.cumSum(x, { axis: 1 }) },
  choice: { image: [3], draw: (x) => ops.where(ops.greater(x, x.mul(0)), x, x.mul(0.1)) },
};

/** The result and its gradients for images of which there may be any number. */
function drawn({ draw, image, weights = [] }: Case, batch: number | OpenDim): Graph {
  const x = input([batch, ...image]);
  const ws = weights.map((w) => input(w.shape));
  const y = draw(x, ...ws);
  const named = [x, ...ws].map((t, i): [string, Tensor] => [`x${i}`, t]);
  const loss = y.mul(y).sum();
  const grads = gradients(loss, [x, ...ws]).map((dx, i): [string, Tensor] => [`dx${i}`, dx]);
  return new Graph(named, [["y", y], ["loss", loss], ...grads]);
}

describe("drawn for any batch, run with 1 and 3", () => {
  for (const [name, one] of Object.entries(cases))
    test(name, async () => {
      const open = drawn(one, new OpenDim("N"));
      for (const batch of [1, 3]) {
        const feeds = Object.fromEntries(
          [randn([batch, ...one.image]), ...(one.weights ?? [])].map((x, i) => [`x${i}`, as(x, "float32")]),
        );
        const [got, wanted] = [await runGraph(open, feeds), await runGraph(drawn(one, batch), feeds)];
        for (const key of Object.keys(wanted))
          assert.ok(difference(got[key], wanted[key]) < 1e-5, `${key} of ${batch}`);
      }
    });
});

test("zeros of an open shape are zeros whatever the values are", async () => {
  const x = input([new OpenDim("N")]);
  const graph = new Graph([["x", x]], [["y", ops.zerosLike(x)]]);
  const { y } = await runGraph(graph, { x: nd([3], (i) => [Number.NaN, Infinity, 1][i], "float32") });
  assert.deepEqual([...(y.data as Float32Array)], [0, 0, 0]);
});

test("kernels of single places take places of any number", async () => {
  const x = input([1, 3, 2, new OpenDim("N")]);
  const [w, b] = [randn([4, 3, 1, 1]), randn([4])].map((x) => as(x, "float32"));
  const [weight, bias] = [w, b].map(({ data, shape }) => constant(data as Float32Array<ArrayBuffer>, shape, "float32"));
  const y = ops.conv(x, weight, bias);
  assert.deepEqual(y.shape, [1, 4, 2, new OpenDim("N")]);
  const fixed = input([1, 3, 2, 5]);
  const feeds = { x: as(randn([1, 3, 2, 5]), "float32") };
  const got = await runGraph(new Graph([["x", x]], [["y", y]]), feeds);
  const wanted = await runGraph(new Graph([["x", fixed]], [["y", ops.conv(fixed, weight, bias)]]), feeds);
  assert.ok(difference(got.y, wanted.y) < 1e-6);
  assert.throws(() => ops.conv(x, weight, bias, { padding: 1 }), /a spatial axis must have a known size, it is N/);
});
