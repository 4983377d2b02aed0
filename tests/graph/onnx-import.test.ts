import assert from "node:assert/strict";
import { test } from "node:test";
import * as ort from "onnxruntime-node";
import { gradients } from "../../src/autodiff/gradients.ts";
import { OrielError } from "../../src/base/errors.ts";
import { type DType, dtypeCodes } from "../../src/graph/dtype.ts";
import { Graph } from "../../src/graph/graph.ts";
import { readModel, readTensor } from "../../src/graph/onnx/model.ts";
import { ProtoWriter } from "../../src/graph/onnx/proto.ts";
import { writeOnnx, writeOnnxParts } from "../../src/graph/onnx/write.ts";
import { bindShape, OpenDim } from "../../src/graph/shape.ts";
import { constant, input, withScope } from "../../src/graph/tensor.ts";
import { bindWeights } from "../../src/nn/bind.ts";
import { initialWeights, weightsOf } from "../../src/nn/module.ts";
import { importOnnx } from "../../src/nn/onnx-module.ts";
import { registry } from "../../src/ops/define.ts";
import { readOperators } from "../../src/ops/onnx/draw.ts";
import { resize } from "../../src/ops/resize.ts";
import type { HostTensor } from "../../src/runtime/runtime.ts";
import { kinds } from "../ops/cases/index.ts";
import { numbers, randn } from "../support/arrays.ts";
import { as, difference, runGraph } from "../support/check.ts";
import { type HandModel, type HandNode, handModel, ints, type Weight, w, writeWeight } from "./onnx-files.ts";

type Session = Awaited<ReturnType<typeof ort.InferenceSession.create>>;

const feedsOf = (model: HandModel, batch: number): Record<string, HostTensor> =>
  Object.fromEntries(
    Object.entries(model.inputs).map(([name, shape]) => {
      const x = randn(shape.map((d) => (typeof d === "string" ? batch : d)));
      return [name, as(x, "float32")];
    }),
  );

/** Imports a model and runs it; plain ONNX Runtime, which reads the same bytes, must give the same. */
async function agrees(model: HandModel, { batch = 2, tolerance = 1e-5 } = {}): Promise<void> {
  const bytes = handModel(model);
  const feeds = feedsOf(model, batch);
  const module = importOnnx(bytes);
  const graph = bindWeights(module.graph(), module, initialWeights(module, 0));
  const got = await runGraph(graph, feeds);
  const session: Session = await ort.InferenceSession.create(bytes, { logSeverityLevel: 3 });
  const wanted = await session.run(
    Object.fromEntries(
      Object.entries(feeds).map(([name, { shape, data }]) => [
        name,
        new ort.Tensor("float32", data as Float32Array, shape as number[]),
      ]),
    ),
  );
  for (const name of model.outputs) {
    const { dims, data } = wanted[name];
    const error = difference(got[name], {
      dtype: "float32",
      shape: dims,
      data: Float32Array.from(data as Float32Array, Number),
    });
    assert.ok(error <= tolerance, `${name}: ${error}`);
    assert.deepEqual(bindShape(graph.outputs.get(name)!.shape, batch), [...dims]);
  }
}

const node = (
  op: string,
  inputs: readonly string[],
  outputs: readonly string[],
  attributes: HandNode["attributes"] = {},
  domain?: string,
): HandNode => ({ op, inputs, outputs, attributes, domain });

const noise = (shape: readonly number[]): Weight =>
  w(
    shape,
    numbers(randn(shape)).map((v) => 0.3 * v),
  );

test("tensors of every type, in every form", () => {
  const values: Partial<Record<DType, number[]>> = {
    float32: [1.5, -2, 0.25],
    float64: [1.5, -2, 0.25],
    int64: [-3, 2 ** 40, 7],
    uint64: [3, 2 ** 40, 7],
    int32: [-3, 2 ** 30, 7],
    uint32: [3, 2 ** 31, 7],
    int16: [-3, 300, 7],
    uint16: [3, 60000, 7],
    int8: [-3, 100, 7],
    uint8: [3, 200, 7],
    bool: [1, 0, 1],
    float16: [1.5, -2, 0.25],
    bfloat16: [1.5, -2, 0.25],
  };
  for (const dtype of Object.keys(dtypeCodes) as DType[]) {
    const given = values[dtype];
    if (!given) continue;
    const forms = (["raw", "typed", "unpacked"] as const).filter((form) => form !== "unpacked" || dtype !== "float64");
    const read = forms.map((form) => {
      const t = new ProtoWriter();
      writeWeight(t, { dtype, shape: [3], values: given, form });
      return readTensor(t.finish());
    });
    for (const tensor of read) {
      assert.deepEqual([tensor.dtype, tensor.shape], [dtype, [3]]);
      assert.deepEqual(tensor.data, read[0].data, dtype);
    }
    if (dtype !== "float16" && dtype !== "bfloat16")
      assert.deepEqual(Array.from(read[0].data as Iterable<number | bigint>, Number), given);
  }
});

test("a tensor whose values do not fit its shape is refused", () => {
  const broken = (write: (t: ProtoWriter) => void) => () => {
    const t = new ProtoWriter();
    write(t);
    return readTensor(t.string(8, "w").finish());
  };
  const refuses = (write: (t: ProtoWriter) => void, message: RegExp): void =>
    assert.throws(broken(write), (error) => error instanceof OrielError && message.test(error.message));
  refuses((t) => t.int(1, 2).int(2, 1).bytes(9, new Uint8Array(4)), /needs 8 bytes for \[2\]; it has 4/);
  refuses((t) => t.int(1, -1).int(2, 1), /has the shape \[-1\]/);
  refuses(
    (t) =>
      t
        .int(1, 2 ** 40)
        .int(1, 2 ** 40)
        .int(2, 1),
    /has the shape/,
  );
  refuses((t) => t.int(1, 1).int(2, 22), /is of int4/);
  refuses((t) => t.int(1, 1).int(2, 8), /is of text/);
});

/** Layers whose operators changed between versions of the operator set, each at some of them. */
const versions: Readonly<Record<string, HandModel>> = {
  "opset 11: axes as attributes, softmax over all that follows, padding as an input": {
    opset: 11,
    inputs: { x: ["N", 3, 8, 8] },
    outputs: ["y"],
    weights: {
      k: noise([4, 3, 3, 3]),
      b: noise([4]),
      pads: ints(0, 0, 1, 0, 0, 0, 1, 2),
      lo: w([], [-0.5]),
      hi: w([], [1]),
      value: w([], [0.5]),
    },
    nodes: [
      node("Conv", ["x", "k", "b"], ["c"], { strides: [2, 2], auto_pad: "SAME_UPPER" }),
      node("Pad", ["c", "pads", "value"], ["p"], { mode: "constant" }),
      node("Clip", ["p", "lo", "hi"], ["l"]),
      node("Unsqueeze", ["l"], ["u"], { axes: [1] }),
      node("Squeeze", ["u"], ["s"], { axes: [1] }),
      node("ReduceMean", ["s"], ["m"], { axes: [3], keepdims: 0 }),
      node("ReduceSum", ["s"], ["r"], { axes: [-1], keepdims: 0 }),
      node("Add", ["m", "r"], ["a"]),
      node("Softmax", ["a"], ["y"]),
    ],
  },
  "opset 13: sizes worked out from the shape of the input, the batch open": {
    opset: 13,
    inputs: { x: ["batch", 6, 4, 4] },
    outputs: ["y", "z"],
    weights: {
      zero: w([], [0], "int64"),
      one: w([], [1], "int64"),
      two: ints(2),
      rest: ints(-1),
      axes: ints(0),
      from: ints(2),
      to: ints(2 ** 31),
      three: ints(3),
      cut: ints(2, 4),
    },
    nodes: [
      node("Shape", ["x"], ["shape"]),
      node("Gather", ["shape", "zero"], ["n"], { axis: 0 }),
      node("Gather", ["shape", "one"], ["c"], { axis: 0 }),
      node("Unsqueeze", ["n", "axes"], ["n1"]),
      node("Unsqueeze", ["c", "axes"], ["c1"]),
      node("Div", ["c1", "two"], ["half"]),
      node("Slice", ["shape", "from", "to", "axes"], ["hw"]),
      node("Concat", ["n1", "two", "half", "hw"], ["five"], { axis: 0 }),
      node("Reshape", ["x", "five"], ["r"]),
      node("Transpose", ["r"], ["t"], { perm: [0, 2, 1, 3, 4] }),
      node("Concat", ["n1", "rest"], ["flat"], { axis: 0 }),
      node("Reshape", ["t", "flat"], ["y"]),
      node("Split", ["x", "cut"], ["p", "q"], { axis: 1 }),
      node("Mul", ["n1", "three"], ["more"]),
      node("Div", ["more", "three"], ["same"]),
      node("Concat", ["same", "rest"], ["again"], { axis: 0 }),
      node("Reshape", ["q", "again"], ["z"]),
    ],
  },
  "opset 13: a token repeated for each image of an open batch, a slice backwards, tiles": {
    opset: 13,
    inputs: { x: ["N", 4, 3] },
    outputs: ["y"],
    weights: {
      token: noise([1, 1, 3]),
      place: ints(0),
      end: ints(1),
      size: ints(1, 3),
      i0: ints(-1),
      i1: ints(-100),
      i2: ints(1),
      i3: ints(-2),
      times: ints(1, 2, 1),
    },
    nodes: [
      node("Shape", ["x"], ["shape"]),
      node("Slice", ["shape", "place", "end", "place"], ["n"]),
      node("Concat", ["n", "size"], ["to"], { axis: 0 }),
      node("Expand", ["token", "to"], ["tokens"]),
      node("Concat", ["tokens", "x"], ["all"], { axis: 1 }),
      node("Slice", ["all", "i0", "i1", "i2", "i3"], ["back"]),
      node("Tile", ["back", "times"], ["y"]),
    ],
  },
  "opset 17: layer norm, resizing as nobody but ONNX places pixels, pools that keep to the ceiling": {
    opset: 17,
    inputs: { x: ["N", 2, 5, 6] },
    outputs: ["y", "z", "pool"],
    weights: { s: noise([6]), b: noise([6]), scales: w([4], [1, 1, 1.7, 2]), i0: ints(0), i1: ints(2), hw: ints(9, 4) },
    nodes: [
      node("LayerNormalization", ["x", "s", "b"], ["n"], { axis: -1, epsilon: { float: 1e-3 } }),
      node("Resize", ["n", "", "scales"], ["y"], { mode: "linear", coordinate_transformation_mode: "asymmetric" }),
      node("Shape", ["x"], ["shape"]),
      node("Slice", ["shape", "i0", "i1"], ["nc"]),
      node("Concat", ["nc", "hw"], ["sizes"], { axis: 0 }),
      node("Resize", ["n", "", "", "sizes"], ["z"], { mode: "nearest", nearest_mode: "round_prefer_floor" }),
      node("AveragePool", ["n"], ["pool"], { kernel_shape: [2, 2], strides: [2, 2], ceil_mode: 1 }),
    ],
  },
  "opset 17: what a layer norm found": {
    opset: 17,
    inputs: { x: ["N", 4, 6] },
    outputs: ["y", "mean", "inverse"],
    weights: { s: noise([6]) },
    nodes: [node("LayerNormalization", ["x", "s"], ["y", "mean", "inverse"], { axis: -1, epsilon: { float: 1e-3 } })],
  },
  "opset 17: scales that are a little less in float32": {
    opset: 17,
    inputs: { x: ["N", 2, 5, 49] },
    outputs: ["y"],
    weights: { scales: w([4], [1, 1, 7 / 5, 3 / 49]) },
    nodes: [node("Resize", ["x", "", "scales"], ["y"], { mode: "linear" })],
  },
  "opset 13: remainders with the sign of what divides, and of what is divided": {
    opset: 13,
    inputs: { x: ["N", 4] },
    outputs: ["y", "i", "c"],
    inputTypes: { i: "int64", c: "int64" },
    weights: {
      b: w([4], [0.3, -0.3, 0.7, -0.7]),
      tens: w([], [10]),
      k: ints(3, -3, 4, -4),
      m: ints(-7, 7, -7, 7),
    },
    nodes: [
      node("Mod", ["x", "b"], ["y"], { fmod: 1 }),
      node("Mul", ["x", "tens"], ["more"]),
      node("Cast", ["more"], ["whole"], { to: 7 }),
      node("Mod", ["whole", "k"], ["i"]),
      node("Mod", ["m", "k"], ["known"], { fmod: 1 }),
      node("Add", ["whole", "known"], ["c"]),
    ],
  },
  "opset 13: of the largest and smallest, the first and the last": {
    opset: 13,
    inputs: { x: ["N", 6] },
    outputs: ["a", "b", "c"],
    inputTypes: { a: "int64", b: "int64", c: "int64" },
    nodes: [
      node("Sign", ["x"], ["s"]),
      node("ArgMax", ["s"], ["a"], { axis: 1 }),
      node("ArgMax", ["s"], ["b"], { axis: -1, select_last_index: 1, keepdims: 0 }),
      node("ArgMin", ["s"], ["c"], { axis: 1, select_last_index: 1 }),
    ],
  },
  "opset 13: a matrix of ones on a diagonal, of the type that is asked for": {
    opset: 13,
    inputs: { x: ["N", 3] },
    outputs: ["y", "z"],
    inputTypes: { y: "int64", z: "int64" },
    weights: { m: w([2, 3], [1, 2, 3, 4, 5, 6], "int64"), f: w([2, 3], [1, 2, 3, 4, 5, 6]) },
    nodes: [
      node("EyeLike", ["m"], ["own"]),
      node("EyeLike", ["f"], ["asked"], { k: 1, dtype: 7 }),
      node("Add", ["own", "asked"], ["sum"]),
      node("Cast", ["x"], ["whole"], { to: 7 }),
      node("ReduceMax", ["whole"], ["most"]),
      node("Mul", ["sum", "most"], ["y"]),
      node("Mul", ["own", "most"], ["z"]),
    ],
  },
  "opset 13: classes counted from the end": {
    opset: 13,
    inputs: { x: ["N", 4] },
    outputs: ["y"],
    weights: { depth: w([], [3], "int64"), values: w([2], [-1, 2]), k: ints(-3, 3, -1, -4) },
    nodes: [
      node("Sign", ["x"], ["s"]),
      node("Cast", ["s"], ["whole"], { to: 7 }),
      node("Add", ["whole", "k"], ["places"]),
      node("OneHot", ["places", "depth", "values"], ["y"]),
    ],
  },
  "opset 13: resizing to a single pixel, which PyTorch's exporter takes from the corner": {
    opset: 13,
    inputs: { x: ["N", 2, 5, 6] },
    outputs: ["y"],
    weights: { sizes: w([4], [2, 2, 1, 3], "int64") },
    nodes: [
      node("Resize", ["x", "", "", "sizes"], ["y"], {
        mode: "linear",
        coordinate_transformation_mode: "pytorch_half_pixel",
      }),
    ],
  },
  "opset 13: unit vectors, of which zeros stay zeros": {
    opset: 13,
    inputs: { x: ["N", 2, 4] },
    outputs: ["y", "z"],
    nodes: [
      node("Relu", ["x"], ["r"]),
      node("Sub", ["r", "r"], ["none"]),
      node("Concat", ["x", "none"], ["all"], { axis: 1 }),
      node("LpNormalization", ["all"], ["y"]),
      node("LpNormalization", ["all"], ["z"], { axis: 2, p: 1 }),
    ],
  },
  "opset 18: reductions by input, a split into parts, group norm": {
    opset: 18,
    inputs: { x: ["N", 6, 4] },
    outputs: ["y", "d"],
    weights: { axes: ints(2), s: noise([2]), b: noise([2]) },
    nodes: [
      node("GroupNormalization", ["x", "s", "b"], ["g"], { num_groups: 2 }),
      node("Split", ["g"], ["p", "q", "r"], { axis: 1, num_outputs: 3 }),
      node("Max", ["p", "q", "r"], ["m"]),
      node("ReduceL2", ["m", "axes"], ["l"], { keepdims: 1 }),
      node("Div", ["m", "l"], ["y"]),
      node("ReduceMax", ["x"], ["d"], { keepdims: 0 }),
    ],
  },
  "opset 20: gelu, both ways": {
    opset: 20,
    inputs: { x: ["N", 6] },
    outputs: ["y", "z"],
    nodes: [node("Gelu", ["x"], ["y"]), node("Gelu", ["x"], ["z"], { approximate: "tanh" })],
  },
  "opset 23: rms norm": {
    opset: 23,
    inputs: { x: ["N", 4, 6] },
    outputs: ["y"],
    weights: { s: noise([6]) },
    nodes: [node("RMSNormalization", ["x", "s"], ["y"], { axis: -1 })],
  },
  "quantised, one scale a tensor and one a channel": {
    opset: 13,
    inputs: { x: ["N", 3, 5, 5] },
    outputs: ["y"],
    weights: {
      sx: w([], [0.05]),
      zx: w([], [128], "uint8"),
      k: w(
        [2, 3, 3, 3],
        Array.from({ length: 54 }, (_, i) => ((i * 37) % 255) - 127),
        "int8",
      ),
      sk: w([2], [0.01, 0.02]),
      zk: w([2], [0, 0], "int8"),
    },
    nodes: [
      node("QuantizeLinear", ["x", "sx", "zx"], ["q"]),
      node("DequantizeLinear", ["q", "sx", "zx"], ["d"]),
      node("DequantizeLinear", ["k", "sk", "zk"], ["kd"], { axis: 0 }),
      node("Conv", ["d", "kd"], ["y"], { pads: [1, 1, 1, 1] }),
    ],
  },
  "what ONNX Runtime fuses": {
    opset: 17,
    domains: { "com.microsoft": 1 },
    inputs: { x: ["N", 4, 8] },
    outputs: ["y"],
    weights: { b: noise([8]), s: noise([8]), t: noise([8]) },
    nodes: [
      node("BiasGelu", ["x", "b"], ["g"], {}, "com.microsoft"),
      node("MultiHeadAttention", ["x", "g", "x"], ["a"], { num_heads: 2 }, "com.microsoft"),
      node("SkipLayerNormalization", ["a", "x", "s", "t", "b"], ["y"], { epsilon: { float: 1e-5 } }, "com.microsoft"),
    ],
  },
  "a convolution, a sum and an activation that ONNX Runtime fuses": {
    opset: 17,
    domains: { "com.microsoft": 1 },
    inputs: { x: ["N", 4, 5, 5] },
    outputs: ["y"],
    weights: { k: noise([4, 4, 3, 3]), b: noise([4]) },
    nodes: [
      node("FusedConv", ["x", "k", "b"], ["g"], { pads: [1, 1, 1, 1], activation: "Sigmoid" }, "com.microsoft"),
      node("FusedConv", ["g", "k", "b", "x"], ["y"], { pads: [1, 1, 1, 1], activation: "Relu" }, "com.microsoft"),
    ],
  },
};
for (const [name, model] of Object.entries(versions))
  test(name, () => agrees(model, name.startsWith("quantised") ? { tolerance: 2e-2 } : {}));

for (const [kind, all] of Object.entries(kinds))
  test(`every operation of ours is read back: ${kind}`, async () => {
    // One use of each, and of each that is odd in another way.
    for (const { name, inputs, draw, dtype = "float64" } of all) {
      const xs = inputs.map((x) => as(x, dtype));
      const drawn = xs.map((x) => input(x.shape, x.dtype));
      const graph = new Graph(
        drawn.map((x, i) => [`x${i}`, x]),
        [["y", draw(...drawn)]],
      );
      const feeds = Object.fromEntries(xs.map((x, i) => [`x${i}`, x]));
      const module = importOnnx(writeOnnx(graph));
      const again = bindWeights(module.graph(), module, initialWeights(module, 0));
      const [{ y: got }, { y: wanted }] = [await runGraph(again, feeds), await runGraph(graph, feeds)];
      assert.deepEqual([got.dtype, got.shape], [wanted.dtype, wanted.shape], name);
      assert.ok(difference(got, wanted) <= 1e-5, name);
    }
  });

test("a map of an open batch is resized by one operation again", async () => {
  const x = input([new OpenDim("N"), 2, 5, 49]);
  for (const mode of ["nearest-exact", "linear", "cubic"] as const) {
    const size = mode === "cubic" ? [7, 63] : [7, 1];
    const graph = new Graph([["x", x]], [["y", resize(x, { size, mode })]]);
    const again = importOnnx(writeOnnx(graph)).graph();
    assert.deepEqual(
      again.nodes.map(({ op }) => op.name),
      ["Input", "Resize"],
    );
    const feeds = { x: as(randn([3, 2, 5, 49]), "float32") };
    const [got, wanted] = [await runGraph(again, feeds), await runGraph(graph, feeds)];
    assert.ok(difference(got.y, wanted.y) <= 1e-5, mode);
  }
});

test("every operator of the table can be read", () => {
  const fused = (name: string): boolean => name.startsWith("com.microsoft.");
  // What the engine rearranges for one processor belongs into no file, and what is drawn from others before it is written is in none.
  const arranged = (name: string): boolean => name.startsWith("com.microsoft.nchwc.") || name === "Scan";
  const shared = [...registry].flatMap(([name, { lower }]) => (arranged(name) || lower ? [] : [name]));
  const missing = shared.filter((name) => !readOperators.includes(name));
  assert.deepEqual(missing, []);
  assert.ok(readOperators.filter(fused).length >= 3);
});

test("operators that are not known are listed, with their number and the first of each", () => {
  const model = handModel({
    opset: 17,
    domains: { "ai.some": 1 },
    inputs: { x: [1, 4] },
    outputs: ["y"],
    nodes: [
      { ...node("Det", ["x"], ["a"]), name: "/head/Det" },
      node("Relu", ["a"], ["b"]),
      { ...node("Det", ["b"], ["c"]), name: "/head/Det_1" },
      { ...node("Warp", ["c"], ["y"], {}, "ai.some"), name: "/head/Warp" },
    ],
  });
  assert.throws(
    () => importOnnx(model).graph(),
    (error) =>
      error instanceof OrielError &&
      /2 operators/.test(error.message) &&
      error.facts.details?.join("|") === "Det: 2 ×, first at /head/Det|ai.some.Warp: 1 ×, first at /head/Warp",
  );
});

test("attention that sees what came before alone is refused, in either form", () => {
  for (const [op, attributes, domain] of [
    ["Attention", { is_causal: 1, q_num_heads: 2, kv_num_heads: 2 }],
    ["MultiHeadAttention", { unidirectional: 1, num_heads: 2 }, "com.microsoft"],
  ] as const) {
    const model = handModel({
      opset: 23,
      domains: { "com.microsoft": 1 },
      inputs: { x: [1, 4, 8] },
      outputs: ["y"],
      nodes: [node(op, ["x", "x", "x"], ["y"], attributes, domain)],
    });
    assert.throws(() => importOnnx(model).graph(), /is causal/);
  }
});

test("a quantised model says that it cannot be trained", () => {
  const module = importOnnx(handModel(versions["quantised, one scale a tensor and one a channel"]));
  const graph = module.graph({ batch: 1 });
  const x = graph.inputs.get("x")!;
  assert.throws(() => gradients(graph.outputs.get("y")!.square().mean(), [x]), /quantised.*for inference/);
});

test("a model in a Buffer of Node is read wherever its tensors begin", () => {
  const nodes = [node("Add", ["x", "k"], ["y"])];
  const model = handModel({ opset: 13, inputs: { x: [2] }, outputs: ["y"], nodes, weights: { k: w([2], [3, 4]) } });
  const memory = new ArrayBuffer(model.length + 8);
  for (let at = 0; at < 4; at++) {
    const bytes = Buffer.from(memory, at, model.length);
    bytes.set(model);
    const module = importOnnx(bytes as Uint8Array<ArrayBuffer>);
    assert.deepEqual([...initialWeights(module, 0).get("k")!], [3, 4]);
  }
  assert.throws(() => importOnnx(memory as never), /importOnnx takes the bytes of a file[\s\S]*new Uint8Array/);
});

test("pictures of bfloat16 come as float32 too", async () => {
  const model = handModel({
    opset: 22,
    inputs: { x: ["N", 2] },
    inputTypes: { x: "bfloat16" },
    outputs: ["y"],
    weights: { k: w([2, 1], [1, 2], "bfloat16") },
    nodes: [node("MatMul", ["x", "k"], ["y"])],
  });
  const module = importOnnx(model);
  const graph = bindWeights(module.graph(), module, initialWeights(module, 0));
  const { y } = await runGraph(graph, { x: { dtype: "float32", shape: [1, 2], data: Float32Array.of(3, 4) } });
  assert.deepEqual(numbers(y), [11]);
});

test("an axis of -1, as some exporters write, is open", () => {
  const nodes = [node("Relu", ["x"], ["y"])];
  const graph = importOnnx(handModel({ opset: 13, inputs: { x: [-1, 3] }, outputs: ["y"], nodes })).graph();
  assert.deepEqual(bindShape(graph.outputs.get("y")!.shape, 5), [5, 3]);
});

test("what cannot be drawn for another batch says so, however its nodes are named", () => {
  const model = handModel({
    opset: 13,
    inputs: { x: [2, 3] },
    outputs: ["y"],
    weights: { k: w([2, 3], [1, 2, 3, 4, 5, 6]) },
    nodes: [{ ...node("Add", ["x", "k"], ["y"]), name: "node_add_1" }],
  });
  assert.throws(() => importOnnx(model).graph({ batch: 3 }), /node_add_1[\s\S]*exported for 2 images at once/);
});

test("half precision is computed in float32, other axes are asked for by name", async () => {
  const model = handModel({
    opset: 17,
    inputs: { x: ["N", "width"] },
    inputTypes: { x: "float16" },
    outputs: ["y"],
    weights: { k: w([4, 2], [1, 2, 3, 4, 5, 6, 7, 0.5], "float16") },
    nodes: [node("MatMul", ["x", "k"], ["y"])],
  });
  const module = importOnnx(model);
  assert.throws(() => module.graph(), /open axes width.*\n.*sizes: \{ sizes: \{ "width": 224 \} \}/);
  const graph = bindWeights(module.graph({ sizes: { width: 4 } }), module, initialWeights(module, 0));
  const { y } = await runGraph(graph, {
    x: as({ dtype: "float32", shape: [1, 4], data: Float32Array.of(1, 1, 1, 1) }, "float32"),
  });
  assert.deepEqual(numbers(y), [16, 12.5]);
  assert.deepEqual(
    weightsOf(module).map(({ path, kind }) => [path, kind]),
    [["k", "parameter"]],
  );
});

test("masks and what prepares a picture are no parameters; statistics are buffers", () => {
  const mask = Array.from({ length: 16 }, (_, i) => (i % 3 === 0 ? -100 : 0));
  const module = importOnnx(
    handModel({
      opset: 17,
      inputs: { image: ["N", 3, 4, 4] },
      outputs: ["y"],
      weights: {
        mean: w([1, 3, 1, 1], [0.5, 0.5, 0.5]),
        k: noise([3, 3, 1, 1]),
        g: noise([3]),
        b: noise([3]),
        m: noise([3]),
        v: w([3], [1, 1, 1]),
        mask: w([1, 4, 4], mask),
      },
      nodes: [
        node("Sub", ["image", "mean"], ["centred"]),
        node("Conv", ["centred", "k"], ["c"]),
        node("BatchNormalization", ["c", "g", "b", "m", "v"], ["n"]),
        node("Add", ["n", "mask"], ["y"]),
      ],
    }),
  );
  assert.deepEqual(Object.fromEntries(weightsOf(module).map(({ path, kind }) => [path, kind])), {
    mean: "buffer",
    k: "parameter",
    g: "parameter",
    b: "parameter",
    m: "buffer",
    v: "buffer",
    mask: "buffer",
  });
});

test("names of layers do not grow from one reading to the next", () => {
  const x = input([2, 3]);
  const y = withScope("layers.0", () => x.exp().mul(x)).sum([1]);
  const again = (bytes: Uint8Array<ArrayBuffer>) => writeOnnx(importOnnx(bytes).graph());
  const module = importOnnx(writeOnnx(new Graph([["x", x]], [["y", y]])));
  assert.equal(module.graph().nodes.find(({ op }) => op.name === "Mul")?.scope, "layers.0");
  const once = writeOnnx(module.graph());
  assert.deepEqual(again(once), once);
});

test("weights keep their names, and large ones may lie in a file beside the model", () => {
  const x = input([new OpenDim("N"), 4]);
  const weight = constant(
    Float32Array.from({ length: 4 * 300 }, (_, i) => i),
    [4, 300],
    "float32",
    "head.weight",
  );
  const bias = constant(new Float32Array(300), [300], "float32", "head.bias");
  const graph = new Graph([["x", x]], [["y", x.matmul(weight).add(bias)]]);
  const whole = readModel(writeOnnx(graph));
  assert.deepEqual([...whole.graph.initializers.keys()], ["head.weight", "head.bias"]);
  const { model, data } = writeOnnxParts(graph, { location: "weights.bin" });
  const apart = readModel(model);
  const { external, shape } = apart.graph.initializers.get("head.bias")!;
  // Each begins where a page of memory does.
  assert.deepEqual([external, shape], [{ location: "weights.bin", offset: 8192, length: 1200 }, [300]]);
  assert.equal(
    data.reduce((sum, part) => sum + part.length, 0),
    8192 + 1200,
  );
  assert.throws(
    () => importOnnx(model).graph().nodes.length && initialWeights(importOnnx(model), 0),
    /lie in weights.bin/,
  );
});
