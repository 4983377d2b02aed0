import assert from "node:assert/strict";
import { readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { OrielError, UsageError } from "../../src/base/errors.ts";
import { Graph } from "../../src/graph/graph.ts";
import { readModel } from "../../src/graph/onnx/model.ts";
import { writeOnnxParts } from "../../src/graph/onnx/write.ts";
import { constant, input } from "../../src/graph/tensor.ts";
import { convert } from "../../src/train/convert.ts";
import { fileSource } from "../../src/weights/file-source.ts";
import { openOnnxModel } from "../../src/weights/onnx-model.ts";
import { SafetensorsFile } from "../../src/weights/safetensors.ts";
import { readTorch } from "../../src/weights/torch.ts";
import { sharedFile, temporaryFolder } from "./files.ts";

const home = temporaryFolder();
const torch = sharedFile("checkpoints/resnet20-12fca82f.th");
const onnx = sharedFile("checkpoints/fastestdet.onnx");
const at = (name: string): string => join(home, name);

test("a torch file becomes safetensors, bit for bit", { skip: torch.skip }, async () => {
  const made = await convert(torch.path, at("resnet.safetensors"));
  const { tensors } = await readTorch(await fileSource(torch.path));
  assert.deepEqual([made.from, made.to, made.tensors], ["torch", "safetensors", tensors.size]);
  const file = await SafetensorsFile.open(await fileSource(at("resnet.safetensors")));
  assert.deepEqual(new Set(file.names), new Set(tensors.keys()));
  for (const [name, { dtype, shape, data }] of tensors) {
    const got = await file.read(name);
    assert.deepEqual([got.dtype, got.shape, Buffer.compare(got.data, data)], [dtype, [...shape], 0], name);
  }
});

test("an ONNX model's initialisers become safetensors under their names", { skip: onnx.skip }, async () => {
  await convert(onnx.path, at("detector.safetensors"));
  const { initializers } = readModel(new Uint8Array(readFileSync(onnx.path))).graph;
  const file = await SafetensorsFile.open(await fileSource(at("detector.safetensors")));
  assert.deepEqual(new Set(file.names), new Set(initializers.keys()));
  assert.deepEqual(await file.readFloat32("onnx::Conv_760"), initializers.get("onnx::Conv_760")!.data);
  assert.equal(file.info("onnx::Reshape_439").dtype, "I64");
});

test("weights of a model that is known become ONNX", { skip: torch.skip }, async () => {
  await assert.rejects(convert(torch.path, at("resnet.onnx")), /do not say whose they are/);
  const made = await convert(torch.path, at("resnet.onnx"), { model: "resnet20_cifar" });
  assert.ok(made.difference! <= 1e-4);
  const { initializers } = readModel(new Uint8Array(readFileSync(at("resnet.onnx")))).graph;
  const { tensors } = await readTorch(await fileSource(torch.path));
  const [conv] = [...tensors.keys()].filter((name) => name.endsWith("conv1.weight"));
  const [kernel] = [...initializers].filter(([name]) => conv.endsWith(name));
  assert.deepEqual(
    Buffer.from((kernel[1].data as Float32Array).buffer, (kernel[1].data as Float32Array).byteOffset, 432 * 4),
    Buffer.from(tensors.get(conv)!.data),
  );
});

test("what cannot be done is said", async () => {
  await assert.rejects(convert("a.safetensors", at("b.txt")), UsageError);
  await assert.rejects(convert("a.safetensors", at("b.pth")), /read here, not written/);
  await assert.rejects(convert(at("none.pth"), at("b.safetensors")), /no such file/);
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
