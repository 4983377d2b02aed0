import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { gradients } from "../../src/autodiff/gradients.ts";
import { findModel } from "../../src/backbones/index.ts";
import { Graph } from "../../src/graph/graph.ts";
import { OpenDim } from "../../src/graph/shape.ts";
import { constant, constantOp, input, leaf, scalar, type Tensor } from "../../src/graph/tensor.ts";
import { crossEntropy } from "../../src/nn/losses.ts";
import { initialWeights, parametersOf, weightsOf } from "../../src/nn/module.ts";
import { trace } from "../../src/nn/trace.ts";
import * as ops from "../../src/ops/index.ts";
import { expand } from "../../src/ops/move.ts";
import { inTiles } from "../../src/passes/index.ts";
import { executionOrder } from "../../src/passes/memory.ts";
import { simplify } from "../../src/passes/simplify.ts";
import type { HostTensor } from "../../src/runtime/runtime.ts";
import { Classifier } from "../../src/tasks/classify.ts";
import { array, ints, randn } from "../support/arrays.ts";
import { as, difference, runGraph } from "../support/check.ts";

/** The ONNX operators of a graph, in order. */
const operators = (graph: Graph): string =>
  graph.nodes
    .filter(({ op }) => op !== leaf && op !== constantOp)
    .map(({ op }) => op.name)
    .join(" ");

const row = constant(Float32Array.of(1, 2, 3), [3], "float32");
const wide = (x: Tensor): Tensor => expand(x, { shape: [4, 2, 3] });

/** [what, x, drawing, operators that are left] */
const cases: readonly [string, number[], (x: Tensor) => Tensor, string][] = [
  ["reshapes in a row", [2, 6], (x) => x.reshape([3, 4]).reshape([12]).reshape([4, 3]), "Reshape"],
  ["reshapes that lead back", [2, 6], (x) => x.reshape([3, 4]).reshape([2, 6]).exp(), "Exp"],
  ["transposes in a row", [2, 3, 4], (x) => x.permute(1, 2, 0).permute(0, 2, 1), "Transpose"],
  ["transposes that lead back", [2, 3, 4], (x) => x.permute(1, 2, 0).permute(2, 0, 1).exp(), "Exp"],
  ["a transpose of axes of size 1", [2, 1, 4], (x) => x.permute(1, 0, 2), "Reshape"],
  ["a product with what was repeated", [2, 3], (x) => wide(x).mul(wide(x.exp())), "Exp Expand Mul"],
  ["a sum with what was repeated", [4, 2, 3], (x) => x.add(wide(x.mean([0]))), "ReduceMean Add"],
  ["× 1, + 0, ÷ 1, - 0", [2, 3], (x) => x.mul(1).add(0).div(1).sub(0).exp(), "Exp"],
  ["1 × and 0 +", [2, 3], (x) => scalar(0).add(scalar(1).mul(x)).exp(), "Exp"],
  ["× a one that repeats", [3], (x) => x.mul(constant(Float32Array.of(1), [1, 1], "float32")), "Mul"],
  [
    "× the smallest half, whose bits are those of 1",
    [3],
    (x) => ops.cast(ops.cast(x, { to: "float16" }).mul(2 ** -24), { to: "float32" }),
    "Cast Mul Cast",
  ],
  ["× a minus one that repeats", [3], (x) => x.mul(constant(Float32Array.of(-1), [1, 1], "float32")), "Mul"],
  ["× -1, twice", [3], (x) => x.mul(-1).neg().exp(), "Exp"],
  ["a sum with a negative", [3], (x) => x.exp().add(x.neg()), "Exp Sub"],
  ["a difference with a negative", [3], (x) => x.exp().sub(x.neg()), "Exp Add"],
  ["slices in a row", [9, 8], (x) => x.slice(0, 1, 9, 2).slice(0, 1, 4, 2).slice(1, 3, 5), "Slice"],
  ["rows around columns", [2, 3], (x) => x.pad(1, 1, 2, { value: 7 }).pad(0, 0, 1, { value: 7 }), "Pad"],
  ["another value around the first", [2, 3], (x) => x.pad(1, 1, 2).pad(0, 0, 1, { value: 7 }), "Pad Pad"],
  ["what is cut off first", [2, 3], (x) => x.pad(1, -1, 0).pad(1, 1, 0), "Pad Pad"],
  ["permutations that lead back", [4], (x) => x.flip(0).flip(0).exp(), "Exp"],
  ["permutations in a row", [3], (x) => ops.permuteAlong(ops.permuteAlong(x, [1, 2, 0], 0), [1, 2, 0], 0), "Gather"],
  ["sums over one", [2, 1, 3], (x) => x.sum([1]).max([0]), "Reshape ReduceMax"],
  ["the same twice", [3], (x) => x.exp().mul(2).add(x.exp().mul(2)), "Exp Mul Add"],
  ["the same split twice", [4], (x) => ops.split(x, 0, 2)[0].add(ops.split(x, 0, 2)[1]), "Split Add"],
  ["attributes that differ stay apart", [2, 2], (x) => x.sum([0]).add(x.sum([1])), "ReduceSum ReduceSum Add"],
  [
    "infinities stay apart",
    [2],
    (x) => ops.concat([x.pad(0, 0, 1, { value: Infinity }), x.pad(0, 0, 1, { value: -Infinity })], 0),
    "Pad Pad Concat",
  ],
  ["arithmetic of constants", [2, 3], (x) => x.mul(row.add(1).div(row).sub(row.mul(0.5)).neg()), "Mul"],
  [
    "constants reshaped and cast",
    [3],
    (x) => x.mul(ops.cast(ops.cast(row.reshape([1, 3]), { to: "float64" }), { to: "float32" })),
    "Mul",
  ],
  [
    "constants that broadcast",
    [2, 3],
    (x) => x.add(row.add(constant(Float32Array.of(5, 7), [2, 1], "float32"))),
    "Add",
  ],
  ["what the engine folds better stays", [3], (x) => x.mul(row.exp()), "Exp Mul"],
  ["a stopped gradient stays stopped", [3], (x) => ops.stopGradient(x).mul(1).add(x), "Identity Add"],
];

const graphOf = (x: Tensor, y: Tensor): Graph => new Graph([["x", x]], [["y", y]]);

describe("simplify", () => {
  for (const [what, shape, draw, left] of cases)
    test(what, async () => {
      const x = input(shape);
      const graph = graphOf(x, draw(x));
      const simple = simplify(graph);
      assert.equal(operators(simple), left);
      const feeds = { x: as(randn(shape), "float32") };
      const [before, after] = [await runGraph(graph, feeds), await runGraph(simple, feeds)];
      assert.equal(difference(after.y, before.y), 0);
      assert.equal(operators(simplify(simple)), left, "a second time changes nothing");
    });
});

test("what stays runs in the order in which it was drawn", () => {
  const [x, y] = [input([2]), input([2])];
  const sum = x.mul(1).exp().add(ops.tanh(y));
  const graph = simplify(
    new Graph(
      [
        ["x", x],
        ["y", y],
      ],
      [["sum", sum]],
    ),
  );
  assert.equal(
    executionOrder(graph)
      .map(({ op }) => op.name)
      .join(" "),
    "Tanh Exp Add",
  );
});

test("what no output needs is gone, inputs stay", () => {
  const [x, unused] = [input([2]), input([3])];
  x.exp();
  const graph = simplify(
    new Graph(
      [
        ["x", x],
        ["unused", unused],
      ],
      [["y", x.neg().neg()]],
    ),
  );
  assert.equal(operators(graph), "");
  assert.deepEqual([...graph.inputs.keys()], ["x", "unused"]);
  assert.equal(graph.outputs.get("y"), x);
});

test("an open batch is kept apart from known sizes", async () => {
  const x = input([new OpenDim("N"), 4]);
  const simple = simplify(
    graphOf(
      x,
      x
        .reshape([-1, 2, 2])
        .reshape([-1, 4])
        .mul(expand(row.slice(0, 0, 1), { shape: [1, 4] })),
    ),
  );
  assert.equal(operators(simple), "Slice Mul");
  const { y } = await runGraph(simple, { x: array([3, 4], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], "float32") });
  assert.deepEqual([...y.shape], [3, 4]);
});

test("axes of size 1 between two open ones are transposed, not reshaped", () => {
  const x = input([new OpenDim("N"), 1, new OpenDim("M")]);
  assert.equal(operators(simplify(graphOf(x, x.permute(1, 0, 2)))), "Transpose");
  assert.equal(operators(simplify(graphOf(x, x.sum([1])))), "ReduceSum");
});

test("loops are passed over, and what is around them is simplified", () => {
  const x = input([64, 256, 256]);
  const tiled = inTiles(graphOf(x, x.exp().mul(2).exp().sum([1, 2]).mul(1)), 1e5);
  assert.ok(operators(tiled).includes("Scan"));
  assert.equal(operators(simplify(tiled)), operators(tiled).replace(/ Mul$/, ""));
});

test("gradients of what was simplified are those of what was drawn", async () => {
  const x = input([2, 3]);
  const y = wide(x.reshape([3, 2]).reshape([2, 3]).mul(1))
    .mul(wide(x.exp()))
    .neg()
    .neg()
    .sum();
  const simple = simplify(graphOf(x, y));
  const feeds = { x: as(randn([2, 3]), "float32") };
  const [before] = gradients(y, [x]);
  const [after] = gradients(simple.outputs.get("y")!, [x]);
  const [wanted, got] = [await runGraph(graphOf(x, before), feeds), await runGraph(graphOf(x, after), feeds)];
  assert.ok(difference(got.y, wanted.y) < 1e-6);
});

test("the loss and every gradient of a small Swin are unchanged", async () => {
  const model = new Classifier((await findModel("swin_micro_32")).create(), 10);
  const [image, targets] = [input([2, 3, 32, 32]), input([2], "int32")];
  const params = parametersOf(model).map((w) => w.tensor);
  const { result } = trace(model, { training: true }, () => {
    const loss = crossEntropy(model.forward(image), targets);
    return [loss, ...gradients(loss, params)];
  });
  const weights = weightsOf(model);
  const graph = new Graph(
    [["image", image], ["targets", targets], ...weights.map((w): [string, Tensor] => [w.path, w.tensor])],
    result.map((y, i): [string, Tensor] => [`y${i}`, y]),
  );
  const values = initialWeights(model, 3);
  const feeds: Record<string, HostTensor> = {
    image: as(randn([2, 3, 32, 32]), "float32"),
    targets: ints([2], [3, 7]),
    ...Object.fromEntries(
      weights.map(({ path, tensor }) => [
        path,
        { dtype: "float32", shape: tensor.shape as number[], data: values.get(path)! },
      ]),
    ),
  };
  const simple = simplify(graph);
  assert.ok(
    simple.nodes.length < 0.9 * graph.nodes.length,
    `${graph.nodes.length} nodes became ${simple.nodes.length}`,
  );
  const [before, after] = [await runGraph(graph, feeds), await runGraph(simple, feeds)];
  for (const name of Object.keys(before)) assert.ok(difference(after[name], before[name]) < 1e-5, name);
});
