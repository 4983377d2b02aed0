import assert from "node:assert/strict";
import { test } from "node:test";
import { OrielError } from "../../src/base/errors.ts";
import { Graph } from "../../src/graph/graph.ts";
import { ProtoWriter } from "../../src/graph/onnx/proto.ts";
import { readMetadata } from "../../src/graph/onnx/read.ts";
import { writeOnnx } from "../../src/graph/onnx/write.ts";
import { OpenDim } from "../../src/graph/shape.ts";
import { input } from "../../src/graph/tensor.ts";
import { cast } from "../../src/ops/index.ts";

const image = input([new OpenDim("N"), 4, 3]);
const windows = image.reshape([-1, 2, 3]);
const model = writeOnnx(
  new Graph(
    [["image", image]],
    [
      ["windows", windows],
      ["labels", cast(image.sum([1, 2]), { to: "int32" })],
    ],
  ),
  { metadata: { labels: '["cat","dog"]', licence: "MIT, © a β" } },
);

test("what is written is read back", () => {
  assert.deepEqual(readMetadata(model), {
    producer: "oriel",
    irVersion: 10,
    opsets: { "": 21, "com.microsoft": 1 },
    metadata: { labels: '["cat","dog"]', licence: "MIT, © a β" },
    inputs: [{ name: "image", dtype: "float32", shape: [new OpenDim("N"), 4, 3] }],
    outputs: [
      { name: "windows", dtype: "float32", shape: [new OpenDim("N", 2), 2, 3] },
      { name: "labels", dtype: "int32", shape: [new OpenDim("N")] },
    ],
  });
});

/** A model as another exporter may write it: an axis without a name, and a weight among the inputs. */
function foreign(type: (t: ProtoWriter) => void): Uint8Array<ArrayBuffer> {
  const value = (v: ProtoWriter, name: string) => v.string(1, name).message(2, type);
  return new ProtoWriter()
    .int(1, 3)
    .message(8, (o) => o.int(2, 9))
    .message(7, (g) => {
      g.message(11, (v) => value(v, "x")).message(11, (v) => value(v, "weight"));
      g.message(5, (t) => t.string(8, "weight")).message(12, (v) => value(v, "y"));
    })
    .finish();
}

test("a model of another maker: weights are no inputs, axes without a name are open", () => {
  const tensor = (t: ProtoWriter) =>
    t.message(1, (x) => x.int(1, 1).message(2, (s) => s.message(1, () => {}).message(1, (d) => d.int(1, 3))));
  const { inputs, opsets, producer } = readMetadata(foreign(tensor));
  assert.deepEqual(inputs, [{ name: "x", dtype: "float32", shape: [new OpenDim("x.0"), 3] }]);
  assert.deepEqual([opsets, producer], [{ "": 9 }, ""]);
});

const refuses = (bytes: Uint8Array, message: RegExp): void => {
  assert.throws(
    () => readMetadata(Uint8Array.from(bytes), "model.onnx"),
    (error) =>
      error instanceof OrielError &&
      error.code === "onnx" &&
      message.test(error.message) &&
      error.facts.help !== undefined,
  );
};

test("files that are cut short or something else are told apart", () => {
  for (const length of [3, 20, model.length - 1])
    refuses(model.subarray(0, length), /the file is cut short.* \(at model\.onnx\)/);
  const png = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 13);
  const texts = [
    "<!DOCTYPE html><html></html>",
    "version https://git-lfs.github.com/spec/v1",
    '{"model": 1}',
    "PK\u0003\u0004",
  ];
  for (const bytes of [png, new Uint8Array(64), ...texts.map((text) => new TextEncoder().encode(text))])
    refuses(bytes, /is no ONNX model/);
  refuses(new TextEncoder().encode("<!DOCTYPE html>"), /is no ONNX model: it looks like a web page/);
  refuses(new Uint8Array(), /an empty file/);
  assert.throws(() => readMetadata(new ArrayBuffer(8) as never), /no model's bytes\n {2}help: .*new Uint8Array/);
  refuses(new ProtoWriter().int(1, 8).finish(), /it has no graph/);
});

test("what is no tensor is named", () => {
  refuses(
    foreign((t) => t.message(4, (s) => s.int(1, 1))),
    /"x" is no tensor/,
  );
});
