import assert from "node:assert/strict";
import { readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { test } from "node:test";
import { findModel } from "../../../src/backbones/index.ts";
import { OrielError, UsageError } from "../../../src/base/errors.ts";
import { Graph } from "../../../src/graph/graph.ts";
import { readModel } from "../../../src/graph/onnx/model.ts";
import { writeOnnxParts } from "../../../src/graph/onnx/write.ts";
import { constant, input } from "../../../src/graph/tensor.ts";
import { Classifier } from "../../../src/tasks/classify.ts";
import { convert } from "../../../src/train/checkpoint/convert.ts";
import { loadWeights } from "../../../src/train/checkpoint/load-weights.ts";
import { fileSource } from "../../../src/weights/file-source.ts";
import { openOnnxModel } from "../../../src/weights/onnx-model.ts";
import { openWeights } from "../../../src/weights/open-node.ts";
import { SafetensorsFile } from "../../../src/weights/safetensors.ts";
import { saveSafetensors } from "../../../src/weights/save-safetensors.ts";
import { saveTorch } from "../../../src/weights/save-torch.ts";
import { byteLengthOf, type StoredDtype, type StoredTensor } from "../../../src/weights/stored.ts";
import { typedStorages, untypedDtypes } from "../../../src/weights/torch-names.ts";
import { sharedFile, temporaryFolder } from "../files.ts";

const home = temporaryFolder();
const torch = sharedFile("checkpoints/resnet20-12fca82f.th");
const detector = sharedFile("checkpoints/fastestdet.pth");
const onnx = sharedFile("checkpoints/fastestdet.onnx");
const at = (name: string): string => join(home, name);

/** Names, dtypes, shapes and bytes of a file, by name. */
async function contentOf(path: string): Promise<Map<string, unknown>> {
  const { tensors, close } = await openWeights(path);
  const found = new Map<string, unknown>();
  for (const [name, tensor] of tensors) {
    const { dtype, shape, data } = await tensor.read();
    found.set(name, { dtype, shape: [...shape], data: Buffer.from(data) });
  }
  await close();
  return found;
}

for (const { path, skip } of [torch, detector])
  test(`${basename(path)} to safetensors and back keeps every name and bit`, { skip }, async () => {
    const wanted = await contentOf(path);
    const made = await convert(path, at("there.safetensors"));
    assert.deepEqual([made.to, made.tensors], ["safetensors", wanted.size]);
    assert.deepEqual(await contentOf(at("there.safetensors")), wanted);
    assert.equal((await convert(at("there.safetensors"), at("back.pth"))).from, "safetensors");
    assert.deepEqual(await contentOf(at("back.pth")), wanted);
  });

test("every dtype that torch knows goes there and back", async () => {
  const dtypes = [...Object.keys(typedStorages), ...Object.keys(untypedDtypes)] as StoredDtype[];
  const tensors = dtypes.map((dtype, i): [string, StoredTensor] => {
    const data = Uint8Array.from({ length: byteLengthOf(dtype, [2, 3]) }, (_, k) => 37 * k + i);
    return [`a.${dtype}`, { dtype, shape: [2, 3], data }];
  });
  await saveTorch(at("all.pt"), [...tensors, ["none", { dtype: "F16", shape: [0, 4], data: new Uint8Array() }]]);
  await convert(at("all.pt"), at("all.safetensors"));
  await convert(at("all.safetensors"), at("again.bin"));
  const wanted = await contentOf(at("all.pt"));
  assert.equal(wanted.size, dtypes.length + 1);
  assert.deepEqual(wanted.get("a.BF16"), {
    dtype: "BF16",
    shape: [2, 3],
    data: Buffer.from(tensors[dtypes.indexOf("BF16")][1].data),
  });
  assert.deepEqual(await contentOf(at("all.safetensors")), wanted);
  assert.deepEqual(await contentOf(at("again.bin")), wanted);
});

test("an ONNX model's initialisers become safetensors and torch tensors under their names", {
  skip: onnx.skip,
}, async () => {
  await convert(onnx.path, at("detector.safetensors"));
  const { initializers } = readModel(new Uint8Array(readFileSync(onnx.path))).graph;
  const content = await contentOf(at("detector.safetensors"));
  assert.deepEqual([...content.keys()], [...initializers.keys()]);
  const source = await fileSource(at("detector.safetensors"));
  const file = await SafetensorsFile.open(source);
  assert.deepEqual(await file.readFloat32("onnx::Conv_760"), initializers.get("onnx::Conv_760")!.data);
  assert.equal(file.info("onnx::Reshape_439").dtype, "I64");
  await source.close?.();
  await convert(onnx.path, at("detector.pth"));
  assert.deepEqual(await contentOf(at("detector.pth")), content);
});

test("weights of a model that is known become ONNX, which gives them back", { skip: torch.skip }, async () => {
  await assert.rejects(convert(torch.path, at("resnet.onnx")), /do not say whose they are/);
  const made = await convert(torch.path, at("resnet.onnx"), { model: "resnet20_cifar" });
  assert.ok(made.difference! <= 1e-4);
  const theirs = await contentOf(torch.path);
  const ours = await contentOf(at("resnet.onnx"));
  assert.deepEqual(ours.get("conv1.weight"), theirs.get("module.conv1.weight"));

  const { create } = await findModel("resnet20_cifar");
  const deeper = await findModel("resnet32_cifar");
  const model = new Classifier(create(), 10);
  const [direct, through] = await Promise.all(
    [torch.path, at("resnet.onnx")].map((path) => loadWeights(path, model, { name: "resnet20_cifar" })),
  );
  assert.deepEqual(through.values, direct.values);
  assert.deepEqual(through.reset, []);
  await assert.rejects(
    loadWeights(at("resnet.onnx"), new Classifier(deeper.create(), 10), { name: "resnet32_cifar" }),
    /differ/,
  );
  await assert.rejects(convert(at("resnet.onnx"), at("b.onnx")), /ONNX model already/);
});

test("what cannot be done is said", async () => {
  await assert.rejects(convert("a.safetensors", at("b.txt")), UsageError);
  await assert.rejects(
    convert("a.safetensors", at("b.pth"), { model: "resnet20_cifar" }),
    /--model goes with an \.onnx/,
  );
  await assert.rejects(convert(at("none.pth"), at("b.safetensors")), /no such file/);
  await saveTorch(at("few.pth"), [["w", { dtype: "U8", shape: [1], data: Uint8Array.of(1) }]]);
  symlinkSync(at("few.pth"), at("same.safetensors"));
  await assert.rejects(convert(at("few.pth"), at("same.safetensors")), /is the one to read/);
  await saveSafetensors(at("small.safetensors"), [["w", { dtype: "F4", shape: [2], data: Uint8Array.of(1) }]]);
  await assert.rejects(convert(at("small.safetensors"), at("b.pth")), /torch files cannot hold/);
});

test("weights beside a model are read from its folder and nowhere else", async () => {
  const x = input([1, 4]);
  const weight = constant(new Float32Array(1200), [4, 300], "float32", "w");
  const graph = new Graph([["x", x]], [["y", x.matmul(weight)]]);
  const write = (name: string, location: string): void =>
    writeFileSync(at(name), writeOnnxParts(graph, { location }).model);
  writeFileSync(at("here.bin"), new Uint8Array(4800).fill(1));
  write("good.onnx", "here.bin");
  assert.equal((await openOnnxModel(at("good.onnx"))).graph.initializers.get("w")!.data!.length, 1200);
  symlinkSync("/etc", at("link"));
  for (const [location, message] of [
    ["../here.bin", /outside its folder/],
    ["/etc/passwd", /no relative path/],
    ["a/../../here.bin", /outside its folder/],
    ["C:\\weights.bin", /no relative path/],
    ["link/passwd", /leads outside its folder/],
    ["there.bin", /is not there/],
  ] as const) {
    write("bad.onnx", location);
    await assert.rejects(
      openOnnxModel(at("bad.onnx")),
      (error) => error instanceof OrielError && message.test(error.message),
    );
  }
  writeFileSync(at("short.bin"), new Uint8Array(100));
  write("short.onnx", "short.bin");
  await assert.rejects(openOnnxModel(at("short.onnx")), /truncated/);
});
