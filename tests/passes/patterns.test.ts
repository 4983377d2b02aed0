import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Graph } from "../../src/graph/graph.ts";
import { constant, constantOp, input, leaf, scalar, type Tensor } from "../../src/graph/tensor.ts";
import { conv } from "../../src/ops/conv.ts";
import { gelu, geluTanh } from "../../src/ops/elementwise.ts";
import { linear } from "../../src/ops/linalg.ts";
import { batchNorm, layerNorm, softmax } from "../../src/ops/norm.ts";
import { fuse, targetOf } from "../../src/passes/fuse.ts";
import { executionOrder } from "../../src/passes/memory.ts";
import { product, randn } from "../support/arrays.ts";
import { as, difference, runGraph } from "../support/check.ts";

const sorted = (names: string): string => names.split(" ").sort().join(" ");
/** The ONNX operators of a graph, in the order of the alphabet. */
const operators = (graph: Graph): string =>
  graph.nodes
    .filter(({ op }) => op !== leaf && op !== constantOp)
    .map(({ op }) => op.name)
    .sort()
    .join(" ");

/** Weights: numbers around 1, so that a variance is positive and nothing is plain. */
const weights = (...shape: number[]): Tensor => {
  const data = Float32Array.from({ length: product(shape) }, (_, i) => 1 + 0.6 * Math.sin(2.3 * i + shape.length));
  return constant(data, shape, "float32");
};
const normed = (x: Tensor, channels: number): Tensor => {
  const [scale, bias, mean, variance] = [3, 5, 7, 11].map((k) => weights(channels).mul(k / 5));
  return batchNorm(x, fixed(scale), fixed(bias), fixed(mean), fixed(variance), { epsilon: 1e-3 });
};
/** What is arithmetic of constants, as a constant. */
const fixed = (x: Tensor): Tensor => fuse(new Graph([], [["x", x]]), { target: "onnx" }).outputs.get("x")!;

const heads = (x: Tensor, n: number): Tensor => x.reshape([2, -1, n, 4]).permute(0, 2, 1, 3);
/** Attention of two heads over 5 and `keys` tokens, softmax over `axis`. */
const attend = (x: Tensor, { keys = 5, axis = -1, twice = false } = {}): Tensor => {
  const [q, k, v] = [x.matmul(weights(8, 8).mul(0.1)), x.slice(1, 0, keys).matmul(weights(8, 8)), x.slice(1, 0, keys)];
  const p = softmax(heads(q, 2).matmul(heads(k, 2).mT), { axis });
  const y = p.matmul(heads(v, 2)).permute(0, 2, 1, 3).reshape([2, 5, 8]);
  return twice ? y.add(p.sum()) : y;
};

/** [what, shape of x, drawing, operators after fusing for a processor, and for any reader of ONNX where they differ] */
const cases: readonly [string, number[], (x: Tensor) => Tensor, string, string?][] = [
  ["bias into weights: linear", [4, 8], (x) => linear(x, weights(6, 8)).add(weights(6)), "Gemm"],
  [
    "bias into weights: behind a reshape",
    [2, 4, 8],
    (x) => linear(x, weights(6, 8)).add(weights(6)),
    "Reshape Gemm Reshape",
  ],
  ["bias into weights: convolution", [2, 3, 5, 5], (x) => conv(x, weights(4, 3, 3, 3)).add(weights(4, 1, 1)), "Conv"],
  ["scale into weights: linear", [4, 8], (x) => linear(x, weights(6, 8), weights(6)).mul(weights(6)), "Gemm"],
  ["scale into weights: a product", [2, 4, 8], (x) => x.matmul(weights(8, 6)).div(weights(6)), "MatMul"],
  ["scale into weights: convolution", [2, 3, 5, 5], (x) => conv(x, weights(4, 3, 3, 3)).mul(weights(4, 1, 1)), "Conv"],
  ["batch norm into a convolution", [2, 3, 5, 5], (x) => normed(conv(x, weights(4, 3, 3, 3)), 4), "Conv"],
  [
    "batch norm into a depthwise one",
    [2, 4, 5, 5],
    (x) => normed(conv(x, weights(4, 1, 3, 3), weights(4), { groups: 4 }), 4),
    "Conv",
  ],
  ["batch norm into a linear layer", [4, 8], (x) => normed(linear(x, weights(6, 8)), 6), "Gemm"],
  [
    "bias and activation",
    [2, 4, 8],
    (x) => gelu(linear(x, weights(6, 8), weights(6))),
    "Reshape Gemm Reshape BiasGelu",
    "Reshape Gemm Reshape Gelu",
  ],
  [
    "a bias does not join GELU by tanh",
    [2, 4, 8],
    (x) => geluTanh(linear(x, weights(6, 8), weights(6))),
    "Reshape Gemm Reshape Gelu",
    "Reshape Gemm Reshape Gelu",
  ],
  [
    "layer norm with its skip",
    [2, 4, 8],
    (x) => layerNorm(x.add(linear(x.exp(), weights(8, 8), weights(8))), weights(8), weights(8), 1e-5),
    "Exp Reshape Gemm Reshape SkipLayerNormalization",
    "Exp Reshape Gemm Reshape Add LayerNormalization",
  ],
  [
    "layer norm with its skip, which goes on",
    [2, 2, 2, 8],
    (x) => {
      const sum = x.exp().add(x);
      return sum.add(layerNorm(sum, weights(8), weights(8), 1e-5));
    },
    "Exp Reshape Reshape SkipLayerNormalization Reshape Reshape Add",
    "Exp Add LayerNormalization Add",
  ],
  [
    "attention",
    [2, 5, 8],
    (x) => attend(x),
    "MatMul MatMul MultiHeadAttention Reshape Reshape",
    "MatMul Reshape Transpose MatMul Reshape Transpose Transpose MatMul Softmax Reshape Transpose MatMul Transpose Reshape",
  ],
  [
    "attention to fewer tokens",
    [2, 5, 8],
    (x) => attend(x, { keys: 3 }),
    "MatMul Slice MatMul Slice MultiHeadAttention Reshape Reshape",
    "Slice MatMul Reshape Transpose MatMul Reshape Transpose Transpose MatMul Softmax Slice Reshape Transpose MatMul Transpose Reshape",
  ],
];

const graphOf = (shape: number[], draw: (x: Tensor) => Tensor): Graph => {
  const x = input(shape);
  return new Graph([["x", x]], [["y", draw(x)]]);
};

async function checkEqual(shape: number[], plain: Graph, fused: Graph): Promise<void> {
  const feeds = { x: as(randn(shape), "float32") };
  const [before, after] = [await runGraph(plain, feeds), await runGraph(fused, feeds)];
  assert.ok(difference(after.y, before.y) < 1e-5, `off by ${difference(after.y, before.y)}`);
}

describe("what is fused, and gives the same", () => {
  for (const [what, shape, draw, engine, standard] of cases)
    test(what, async () => {
      const plain = graphOf(shape, draw);
      const fused = fuse(plain, { target: "webgpu" });
      assert.equal(operators(fused), sorted(engine));
      await checkEqual(shape, plain, fused);
      const onnx = fuse(plain, { target: "onnx" });
      assert.equal(operators(onnx), sorted(standard ?? engine));
      assert.ok(onnx.nodes.every(({ op }) => op.domain === ""));
      await checkEqual(shape, plain, onnx);
    });
});

/** [what, shape, drawing]: near a pattern, and not to be taken for it. */
const others: readonly [string, number[], (x: Tensor) => Tensor][] = [
  ["a bias that differs from row to row", [4, 8], (x) => linear(x, weights(6, 8)).add(weights(4, 6))],
  ["a bias of a product that is read twice", [4, 8], (x) => twice(linear(x, weights(6, 8)), (y) => y.add(weights(6)))],
  ["a bias that makes it larger", [1, 8], (x) => linear(x, weights(1, 8)).add(weights(6))],
  ["a scale along the map", [2, 3, 5, 5], (x) => conv(x, weights(5, 3, 3, 3)).mul(weights(3))],
  ["a constant divided by a product", [4, 8], (x) => weights(6).div(linear(x, weights(6, 8)).square().add(1))],
  ["a number divided by a convolution", [2, 3, 5, 5], (x) => scalar(3).div(conv(x, weights(4, 3, 3, 3)))],
  ["numbers divided by a product", [4, 8], (x) => weights(6).div(linear(x, weights(6, 8)))],
  ["weights that are fed", [8, 8], (x) => linear(x, x).mul(weights(8))],
  ["batch norm over tokens", [2, 6, 8], (x) => normed(x.matmul(weights(8, 8)), 6)],
  ["batch norm of a product without a bias", [4, 8], (x) => normed(x.matmul(weights(8, 6)), 6)],
  ["batch norm of what is read twice", [2, 3, 5, 5], (x) => twice(conv(x, weights(4, 3, 3, 3)), (y) => normed(y, 4))],
  ["gelu of what has no bias", [4, 8], (x) => gelu(linear(x, weights(6, 8)))],
  ["gelu of a bias that is read twice", [4, 8], (x) => twice(linear(x, weights(6, 8), weights(6)), gelu)],
  ["a sum that repeats", [2, 4, 8], (x) => layerNorm(x.add(x.slice(1, 0, 1)), weights(8), weights(8), 1e-5)],
  ["a norm over two axes", [2, 4, 8], (x) => layerNorm(x.add(x.exp()), weights(4, 8), weights(4, 8), 1e-5)],
  ["a norm of rows", [4, 8], (x) => layerNorm(x.add(x.exp()), weights(8), weights(8), 1e-5)],
  ["softmax over the queries", [2, 5, 8], (x) => attend(x, { axis: -2 })],
  ["probabilities that are read twice", [2, 5, 8], (x) => attend(x, { twice: true })],
];
const twice = (y: Tensor, then: (y: Tensor) => Tensor): Tensor => then(y).sum().add(y.sum());

describe("what is near a pattern and stays", () => {
  for (const [what, shape, draw] of others)
    test(what, async () => {
      const plain = graphOf(shape, draw);
      const fused = fuse(plain, { target: "webgpu" });
      const own = fused.nodes.filter(({ op }) => op.domain !== "");
      assert.deepEqual(own, []);
      const [before, after] = [plain, fused].map((graph) => operators(graph).split(" ").length);
      // Constants are folded, and nothing else is.
      assert.equal(after, before - plain.nodes.filter((node) => isArithmeticOfConstants(node.inputs)).length);
      await checkEqual(shape, plain, fused);
    });
});

const isArithmeticOfConstants = (inputs: readonly (Tensor | undefined)[]): boolean =>
  inputs.length > 0 && inputs.every((x) => x?.node.op === constantOp);

test("what is not fused runs in the order in which it was drawn", () => {
  const [x, y] = [input([4, 8]), input([4, 6])];
  const sum = x.matmul(weights(8, 6)).mul(2).add(gelu(y));
  const graph = new Graph(
    [
      ["x", x],
      ["y", y],
    ],
    [["sum", sum]],
  );
  const names = executionOrder(fuse(graph, { target: "onnx" })).map(({ op }) => op.name);
  assert.equal(names.join(" "), "Gelu MatMul Add");
});

test("a device has its target", () => {
  assert.deepEqual(["cpu", "wasm", "webgpu", "cuda"].map(targetOf), ["cpu", "onnx", "webgpu", "onnx"]);
});
