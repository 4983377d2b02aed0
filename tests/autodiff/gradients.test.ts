import assert from "node:assert/strict";
import { test } from "node:test";
import { gradients } from "../../src/autodiff/gradients.ts";
import { OrielError } from "../../src/base/errors.ts";
import { Graph } from "../../src/graph/graph.ts";
import { constant, input, scalar, type Tensor, withScope } from "../../src/graph/tensor.ts";
import { defineOp } from "../../src/ops/define.ts";
import * as ops from "../../src/ops/index.ts";
import { array, numbers, randn } from "../support/arrays.ts";
import { checkGrad, difference, evaluate } from "../support/check.ts";

const x3 = array([3], [1, 2, 3]);
const gradientOf = async (draw: (x: Tensor) => Tensor, x = x3): Promise<number[]> =>
  numbers(await evaluate((x) => gradients(draw(x), [x])[0], x));

test("a tensor that is read several times gathers every gradient", async () => {
  assert.deepEqual(await gradientOf((x) => x.mul(x).add(x).sum()), [3, 5, 7]);
});

test("gradients of what lies between, and of the loss itself", async () => {
  const both = await evaluate((x) => {
    const y = x.mul(x);
    const loss = y.mul(3).sum();
    return ops.concat(
      gradients(loss, [y, x, loss]).map((g) => g.reshape([-1])),
      0,
    );
  }, x3);
  assert.deepEqual(numbers(both), [3, 3, 3, 6, 12, 18, 1]);
});

test("one output of several, and two of several", async () => {
  assert.deepEqual(await gradientOf((x) => ops.split(x, 0, 3)[1].mul(5).sum()), [0, 5, 0]);
  assert.deepEqual(await gradientOf((x) => ops.split(x, 0, [1, 2])[1].square().sum()), [0, 4, 6]);
});

test("a seed weighs the elements of a result; a smaller one is repeated", async () => {
  const seeded = (seed: Tensor) =>
    evaluate((x) => gradients(x.square(), [x], { seed: ops.cast(seed, { to: "float64" }) })[0], x3);
  assert.deepEqual(numbers(await seeded(scalar(10))), [20, 40, 60]);
  for (const seed of [input([2, 3]), input([4]), input([3], "float64")])
    assert.throws(
      () => gradients(input([3]).exp(), [], { seed }),
      /^ShapeError: a seed is a gradient of the loss, float32 \[3\], this/,
    );
});

test("gradients are drawn while a model is drawn: a step of gradient descent, differentiated", () =>
  checkGrad(
    (w, x) => {
      const [dw] = gradients(x.matmul(w).square().mean(), [w]);
      return x
        .matmul(w.sub(dw.mul(0.1)))
        .square()
        .sum([1]);
    },
    [randn([3, 2]), randn([4, 3])],
  ));

test("a stopped gradient stops, and other ways stay open", async () => {
  assert.deepEqual(await gradientOf((x) => ops.stopGradient(x).mul(x).sum()), [1, 2, 3]);
});

test("straight through: rounded forwards, as if it were not backwards", async () => {
  const straight = ops.withGradient(ops.round, (dy) => [dy]);
  const x = array([3], [0.4, 0.6, -1.2]);
  assert.deepEqual(numbers(await evaluate(straight, x)), [0, 1, -1]);
  assert.deepEqual(await gradientOf((x) => straight(x).mul(3).sum(), x), [3, 3, 3]);
});

test("a surrogate gradient may read what the function reads, also after its inputs were replaced", async () => {
  const spike = ops.withGradient(
    (v) => ops.cast(ops.greater(v, v.mul(0)), { to: v.dtype }),
    (dy, v) => [dy.mul(v.mul(v).neg().exp())],
  );
  const v = input([3], "float64");
  const graph = new Graph([["v", v]], [["s", spike(v)]]);
  // `bind` redraws the graph on another tensor: the rule must follow.
  const got = await evaluate((x) => {
    const bound = graph.bind(new Map([["v", x.mul(2)]])).outputs.get("s") as Tensor;
    return gradients(bound.sum(), [x])[0];
  }, x3);
  const wanted = array(
    [3],
    [1, 2, 3].map((x) => 2 * Math.exp(-((2 * x) ** 2))),
  );
  assert.ok(difference(got, wanted) < 1e-12);
});

test("a gradient that a rule withholds is withheld", async () => {
  const left = ops.withGradient(
    (a, b) => a.mul(b),
    (dy, _a, b) => [dy.mul(b), null],
  );
  assert.deepEqual(await gradientOf((x) => left(x, x).sum()), [1, 2, 3]);
});

test("a rule answers for each tensor", () => {
  const x = input([3]);
  const draw = (a: Tensor, b: Tensor): Tensor => a.mul(b);
  for (const [answer, told] of [
    [(dy: Tensor) => [dy], "1 gradient"],
    [(dy: Tensor) => [dy, dy, dy], "3 gradients"],
    [(dy: Tensor) => dy as unknown as Tensor[], "no list"],
  ] as const)
    assert.throws(() => gradients(ops.withGradient(draw, answer)(x, x).sum(), [x]), {
      code: "autodiff",
      message: new RegExp(`answers with ${told} for 2 tensors\n.*null where none passes`),
    });
});

test("what the loss does not depend on is an error, or zeros", async () => {
  const [x, stranger] = [input([2]), withScope("head.fc", () => input([2, 5]))];
  assert.throws(() => gradients(x.sum(), [x, stranger]), {
    code: "autodiff",
    message: `\
the loss does not depend on 1 of 2 tensors
  float32 [2, 5] drawn at head.fc
  help: leave them out, or ask for { unreached: "zeros" }`,
  });
  const zeros = await evaluate((x) => gradients(scalar(1, "float64").mul(2), [x], { unreached: "zeros" })[0], x3);
  assert.deepEqual(numbers(zeros), [0, 0, 0]);
});

test("a loss is one number", () => {
  const x = input([2, 3]);
  assert.throws(() => gradients(x, [x]), /a loss has one element, this is float32 \[2, 3\]/);
  assert.equal(gradients(x.slice(0, 0, 1).slice(1, 0, 1), [x])[0].rank, 2);
});

const blackBox = defineOp({
  onnx: "Hardmax",
  inputs: ["x"],
  infer: ({ x }) => ({ dtype: x.dtype, shape: x.shape }),
  vjp: "none",
});

test("an operation without a gradient says so, where one would have to pass", () => {
  const x = input([2]);
  assert.throws(
    () => gradients(withScope("head", () => blackBox(x)).sum(), [x]),
    (error) =>
      error instanceof OrielError &&
      /^Hardmax has no gradient, but the loss depends on it \(at head\)/.test(error.message),
  );
  const y = blackBox(x);
  assert.equal(gradients(y.sum(), [y])[0].rank, 1, "what it made can be asked for");
  assert.equal(
    gradients(
      blackBox(input([2]))
        .mul(x)
        .sum(),
      [x],
    )[0].rank,
    1,
    "it may stand beside the way",
  );
});

test("gradients are drawn under the path of what they differentiate", () => {
  const x = input([2]);
  const [dx] = gradients(withScope("blocks.0", () => x.exp()).sum(), [x]);
  assert.equal(dx.node.scope, "grad:blocks.0");
});

test("rows of one place are summed without losing any, however many threads", async () => {
  const [places, count] = [5, 40_000];
  const index = Int32Array.from({ length: count }, (_, i) => (i * i) % places);
  const rows = (x: Tensor, indices: Tensor): Tensor => ops.gather(x, indices, { axis: 0 }).sum();
  const table = array([places, 2], new Array(2 * places).fill(0));
  const each = Array.from({ length: places }, (_, place) => index.filter((i) => i === place).length);
  const wanted = each.flatMap((n) => [n, n]);
  assert.deepEqual(await gradientOf((x) => rows(x, constant(index, [count], "int32")), table), wanted);
  // As if the places were not known: they depend on what is fed.
  const told = (x: Tensor): Tensor =>
    ops.cast(x.slice(1, 0, 1).sum().mul(0), { to: "int32" }).add(constant(index, [count], "int32"));
  assert.deepEqual(await gradientOf((x) => rows(x, ops.stopGradient(told(x))), table), wanted);
});

test("attention's gradient sums rows of values where they are shorter than those of weights", () => {
  const rowsSummed = (values: number): number[] => {
    const [scores, v] = [input([2, 5, 7]), input([2, 7, values])];
    const found = gradients(ops.softmax(scores).matmul(v).square().mean(), [scores]);
    const { nodes } = new Graph(
      [
        ["scores", scores],
        ["v", v],
      ],
      [["gradient", found[0]]],
    );
    return nodes.flatMap(({ op, inputs }) => (op.name === "ReduceSum" ? [inputs[0]!.shape[2] as number] : []));
  };
  assert.deepEqual(rowsSummed(3), [3]);
  assert.deepEqual(rowsSummed(9), [7]);
});
