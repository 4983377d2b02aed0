import assert from "node:assert/strict";
import { after, test } from "node:test";
import { findModel } from "../../src/backbones/index.ts";
import type { DType } from "../../src/graph/dtype.ts";
import { Graph } from "../../src/graph/graph.ts";
import { input, type Tensor } from "../../src/graph/tensor.ts";
import { bindWeights, initialWeights, trace, weightsOf } from "../../src/nn/index.ts";
import { softmax } from "../../src/ops/index.ts";
import { fuse, type Target } from "../../src/passes/index.ts";
import { openNode } from "../../src/runtime/node.ts";
import type { HostTensor } from "../../src/runtime/runtime.ts";
import { Classifier } from "../../src/tasks/classify.ts";
import { fusedGraph, inferenceGraph } from "../../src/train/checkpoint/model.ts";
import { missingWebGpu } from "../runtime/software-driver.ts";

const missing = await missingWebGpu();
const runtime = await openNode();
after(() => runtime.close());

const count = (graph: Graph, name: string): number => graph.nodes.filter((node) => node.op.name === name).length;

/** A model for two images, its weights bound and none of them plain, so that nothing fuses by accident. */
async function bound(name: string): Promise<Graph> {
  const entry = await findModel(name);
  const { imageSize } = entry.preprocessing;
  const model = new Classifier(entry.create(), 10);
  const image = input([2, 3, imageSize, imageSize]);
  const { result } = trace(model, {}, () => model.forward(image));
  const weights = weightsOf(model).map((w): [string, Tensor] => [w.path, w.tensor]);
  const values = initialWeights(model, 1);
  for (const [path, data] of values)
    if (data.every((v) => v === data[0]))
      values.set(
        path,
        data.map((v, i) => v + 0.1 * (1 + Math.sin(i + path.length))),
      );
  return bindWeights(new Graph([["image", image], ...weights], [["logits", result]]), model, values);
}

/** How far the logits of two graphs are apart, relative to their length. */
async function distance(a: Graph, b: Graph, shape?: number[]): Promise<number> {
  const [expected, found] = [await logits(a, shape), await logits(b, shape)];
  return Math.hypot(...expected.map((x, i) => x - found[i])) / Math.hypot(...expected);
}

async function logits(
  graph: Graph,
  shape = [...graph.inputs.values()][0].shape as number[],
  on = runtime,
): Promise<Float32Array> {
  const program = await on.compile(graph, { strict: true });
  const size = shape.reduce((a, b) => a * b);
  const data = Float32Array.from({ length: size }, (_, i) => Math.sin(i * 0.37) + 0.3 * Math.cos(i * 0.011));
  const { logits } = await program.run({ image: { dtype: "float32", shape, data } });
  await program.release();
  return (logits as HostTensor).data as Float32Array;
}

test("a trained model is fused, for any number of pictures, and says the same", async () => {
  const { create } = await findModel("resnet20_cifar");
  const model = new Classifier(create(), 10);
  const values = initialWeights(model, 2);
  const plain = bindWeights(inferenceGraph(model, 32), model, values);
  for (const target of ["webgpu", "cpu", "onnx"] as const) {
    const fused = fusedGraph(model, 32, values, target);
    assert.equal(count(plain, "BatchNormalization"), 19);
    assert.equal(count(fused, "BatchNormalization"), 0);
    const off = await distance(plain, fused, [3, 3, 32, 32]);
    assert.ok(off < 1e-5, `off by ${off}`);
  }
  const { create: createViT } = await findModel("vit_tiny_patch16_224");
  const vit = new Classifier(createViT({ imageSize: 64 }), 10);
  const weights = initialWeights(vit, 2);
  const attentive = fusedGraph(vit, 64, weights, "cpu");
  assert.equal(count(attentive, "MultiHeadAttention"), 12);
  assert.equal(count(attentive, "BiasGelu"), 0);
  assert.ok((await distance(bindWeights(inferenceGraph(vit, 64), vit, weights), attentive, [2, 3, 64, 64])) < 1e-5);
  const fused = fusedGraph(vit, 64, weights, "webgpu");
  assert.equal(count(fused, "MultiHeadAttention"), 12);
  assert.equal(count(fused, "SkipLayerNormalization"), 24);
  assert.equal(count(fused, "BiasGelu"), 12);
  assert.ok((await distance(bindWeights(inferenceGraph(vit, 64), vit, weights), fused, [2, 3, 64, 64])) < 1e-5);
});

test("attention over keys that heads share, or in double precision, is no single operation", async () => {
  const attended = (shared: number, dtype: DType): Graph => {
    const [q, k, v] = [4, shared, shared].map((heads) => input([2, 5, heads * 8], dtype));
    const heads = (x: Tensor, ...order: number[]): Tensor => x.reshape([2, 5, -1, 8]).permute(...order);
    const scores = heads(q, 0, 2, 1, 3).matmul(heads(k, 0, 2, 3, 1));
    const y = softmax(scores)
      .matmul(heads(v, 0, 2, 1, 3))
      .permute(0, 2, 1, 3)
      .reshape([2, 5, 32]);
    return fuse(new Graph(Object.entries({ q, k, v }), [["y", y]]), { target: "cpu" });
  };
  assert.equal(count(attended(4, "float32"), "MultiHeadAttention"), 1);
  assert.equal(count(attended(1, "float32"), "MultiHeadAttention"), 0);
  assert.equal(count(attended(4, "float64"), "MultiHeadAttention"), 0);
});

test("what is fused for WebGPU runs there, and nothing of it falls back", { skip: missing }, async () => {
  const { create } = await findModel("vit_tiny_patch16_224");
  const model = new Classifier(create({ imageSize: 32 }), 10);
  const values = initialWeights(model, 2);
  const [plain, fused] = [
    bindWeights(inferenceGraph(model, 32), model, values),
    fusedGraph(model, 32, values, "webgpu"),
  ];
  const gpu = await openNode({ device: "webgpu" });
  const [wanted, got] = [await logits(plain, [2, 3, 32, 32]), await logits(fused, [2, 3, 32, 32], gpu)];
  await gpu.close();
  assert.ok(Math.hypot(...wanted.map((x, i) => x - got[i])) < 1e-4 * Math.hypot(...wanted));
});

/** What must be there, and what must be gone, after fusing for a target. */
const cases: [model: string, target: Target, op: string, gone: string][] = [
  ["resnet20_cifar", "webgpu", "Conv", "BatchNormalization"],
  ["resnet20_cifar", "onnx", "Conv", "BatchNormalization"],
  ["vit_tiny_patch16_224", "webgpu", "MultiHeadAttention", "Softmax"],
  ["vit_tiny_patch16_224", "webgpu", "SkipLayerNormalization", ""],
  ["vit_tiny_patch16_224", "onnx", "Softmax", "MultiHeadAttention"],
  ["swin_micro_32", "webgpu", "Gemm", ""],
  ["cswin_micro_32", "webgpu", "Gemm", ""],
];
for (const [model, target, op, gone] of cases)
  test(`fuse: ${model} for ${target}: ${op}${gone && `, no ${gone}`}`, async () => {
    const plain = await bound(model);
    const fused = fuse(plain, { target });
    assert.ok(count(fused, op) > 0, `no ${op}`);
    if (gone) assert.equal(count(fused, gone), 0);
    const off = await distance(plain, fused);
    assert.ok(off < 1e-5, `off by ${off}`);
  });
