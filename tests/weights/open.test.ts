import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  closeSync,
  copyFileSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { OrielError, UsageError } from "../../src/base/errors.ts";
import { constant, Graph, input, writeOnnx } from "../../src/graph/index.ts";
import "../../src/ops/methods.ts";
import { openWeights as openInPage } from "../../src/weights/open.ts";
import { openWeights } from "../../src/weights/open-node.ts";
import { type NamedTensors, SafetensorsFile } from "../../src/weights/safetensors.ts";
import { saveSafetensors, saveShardedSafetensors } from "../../src/weights/save-safetensors.ts";
import { saveTorch } from "../../src/weights/save-torch.ts";
import { bytesSource } from "../../src/weights/source.ts";
import {
  byteLengthOf,
  dtypeBits,
  type FileTensor,
  type StoredDtype,
  type StoredTensor,
} from "../../src/weights/stored.ts";
import { typedStorages, untypedDtypes } from "../../src/weights/torch-names.ts";
import { fetchFile } from "../../src/weights/url-source.ts";
import { unwrapNames } from "../../src/weights/wrappings.ts";
import { madeFile, sharedCheckpoint } from "./files.ts";

const folder = mkdtempSync(join(tmpdir(), "oriel-open-"));
after(() => rmSync(folder, { recursive: true }));

/** A tensor of every dtype, with bytes of all kinds in it. */
const everyDtype = (Object.keys(dtypeBits) as StoredDtype[]).map((dtype, i): [string, StoredTensor] => {
  const length = byteLengthOf(dtype, [4, 2]);
  return [`t${i}.${dtype}`, { dtype, shape: [4, 2], data: Uint8Array.from({ length }, (_, j) => (j * 37 + i) & 255) }];
});

async function readAll(tensors: ReadonlyMap<string, FileTensor>): Promise<[string, StoredTensor][]> {
  const read: [string, StoredTensor][] = [];
  for (const [name, tensor] of tensors) {
    const { dtype, shape, data } = await tensor.read();
    read.push([name, { dtype, shape, data: Uint8Array.from(data) }]);
  }
  return read;
}

async function contentOf(path: string): Promise<[string, StoredTensor][]> {
  const file = await openWeights(path);
  try {
    return await readAll(file.tensors);
  } finally {
    await file.close();
  }
}

test("safetensors keeps every dtype bit for bit", async () => {
  const path = join(folder, "every.safetensors");
  await saveSafetensors(path, everyDtype, { licence: "mit" });
  const file = await openWeights(path);
  assert.deepEqual([file.format, file.files, file.metadata], ["safetensors", [path], { licence: "mit" }]);
  assert.deepEqual(await readAll(file.tensors), everyDtype);
  await file.close();
});

test("torch files keep every dtype that torch has, and names and order", async () => {
  const path = join(folder, "every.pt");
  const inTorch = everyDtype.filter(([, { dtype }]) => dtype in typedStorages || dtype in untypedDtypes);
  assert.equal(inTorch.length, everyDtype.length - 3);
  const odd: [string, StoredTensor][] = [
    ["7", { dtype: "F32", shape: [], data: new Uint8Array(4) }],
    ["é.leer", { dtype: "F16", shape: [0, 300], data: new Uint8Array() }],
    ["long", { dtype: "U8", shape: [70_000], data: new Uint8Array(70_000).fill(3) }],
  ];
  await saveTorch(path, [...inTorch, ...odd]);
  assert.deepEqual(await contentOf(path), [...inTorch, ...odd]);
  await assert.rejects(saveTorch(path, everyDtype), /"t1\.F4" is of dtype F4, which torch files cannot hold/);
  await assert.rejects(saveTorch(path, [odd[0], odd[0]]), /two tensors are named "7"/);
});

for (const name of ["resnet20-12fca82f.th", "fastestdet.pth"]) {
  const { path, skip } = sharedCheckpoint(name);
  test(`${name}: torch, safetensors, parts and torch again keep every bit`, { skip }, async () => {
    const original = await contentOf(path);
    const at = join(folder, name);
    mkdirSync(at);
    // Each is copied from the file before it, tensor by tensor.
    const copy = async (from: string, save: (tensors: NamedTensors) => Promise<unknown>) => {
      const file = await openWeights(from);
      await save(file.tensors);
      await file.close();
    };
    await copy(path, (tensors) => saveSafetensors(join(at, "one.safetensors"), tensors));
    let files: string[] = [];
    await copy(join(at, "one.safetensors"), async (tensors) => {
      files = await saveShardedSafetensors(join(at, "model.safetensors"), tensors, 300_000);
    });
    assert.ok(files.length > 3 && files.at(-1)!.endsWith("model.safetensors.index.json"));
    await copy(files.at(-1)!, (tensors) => saveTorch(join(at, "again.pth"), tensors));
    assert.deepEqual(await contentOf(join(at, "again.pth")), original);
  });
}

test("weights in parts open by the index, by the folder and by one part", async () => {
  const at = join(folder, "parts");
  mkdirSync(at);
  const files = await saveShardedSafetensors(join(at, "model.safetensors"), everyDtype, 100, { made: "here" });
  for (const path of [files.at(-1)!, at, files[1]]) {
    const file = await openWeights(path);
    assert.deepEqual(file.files, files.slice(0, -1));
    assert.deepEqual(file.metadata.made, "here");
    assert.deepEqual((await readAll(file.tensors)).sort(), [...everyDtype].sort());
    await file.close();
  }
  // What fits stays in one file.
  assert.deepEqual(await saveShardedSafetensors(join(at, "x.safetensors"), everyDtype, 1e6), [
    join(at, "x.safetensors"),
  ]);
});

test("parts that are missing, elsewhere or other than the index says are named", async () => {
  const at = join(folder, "bad-parts");
  mkdirSync(at);
  const [first, second, index] = await saveShardedSafetensors(join(at, "model.safetensors"), everyDtype.slice(0, 2), 8);
  const parts = everyDtype.slice(0, 2).map(([name], i) => [name, [first, second][i].slice(at.length + 1)]);
  const refuse = async (map: unknown, says: RegExp) => {
    writeFileSync(index, typeof map === "string" ? map : JSON.stringify({ weight_map: map }));
    await assert.rejects(openWeights(index), (error) => error instanceof OrielError && says.test(error.message));
  };
  await refuse({ ...Object.fromEntries(parts), gone: parts[0][1] }, /"gone" and 0 more are not in the files it names/);
  await refuse({ w: "../model.safetensors" }, /its file "\.\.\/model\.safetensors" would lie elsewhere/);
  await refuse({ w: "absent.safetensors" }, /no such file \(at .*absent\.safetensors\)/);
  await refuse({ w: 3 }, /"w" is in no file/);
  await refuse({}, /it names no files/);
  await refuse("[1]", /has no weight_map/);
  await refuse("{", /not an index of weights/);
  await refuse({ w: "model.safetensors.index.json" }, /an index alone holds no weights/);
  rmSync(index);
  rmSync(second);
  await assert.rejects(openWeights(join(at, "nothing")), /no such file/);
  assert.equal((await contentOf(at)).length, 1); // one part without its index is a file
});

test("a sparse model of 6 GB in two parts opens, and a tensor of it is read, in under 100 MB", () => {
  const at = join(folder, "large");
  mkdirSync(at);
  const rows = 750_000_000; // float32, 3 GB a part
  const weightMap: Record<string, string> = {};
  for (const part of [1, 2]) {
    const name = `model-0000${part}-of-00002.safetensors`;
    const small = 4 * rows;
    const header = JSON.stringify({
      [`large${part}`]: { dtype: "F32", shape: [rows], data_offsets: [0, small] },
      [`small${part}`]: { dtype: "F32", shape: [2], data_offsets: [small, small + 8] },
    }).padEnd(256);
    const fd = openSync(join(at, name), "w");
    writeSync(fd, Uint8Array.from([0, 1, 0, 0, 0, 0, 0, 0]));
    writeSync(fd, header);
    ftruncateSync(fd, 264 + small + 8);
    writeSync(fd, new Uint8Array(Float32Array.of(part, 0.5).buffer), 0, 8, 264 + small);
    closeSync(fd);
    for (const tensor of [`large${part}`, `small${part}`]) weightMap[tensor] = name;
  }
  writeFileSync(join(at, "model.safetensors.index.json"), JSON.stringify({ weight_map: weightMap }));
  // In a process of its own, whose peak is what counts.
  const module = new URL("../../src/weights/index.js", import.meta.url).href;
  const script = `
    import { openWeights, toFloat32 } from ${JSON.stringify(module)};
    const file = await openWeights(${JSON.stringify(at)});
    const values = toFloat32(await file.tensors.get("small2").read());
    const bytes = [...file.tensors.values()].reduce((sum, { shape }) => sum + 4 * shape[0], 0);
    console.log(JSON.stringify({ values: [...values], bytes, peak: process.resourceUsage().maxRSS * 1024 }));
    await file.close();`;
  const { values, bytes, peak } = JSON.parse(
    execFileSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" }),
  );
  assert.deepEqual([values, bytes], [[2, 0.5], 6_000_000_016]);
  assert.ok(peak < 100e6, `${peak} bytes at the peak`);
});

test("a page opens dropped files, alone or those of a model in parts", async () => {
  const at = join(folder, "dropped");
  mkdirSync(at);
  await saveShardedSafetensors(join(at, "model.safetensors"), everyDtype, 100);
  const files = readdirSync(at).map((name) => new File([readFileSync(join(at, name))], name));
  assert.equal((await openWeights(files)).tensors.size, everyDtype.length);
  const one = await openWeights(files[0]);
  assert.deepEqual([one.format, one.files], ["safetensors", [files[0].name]]);
  await assert.rejects(openWeights(files.slice(1)), /this file was not given \(at model-00001-of-/);
  assert.deepEqual((await openWeights(new Blob([readFileSync(madeFile("zip.pth"))]))).path, ["model"]);
});

const server = createServer((request, response) => {
  const name = request.url!.slice(1).split("?")[0];
  const content =
    name === "absent"
      ? undefined
      : readFileSync(join(folder, "served", decodeURIComponent(name).replace(/^(whole|cut)-/, "")), { flag: "r" });
  requests.push(request.headers.range ?? "whole");
  if (broken > 0) {
    broken--;
    return void response.writeHead(503).end();
  }
  if (!content) return void response.writeHead(404).end();
  const [, from, to] = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? "") ?? [];
  // Without its length, as of a server that compresses.
  if (name.startsWith("cut-")) {
    response.writeHead(200, { "content-length": content.length }).write(content.subarray(0, 1000));
    return void setTimeout(() => response.destroy(), 20);
  }
  if (!from || name.startsWith("whole-")) return void response.writeHead(200).end(content);
  const end = Math.min(Number(to) + 1, content.length);
  response.writeHead(206, { "content-range": `bytes ${from}-${end - 1}/${content.length}`, etag: `"${etag}"` });
  response.end(content.subarray(Number(from), end));
});
const requests: string[] = [];
let broken = 0;
let etag = "1";
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
after(() => server.close());
const address = (name: string) => `http://127.0.0.1:${(server.address() as AddressInfo).port}/${name}`;

test("an address is read by ranges, and again where that fails", async () => {
  const at = join(folder, "served");
  mkdirSync(at);
  const big = new Uint8Array(300_000).fill(5);
  const tensors: [string, StoredTensor][] = [["big", { dtype: "U8", shape: [300_000], data: big }], ...everyDtype];
  await saveSafetensors(join(at, "model.safetensors"), tensors);
  copyFileSync(madeFile("legacy.pth"), join(at, "legacy.pth"));
  broken = 1;
  const file = await openWeights(new URL(address("model.safetensors?token=secret")));
  assert.deepEqual(requests.splice(0), ["bytes=0-65535", "bytes=0-65535"]);
  assert.deepEqual((await file.tensors.get("big")!.read()).data, big);
  assert.equal(requests.splice(0).length, 1);
  assert.deepEqual(file.files, [address("model.safetensors")]); // nothing secret in messages
  etag = "2";
  await assert.rejects(file.tensors.get("big")!.read(), /the file was changed while it was read/);
  // A server that knows no ranges gives all of it.
  assert.equal((await openWeights(address("whole-model.safetensors"))).tensors.size, tensors.length);
  assert.equal((await openWeights(address("legacy.pth"))).format, "torch-legacy");
  // Names and shapes between large weights cost no request each.
  const x = input([4096]);
  const weights = Array.from({ length: 12 }, (_, i) => constant(new Float32Array(4096).fill(i), [4096], "float32"));
  writeFileSync(
    join(at, "model.onnx"),
    writeOnnx(new Graph([["x", x]], [["y", weights.reduce((a, b) => a.mul(b), x)]])),
  );
  requests.length = 0;
  assert.equal((await openWeights(address("model.onnx"))).tensors.size, weights.length);
  assert.ok(requests.length <= weights.length + 2, `${requests.length} requests`);
  await assert.rejects(
    fetchFile(address("cut-model.onnx"), { tries: 2, pause: 0.01 }),
    /the answer of 127\.0\.0\.1:\d+ broke off: .*cut-model\.onnx\)\n {2}help: .*try again/,
  );
  await assert.rejects(openWeights(address("absent")), /no such file \(at http:\/\/127\.0\.0\.1:\d+\/absent\)/);
});

test("a part is chosen by the beginning of its names", async () => {
  const path = join(folder, "prefixed.safetensors");
  const one = (value: number): StoredTensor => ({ dtype: "U8", shape: [1], data: Uint8Array.of(value) });
  await saveSafetensors(path, [
    ["module.backbone.w", one(1)],
    ["module.head.w", one(2)],
  ]);
  const part = await openWeights(path, { key: "module.backbone" });
  assert.deepEqual([...part.tensors.keys()], ["w"]);
  const torch = join(folder, "prefixed.pth");
  const whole = await openWeights(path);
  await saveTorch(torch, whole.tensors);
  await Promise.all([part.close(), whole.close()]);
  for (const file of [path, torch])
    await assert.rejects(
      openWeights(file, { key: "neck" }),
      (error) => error instanceof UsageError && /some under: module$/.test(error.message),
    );
  const names = (list: string[]) => [...unwrapNames(new Map(list.map((name) => [name, 0]))).keys()];
  assert.deepEqual(names(["module.backbone.a", "module.backbone.b"]), ["a", "b"]);
  assert.deepEqual(names(["_orig_mod.module.a"]), ["a"]);
  assert.deepEqual(names(["backbone.a", "head.b"]), ["backbone.a", "head.b"]);
  assert.deepEqual(names([]), []);
});

test("the front door of a page names nothing of Node's", async () => {
  const entry = fileURLToPath(new URL("../../src/weights/open.js", import.meta.url));
  const { errors } = await build({
    entryPoints: [entry],
    bundle: true,
    platform: "browser",
    write: false,
    logLevel: "silent",
  });
  assert.deepEqual(errors, []);
});

test("what is no weights is named", async () => {
  for (const none of ["model.safetensors", new Uint8Array(8), undefined])
    await assert.rejects(
      openInPage(none as unknown as Blob),
      /nothing that weights can be opened from\n {2}help: .*Node/,
    );
  const open = (content: string) => openWeights(bytesSource(new TextEncoder().encode(content.padEnd(64)), "x"));
  await assert.rejects(open("<!DOCTYPE html>"), /no weights that can be read here: it looks like a web page.*x/s);
  await assert.rejects(open("GGUF"), /looks like a GGUF file/);
  await assert.rejects(openWeights(folder), /there are (no|several files of) weights in it/);
});

const onnx = sharedCheckpoint("fastestdet.onnx");
test("an ONNX model's weights are listed and read without its nodes", { skip: onnx.skip }, async () => {
  const file = await openWeights(onnx.path);
  assert.deepEqual([file.format, file.tensors.size, file.metadata], ["onnx", 195, { producer: "pytorch" }]);
  const first = await file.tensors.get("onnx::Conv_760")!.read();
  assert.deepEqual([first.dtype, first.shape, first.data.byteLength], ["F32", [24, 3, 3, 3], 2592]);
  const bytes = Buffer.from(readFileSync(onnx.path));
  for (const [name, { data }] of await readAll(file.tensors)) assert.ok(bytes.includes(Buffer.from(data)), name);
  await file.close();
});

test("a safetensors file opened alone is the same through both doors", async () => {
  const bytes = Uint8Array.from(readFileSync(madeFile("reference.safetensors")));
  const own = await SafetensorsFile.open(bytesSource(bytes));
  const file = await openWeights(bytesSource(bytes));
  assert.deepEqual([...file.tensors.keys()], own.names);
  assert.deepEqual(file.metadata, own.metadata);
});
