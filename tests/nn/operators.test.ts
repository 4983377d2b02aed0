import assert from "node:assert/strict";
import { test } from "node:test";
import { Graph } from "../../src/graph/graph.ts";
import { OpenDim, type Shape, staticSize } from "../../src/graph/shape.ts";
import { input, type Tensor } from "../../src/graph/tensor.ts";
import { BlurPool2d } from "../../src/nn/blur-pool.ts";
import { DynamicConv2d } from "../../src/nn/dynamic-conv.ts";
import { DynamicRelu } from "../../src/nn/dynamic-relu.ts";
import { Involution } from "../../src/nn/involution.ts";
import { BatchNorm2d, Dropout, DropPath } from "../../src/nn/layers.ts";
import { type Module, weightsOf } from "../../src/nn/module.ts";
import { Rng } from "../../src/nn/rng.ts";
import { SqueezeExcite } from "../../src/nn/squeeze-excite.ts";
import { trace } from "../../src/nn/trace.ts";
import type { HostTensor } from "../../src/runtime/runtime.ts";
import { fingerprint, goldenWeight, uniform } from "../golden-check.ts";
import { at, atOr, nd, range, sumOver } from "../support/arrays.ts";
import { difference, runGraph } from "../support/check.ts";

type Layer = Module & { forward(x: Tensor): Tensor };

const float32 = (shape: readonly number[], data: Float32Array<ArrayBuffer>): HostTensor => ({
  dtype: "float32",
  shape,
  data,
});
const pixels = (shape: readonly number[]): HostTensor =>
  float32(shape, Float32Array.from(uniform("input", staticSize(shape))));
const weight = (path: string, shape: readonly number[]): HostTensor => float32(shape, goldenWeight(path, shape));

/** What a layer makes of `x`, its weights made from their names. */
async function run(layer: Layer, x: HostTensor, drawnFor: Shape = x.shape): Promise<HostTensor> {
  const image = input(drawnFor);
  const y = trace(layer, {}, () => layer.forward(image)).result;
  const named = weightsOf(layer).map((w): [string, Tensor] => [w.path, w.tensor]);
  const feeds = Object.fromEntries(named.map(([path, { shape }]) => [path, weight(path, shape as number[])]));
  return (await runGraph(new Graph([["image", image], ...named], [["y", y]]), { ...feeds, image: x })).y;
}

const near = (got: HostTensor, wanted: HostTensor, tolerance = 1e-6): void => {
  assert.deepEqual(got.shape, wanted.shape);
  assert.ok(difference(got, wanted) < tolerance, `${difference(got, wanted)} away`);
};

/** timm's answer in float64: its shape, norm and projection. */
async function agrees(layer: Layer, shape: readonly number[], wanted: readonly number[], theirs: readonly number[]) {
  const y = await run(layer, pixels(shape));
  assert.deepEqual(y.shape, wanted);
  const ours = fingerprint(y.data as Float32Array, "y");
  for (const k of [0, 1])
    assert.ok(Math.abs(ours[k] - theirs[k]) < 1e-6 * theirs[0], `${ours[k]}, theirs ${theirs[k]}`);
}

test("batch norm follows the batches that it trains on, and their unbiased variance", async () => {
  const norm = new BatchNorm2d(2, { momentum: 0.25 });
  const x = pixels([3, 2, 2, 1]);
  const image = input(x.shape);
  const { updates } = trace(norm, { training: true }, () => norm.forward(image));
  const before = [norm.runningMean, norm.runningVar];
  const graph = new Graph(
    [["image", image], ...before.map((t, i): [string, Tensor] => [`${i}`, t])],
    before.map((t, i): [string, Tensor] => [`${i}'`, updates.get(t)!]),
  );
  const [means, variances] = [Float32Array.of(1, -2), Float32Array.of(3, 0.5)];
  const got = await runGraph(graph, { image: x, 0: float32([2], means), 1: float32([2], variances) });
  const seen = [0, 1].map((c) => Array.from(x.data as Float32Array).filter((_, i) => Math.floor(i / 2) % 2 === c));
  const mean = seen.map((values) => values.reduce((a, b) => a + b) / 6);
  const variance = seen.map((values, c) => values.reduce((sum, v) => sum + (v - mean[c]) ** 2, 0) / 5);
  const followed = (old: Float32Array, now: number[]) =>
    float32(
      [2],
      old.map((v, c) => 0.75 * v + 0.25 * now[c]),
    );
  near(got["0'"], followed(means, mean));
  near(got["1'"], followed(variances, variance));
});

test("what is dropped while training is made up for: whole pictures, or single values", async () => {
  for (const layer of [new DropPath(0.25), new Dropout(0.25)]) {
    const [image, seed] = [input([2000, 4]), input([], "uint32")];
    const y = trace(layer, { training: true, rng: new Rng(seed) }, () => layer.forward(image)).result;
    const ones = float32([2000, 4], new Float32Array(8000).fill(3));
    const feeds = { image: ones, seed: { dtype: "uint32", shape: [], data: Uint32Array.of(7) } } as const;
    const values = Array.from(
      (await runGraph(new Graph(Object.entries({ image, seed }), [["y", y]]), feeds)).y.data,
      Number,
    );
    assert.ok(values.every((v) => v === 0 || Math.abs(v - 4) < 1e-6));
    assert.ok(Math.abs(values.filter((v) => v > 0).length / 8000 - 0.75) < 0.03);
    const alike = values.every((v, i) => v === values[i - (i % 4)]);
    assert.equal(alike, layer instanceof DropPath);
  }
});

test("blur pool is timm's, at odd and even sizes", async () => {
  await agrees(new BlurPool2d(), [2, 4, 7, 10], [2, 4, 4, 5], [3.067799030538817, -2.88406098062387]);
  await agrees(new BlurPool2d({ size: 5 }), [1, 3, 9, 8], [1, 3, 5, 4], [1.5860615438346717, 0.7509188080860226]);
  await agrees(new BlurPool2d({ size: 4 }), [1, 2, 8, 6], [1, 2, 5, 4], [1.5510984236276306, 0.6832977506832344]);
});

test("squeeze-and-excitation is timm's", async () => {
  const layer = new SqueezeExcite(8, 3, { names: ["conv_reduce", "conv_expand"] });
  await agrees(layer, [2, 8, 5, 6], [2, 8, 5, 6], [6.655816323309724, -7.984934473326675]);
});

test("dynamic ReLU with one function for all channels (variant A)", async () => {
  const [n, c, h, w, hidden] = [2, 8, 3, 4, 2];
  const layer = new DynamicRelu(c, { shared: true });
  const x = pixels([n, c, h, w]);
  const [w1, b1, w2, b2] = [
    weight("fc1.weight", [hidden, c]),
    weight("fc1.bias", [hidden]),
    weight("fc2.weight", [4, hidden]),
    weight("fc2.bias", [4]),
  ];
  const lines = range(n).map((i) => {
    const means = range(c).map((k) => sumOver([h, w], (y, z) => at(x, i, k, y, z)) / (h * w));
    const inner = range(hidden).map((j) => Math.max(0, at(b1, j) + sumOver([c], (k) => at(w1, j, k) * means[k])));
    const theta = range(4).map((j) => at(b2, j) + sumOver([hidden], (k) => at(w2, j, k) * inner[k]));
    const [a1, a2, c1, c2] = theta.map((t) => 2 / (1 + Math.exp(-t)) - 1);
    return { a: [1 + a1, a2], b: [0.5 * c1, 0.5 * c2] };
  });
  const naive = nd(x.shape, (i, ...place) => {
    const { a, b } = lines[i];
    return Math.max(...[0, 1].map((k) => a[k] * at(x, i, ...place) + b[k]));
  });
  near(await run(layer, x), naive);
});

test("dynamic convolution of a batch whose size is open", async () => {
  const layer = new DynamicConv2d(4, 6, { kernel: 3, stride: 2, padding: 1, kernels: 3, temperature: 2 });
  const x = pixels([3, 4, 7, 6]);
  near(await run(layer, x, [new OpenDim("N"), 4, 7, 6]), await run(layer, x));
  assert.throws(() => new DynamicConv2d(4, 6, { kernel: 3, temperature: 0 }), /above 0/);
});

for (const stride of [1, 2])
  test(`involution, window by window, stride ${stride}`, async () => {
    const [n, c, h, w, k, width] = [2, 8, 6, 8, 3, 4];
    const layer = new Involution(c, { kernel: k, stride, groupWidth: width });
    const x = pixels([n, c, h, w]);
    const reduced = c / 4;
    const [w1, w2, b2] = [
      weight("conv1.conv.weight", [reduced, c, 1, 1]),
      weight("conv2.conv.weight", [(k * k * c) / width, reduced, 1, 1]),
      weight("conv2.conv.bias", [(k * k * c) / width]),
    ];
    const [scale, shift, mean, variance] = ["weight", "bias", "running_mean", "running_var"].map((name) =>
      weight(`conv1.bn.${name}`, [reduced]),
    );
    const hidden = nd([n, reduced, h / stride, w / stride], (i, r, y, z) => {
      const seen = (ch: number): number =>
        sumOver([stride, stride], (a, b) => at(x, i, ch, y * stride + a, z * stride + b)) / stride ** 2;
      const v = sumOver([c], (ch) => at(w1, r, ch, 0, 0) * seen(ch));
      return Math.max(0, ((v - at(mean, r)) / Math.sqrt(at(variance, r) + 1e-5)) * at(scale, r) + at(shift, r));
    });
    const naive = nd([n, c, h / stride, w / stride], (i, ch, y, z) => {
      const group = Math.floor(ch / width);
      return sumOver([k, k], (a, b) => {
        const out = group * k * k + a * k + b;
        const kernel = at(b2, out) + sumOver([reduced], (r) => at(w2, out, r, 0, 0) * at(hidden, i, r, y, z));
        return kernel * atOr(0, x, i, ch, y * stride + a - 1, z * stride + b - 1);
      });
    });
    near(await run(layer, x), naive, 1e-5);
  });

test("an involution whose channels do not divide says so", () => {
  assert.throws(() => new Involution(24, { kernel: 3 }), /24 channels do not divide into groups of 16/);
  assert.throws(() => new Involution(32, { kernel: 4 }), /its side must be odd/);
});
