import assert from "node:assert/strict";
import { test } from "node:test";
import { OrielError, ShapeError } from "../../src/base/errors.ts";
import { countUses, Graph, rewrite, validate } from "../../src/graph/graph.ts";
import { readModel } from "../../src/graph/onnx/model.ts";
import { writeOnnx } from "../../src/graph/onnx/write.ts";
import { printGraph } from "../../src/graph/print.ts";
import { OpenDim } from "../../src/graph/shape.ts";
import { constant, input, type Tensor, withScope } from "../../src/graph/tensor.ts";
import * as ops from "../../src/ops/index.ts";

const N = new OpenDim("N");

test("a graph is printed for people", () => {
  const [image, weight, scale] = [input([N, 3, 8, 8]), input([16, 3, 4, 4]), input([16])];
  const tokens = withScope(
    "patch_embed.proj",
    () => ops.conv(image, weight, undefined, { stride: 4 }).reshape([N, 16, 4]).mT,
  );
  const attended = withScope("blocks.0.attn", () => {
    const [q, k] = ops.split(tokens, 2, 2);
    return ops.softmax(q.mul(0.25).matmul(k.mT)).add(constant(new Float32Array(16), [4, 4], "float32"));
  });
  const [y, order] = withScope("norm", () => [ops.layerNorm(tokens, scale, undefined, 1e-5), tokens.flip(1)]);
  const graph = new Graph(
    [
      ["image", image],
      ["patch_embed.proj.weight", weight],
      ["norm.weight", scale],
    ],
    [
      ["attention", attended],
      ["tokens", y.add(order)],
      ["image", image],
    ],
  );
  assert.equal(
    printGraph(graph),
    `\
input image: float32 [N, 3, 8, 8]
input patch_embed.proj.weight: float32 [16, 3, 4, 4]
input norm.weight: float32 [16]
%0 float32 [N, 16, 2, 2]  Conv(image, patch_embed.proj.weight, -, strides=[4, 4], pads=[0, 0, 0, 0], dilations=[1, 1], group=1)  patch_embed.proj
%1 float32 [N, 16, 4]  Reshape(%0, shape=[N, 16, 4])  patch_embed.proj
%2 float32 [N, 4, 16]  Transpose(%1, perm=[0, 2, 1])  patch_embed.proj
%3 float32 [N, 4, 8], %4 float32 [N, 4, 8]  Split(%2, axis=2, sizes=[8, 8])  blocks.0.attn
%5 float32 [N, 4, 8]  Mul(%3, 0.25)  blocks.0.attn
%6 float32 [N, 8, 4]  Transpose(%4, perm=[0, 2, 1])  blocks.0.attn
%7 float32 [N, 4, 4]  MatMul(%5, %6)  blocks.0.attn
%8 float32 [N, 4, 4]  Softmax(%7, axis=2)  blocks.0.attn
%9 float32 [N, 4, 4]  Add(%8, float32[4,4])  blocks.0.attn
%10 float32 [N, 4, 16], %11 float32 [N, 4, 1], %12 float32 [N, 4, 1]  LayerNormalization(%2, norm.weight, -, axis=2, epsilon=0.00001)  norm
%13 float32 [N, 4, 16]  Gather(%2, axis=1, order=<4 numbers>, inverse=<4 numbers>)  norm
%14 float32 [N, 4, 16]  Add(%10, %13)
output attention: %9 float32 [N, 4, 4]
output tokens: %14 float32 [N, 4, 16]
output image: image float32 [N, 3, 8, 8]`,
  );
});

test("a graph names every input that it reads", () => {
  const [x, stranger] = [input([2]), input([2, 3])];
  const graph = new Graph([["x", x]], [["y", withScope("head.fc", () => x.reshape([1, 2]).matmul(stranger))]]);
  assert.throws(() => validate(graph), {
    code: "graph",
    message: `\
the graph reads a tensor that is none of its inputs
  float32 [2, 3], read by MatMul at head.fc
  help: name every input; a module finds its layers in public fields and lists, not in #private fields or plain objects`,
  });
  validate(
    new Graph(
      [
        ["x", x],
        ["w", stranger],
      ],
      graph.outputs,
    ),
  );
});

test("a name stands for one input, and for one output", () => {
  const [a, b] = [input([2]), input([3])];
  const twice = (x: Tensor, y: Tensor): [string, Tensor][] => [
    ["x", x],
    ["x", y],
  ];
  assert.throws(() => new Graph(twice(a, b), []), {
    code: "graph",
    message: `\
two inputs of the graph are called x
  float32 [2]
  float32 [3]
  help: give each a name of its own`,
  });
  assert.throws(() => new Graph([["x", a]], twice(a, a.exp())), /two outputs of the graph are called x/);
  assert.equal(new Graph(twice(a, a), []).inputs.size, 1);
});

test("a constant has as many values as its shape, in the array of its dtype", () => {
  const refused = (message: string, draw: () => Tensor): void =>
    assert.throws(draw, (error) => error instanceof ShapeError && error.facts.message === message);
  refused("a constant of shape [5] has 5 values, 3 came", () => constant(new Float32Array(3), [5], "float32"));
  refused("a constant of float32 has its values as Float32Array, not as Int32Array", () =>
    constant(Int32Array.of(1, 2, 3), [3], "float32"),
  );
  assert.equal(constant(new Uint16Array(1), [], "float16").dtype, "float16");
});

test("one name is not both an input and another output", () => {
  const x = input([2]);
  validate(new Graph([["x", x]], [["x", x]]));
  assert.throws(
    () => validate(new Graph([["x", x]], [["x", x.exp()]])),
    /1 names stand for an input and for another output/,
  );
});

test("thousands of nodes that are called alike are written in no time, each under a name of its own", () => {
  const x = input([1]);
  let y: Tensor = x;
  for (let i = 0; i < 8000; i++) y = ops.relu(y);
  const start = performance.now();
  const { graph } = readModel(writeOnnx(new Graph([["x", x]], [["y", y]])));
  assert.equal(new Set(graph.nodes.map((node) => node.outputs[0])).size, 8000);
  assert.ok(performance.now() - start < 1500, "it took as long as the square of their number");
});

test("inputs are bound to constants and to other graphs", () => {
  const [a, b] = [input([2]), input([2])];
  const graph = new Graph(
    [
      ["a", a],
      ["b", b],
    ],
    [
      ["sum", a.add(b)],
      ["b", b],
    ],
  );
  const c = input([2]);
  const bound = graph.bind(new Map([["b", c.exp()]]));
  assert.deepEqual([...bound.inputs.keys()], ["a"]);
  assert.equal(bound.outputs.get("b")?.node.op.name, "Exp");
  assert.equal(bound.outputs.get("sum")?.node.inputs[1], bound.outputs.get("b"));
  assert.equal(graph.outputs.get("b"), b, "the graph itself stays");
});

test("uses are counted", () => {
  const x = input([2]);
  const y = x.exp();
  const uses = countUses(
    new Graph(
      [["x", x]],
      [
        ["y", y],
        ["z", y.mul(y).add(x)],
      ],
    ),
  );
  assert.deepEqual([uses.get(x), uses.get(y)], [2, 3]);
});

test("a rewrite keeps modules' paths and untouched nodes", () => {
  const x = input([2]);
  const [kept, changed] = [withScope("a", () => x.exp()), withScope("b", () => x.neg().mul(2))];
  const [[, same], [, other]] = rewrite(
    [
      ["kept", kept],
      ["changed", changed],
    ],
    (node, inputs) => (node.op.name === "Neg" ? [(inputs[0] as Tensor).sqrt()] : undefined),
  );
  assert.equal(same, kept);
  assert.deepEqual([other.node.op.name, other.node.scope, other.node.inputs[0]?.node.scope], ["Mul", "b", "b"]);
});

/** Drawn inside a module, an error says which operation, on what, where, and what to do. */
const fails = (draw: () => unknown, message: string): void => {
  assert.throws(
    () => withScope("stages.0.blocks.1.attn.qkv", draw),
    (error) => {
      assert.ok(error instanceof ShapeError && error instanceof OrielError);
      assert.equal(error.message, message);
      assert.deepEqual([error.code, error.facts.at], ["shape", "stages.0.blocks.1.attn.qkv"]);
      return true;
    },
  );
};
const at = "(at stages.0.blocks.1.attn.qkv)";

test("shapes that do not fit are explained", () => {
  const x = input([8, 49, 96]);
  fails(
    () => x.matmul(input([97, 288])),
    `\
MatMul: inner axes differ, 96 and 97 ${at}
  a: float32 [8, 49, 96]
  b: float32 [97, 288]
  help: the last axis of a is summed with the one before the last of b: make them equal, or transpose`,
  );
  fails(
    () => x.add(input([49, 95])),
    `\
Add: [8, 49, 96] and [49, 95] do not broadcast ${at}
  a: float32 [8, 49, 96]
  b: float32 [49, 95]
  help: counted from the last, axes must be equal, or one of them 1`,
  );
  fails(
    () => x.add(input([96], "int32")),
    `\
Add: dtypes differ, float32 and int32 ${at}
  a: float32 [8, 49, 96]
  b: int32 [96]
  help: cast one of them`,
  );
  fails(
    () => x.reshape([8, 48, -1, 96]),
    `\
Reshape: [8, 48, -1, 96] is no shape ${at}
  x: float32 [8, 49, 96]`,
  );
  fails(
    () => x.reshape([8, 48, 96]),
    `\
Reshape: [8, 48, 96] holds 36864 elements, 37632 came ${at}
  x: float32 [8, 49, 96]
  help: a reshape keeps every element; -1 stands for what is left`,
  );
  fails(
    () => ops.conv(input([2, 3, 8, 8]), input([16, 4, 3, 3]), input([16])),
    `\
Conv: 3 channels came, the weights read 4 (1 groups of 4) ${at}
  x: float32 [2, 3, 8, 8]
  w: float32 [16, 4, 3, 3]
  bias: float32 [16]
  help: the weights are [O, C / groups, ...K] for a map [N, C, ...S]`,
  );
});

test("every operation names itself and what it read", () => {
  const x = input([2, 3, 4, 4]);
  const open = input([N, 3]);
  const wrong: [RegExp, () => unknown][] = [
    [/^sum: axis 4 is outside a tensor of 4 axes/, () => x.sum([4])],
    [/^slice: a sliced axis must have a known size, it is N/, () => open.slice(0, 1)],
    [/^Slice: 1 to 9 is no range of axis 2, which has 4/, () => x.slice(2, 1, 9)],
    [/^Transpose: the order \(0, -1, 1, 2\) does not name every axis once/, () => x.permute(0, -1, 1, 2)],
    [/^Transpose: the order \(0, 1\)/, () => x.permute(0, 1)],
    [/^Softmax: axis 4/, () => ops.softmax(x, { axis: 4 })],
    [/^Concat: all must agree but in axis 1/, () => ops.concat([x, input([2, 3, 4, 5])], 1)],
    [/^Concat: axis 7/, () => ops.concat([x], 7)],
    [/^Split: 3 does not divide by 2/, () => ops.split(x, 1, 2)],
    [/^Split: parts of 1 \+ 1 do not make 3/, () => ops.split(x, 1, [1, 1])],
    [/^roll: a rolled axis must have a known size/, () => ops.roll(open, 1, 0)],
    [/^Expand: it does not broadcast to \[2, 3\]/, () => open.expandAs(input([2, 3]))],
    [/^Pad: 4 elements cannot be reflected out of 4/, () => x.pad(2, 4, 0, { mode: "reflect" })],
    [/^Pad: padding by edge does not cut/, () => x.pad(2, -1, 0, { mode: "edge" })],
    [/^TopK: 5 of 4 elements were asked for/, () => ops.topK(x, 5)],
    [/^CumSum: axis -5/, () => ops.cumSum(x, { axis: -5 })],
    [/^Where: the condition must be bool/, () => ops.where(x, x, x)],
    [/^Conv: a 2-D convolution reads/, () => ops.conv(input([3, 4, 4]), input([2, 3, 1, 1]))],
    [/^Conv: 2 channels come out, the bias has \[3\]/, () => ops.conv(x, input([2, 3, 1, 1]), input([3]))],
    [/^Conv: a map of 4 is too small for the kernel/, () => ops.conv(x, input([2, 3, 5, 5]))],
    [/^ConvTranspose: 3 channels came, the weights read 4/, () => ops.convTranspose(x, input([4, 2, 2, 2]))],
    [/^Conv: the stride is \[2\] for 2 axes/, () => ops.conv(x, input([2, 3, 1, 1]), undefined, { stride: [2] })],
    [/^Conv: the stride is \[0, 0\] for 2 axes/, () => ops.conv(x, input([2, 3, 1, 1]), undefined, { stride: 0 })],
    [
      /^Conv: the padding is \[1, 1, 1\] for 2 axes(.|\n)*help: give a whole number of 0 or more, or one for each axis, or for all starts, then all ends/,
      () => ops.conv(x, input([2, 3, 1, 1]), undefined, { padding: [1, 1, 1] }),
    ],
    [/^Conv: the padding is \[-1, -1, -1, -1\]/, () => ops.conv(x, input([2, 3, 1, 1]), undefined, { padding: -1 })],
    [/^Conv: the dilation is \[0, 0\]/, () => ops.conv(x, input([2, 3, 1, 1]), undefined, { dilation: 0 })],
    [/^Conv: there are no 0 groups/, () => ops.conv(x, input([2, 3, 1, 1]), undefined, { groups: 0 })],
    [/^Conv: a 0-D convolution reads/, () => ops.conv(input([2, 3]), input([2, 3]))],
    [
      /^ConvTranspose: 3 channels do not divide into 2 groups/,
      () => ops.convTranspose(x, input([3, 2, 2, 2]), undefined, { groups: 2 }),
    ],
    [
      /^ConvTranspose: the padding leaves nothing of a map of 5/,
      () => ops.convTranspose(x, input([3, 2, 2, 2]), undefined, { padding: 3 }),
    ],
    [
      /^ConvTranspose: an output padding of 2 is not less than the stride, 2/,
      () => ops.convTranspose(x, input([3, 2, 2, 2]), undefined, { stride: 2, dilation: 3, outputPadding: 2 }),
    ],
    [
      /^ConvTranspose: the output padding is \[1\] for 2 axes/,
      () => ops.convTranspose(x, input([3, 2, 2, 2]), undefined, { stride: 2, outputPadding: [1] }),
    ],
    [/^MaxPool: the kernel is \[0, 0\] for 2 axes/, () => ops.maxPool(x, { kernel: 0 })],
    [/^AveragePool: the stride is \[0, 0\]/, () => ops.averagePool(x, { kernel: 2, stride: 0 })],
    [
      /^MaxPool: the padding is \[2, 2, 2, 2\]; windows of 2 × 2 would read nothing else/,
      () => ops.maxPool(x, { kernel: 2, padding: 2 }),
    ],
    [/^AveragePool: a map of 2 axes cannot become 0 × 1/, () => ops.adaptiveAveragePool(x, [0, 1])],
    [/^Resize: a map of 2 axes cannot become 0 × 3/, () => ops.resize(x, { size: [0, 3] })],
    [/^MaxPool: a map of 4 is smaller than the window/, () => ops.maxPool(x, { kernel: 5 })],
    [/^Resize: a map of 2 axes cannot become 8/, () => ops.resize(x, { size: [8] })],
    [/^Gemm: inner axes differ/, () => ops.gemm(input([2, 3]), input([2, 3]), undefined)],
    [/^Einsum: k is 3 and 4 in ik,kj->ij/, () => ops.einsum("ik,kj->ij", input([2, 3]), input([4, 2]))],
    [/^Einsum: "ii->i" is no equation/, () => ops.einsum("ii->i", input([2, 2]))],
    [/^LayerNormalization: it normalises \[4\], scale has \[5\]/, () => ops.layerNorm(x, input([5]), undefined, 1e-5)],
    [
      /^LayerNormalization: it normalises \[4, 4\], scale has \[2, 8\]/,
      () => ops.layerNorm(x, input([2, 8]), undefined, 1e-5),
    ],
    [/^LayerNormalization: it normalises \[4\], bias has \[1\]/, () => ops.layerNorm(x, input([4]), input([1]), 1e-5)],
    [/^groupNorm: 3 channels came, scale has \[1\]/, () => ops.groupNorm(x, 3, input([1]), undefined, 1e-5)],
    [/^groupNorm: 3 channels came, bias has \[4\]/, () => ops.groupNorm(x, 3, input([3]), input([4]), 1e-5)],
    [/^rmsNorm: it normalises \[4\], scale has \[3, 1, 1\]/, () => ops.rmsNorm(x, input([3, 1, 1]), 1e-5)],
    [/^ReduceSumSquare: no axis is named/, () => ops.reduceSumSquare(x, { axes: [], keepdims: true })],
    [/^ReduceSum: the axes \(0, 0\) name one of them twice/, () => x.sum([0, -4])],
    [
      /^Pad: 4 whole numbers are needed at each end, one for each axis; \(0, 1\) came/,
      () => ops.padAxes(x, { before: [0, 1], after: [0, 0, 0, 0] }),
    ],
    [/^Pad: 5 elements cannot be cut off axis 2, which has 4/, () => x.pad(2, -3, -2)],
    [/^Pad: 4 elements cannot be cut off axis 2, which has 4/, () => x.pad(2, -4, 5)],
    [/^Split: parts of 5 \+ -2 do not make 3/, () => ops.split(x, 1, [5, -2])],
    [/^TopK: -1 of 4 elements were asked for/, () => ops.topK(x, -1)],
    [/^Slice: a step of -1 leads nowhere/, () => x.slice(2, 0, 4, -1)],
    [/^Slice: a step of 0 leads nowhere/, () => x.slice(2, 0, 4, 0)],
    [/^Slice: 0 to 2.5 is no range/, () => x.slice(2, 0, 2.5)],
    [
      /^ScatterND: the indices must be int64/,
      () => ops.scatterNdAdd(input([4, 2]), input([3, 1], "int32"), input([3, 2])),
    ],
    [
      /^ScatterND: rows \[2, 2\] at \[3, 1\] do not go into \[4, 2\]/,
      () => ops.scatterNdAdd(input([4, 2]), input([3, 1], "int64"), input([2, 2])),
    ],
    [
      /^BatchNormalization: 3 channels came, scale has \[4\]/,
      () => ops.batchNorm(x, input([4]), input([3]), input([3]), input([3]), { epsilon: 1e-5 }),
    ],
    [
      /^InstanceNormalization: 3 channels came, bias has \[2\]/,
      () => ops.instanceNorm(x, input([3]), input([2]), { epsilon: 1e-5 }),
    ],
    [/^groupNorm: 3 channels do not divide into 2 groups/, () => ops.groupNorm(x, 2, input([3]), input([3]), 1e-5)],
    [/^GatherElements: x has 4 axes, the indices 1/, () => ops.gatherElements(x, input([2], "int32"), { axis: 0 })],
    [
      /^ScatterElements: updates are \[2\], the indices \[3\]/,
      () => ops.scatterElementsAdd(input([4]), input([3], "int32"), input([2]), { axis: 0 }),
    ],
    [/^Gather: the indices must be int32 or int64/, () => ops.gather(x, input([2]), { axis: 0 })],
    [/^rows: a single number has no last axis/, () => ops.linear(input([]), input([2, 3]))],
    [/^along: axis 4/, () => ops.along(x, 4, input([2, 2]))],
    [/^expandBatch: what is repeated is \[1, ...S\]/, () => ops.expandBatch(input([2, 3]), x)],
    [/^oneHot: there are no 0 classes/, () => ops.oneHot(input([2], "int32"), 0)],
    [/^Not: it reads bool, not float32/, () => ops.not(x)],
    [/^And: it reads bool, not int32/, () => ops.and(input([2], "int32"), input([2], "int32"))],
    [/^rfft2: maps are \[N, H, W, C\], x has 2 axes/, () => ops.rfft2(open)],
    [/^irfft2: frequencies of maps 8 wide are \[N, 2, H, 5, C\]/, () => ops.irfft2(input([1, 2, 8, 4, 3]), 8)],
    [/^GlobalAveragePool: it reads a map/, () => ops.globalAveragePool(open)],
    [
      /^InstanceNormalization: 3 axes or more are needed, \[N, C, ...S\]; x has 2/,
      () => ops.instanceNorm(open, input([3]), input([3]), { epsilon: 1e-5 }),
    ],
    [
      /^batchNormTraining: 2 axes or more are needed/,
      () => ops.batchNormTraining(input([3]), input([3]), input([3]), 1e-5),
    ],
    [
      /^LayerNormalization: 0 axes are to be normalised, x has 0/,
      () => ops.layerNorm(input([]), input([]), undefined, 1),
    ],
    [
      /^GatherElements: indices \[2, 4\] reach beyond \[3, 3\] in other axes than 0/,
      () => ops.gatherElements(input([3, 3]), input([2, 4], "int32"), { axis: 0 }),
    ],
    [/^Gather: an order of 2 for an axis of 3/, () => ops.permuteAlong(x, [1, 0], 1)],
    [/^Gather: the order of 3 does not name every place once/, () => ops.permuteAlong(x, [0, 0, 1], 1)],
  ];
  for (const [message, draw] of wrong)
    assert.throws(
      draw,
      (error) => error instanceof ShapeError && message.test(error.message) && !!error.facts.details?.length,
      `${message}`,
    );
  assert.throws(() => ops.concat([], 0), /^ShapeError: Concat: there is nothing to join/);
  for (const size of [-1, 1.5, Number.NaN])
    assert.throws(() => input([2, size]), new RegExp(`^ShapeError: an input cannot be \\[2, ${size}\\]\\n.*OpenDim`));
});
