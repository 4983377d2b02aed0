import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { OrielError } from "../../src/base/errors.ts";
import { fileSource } from "../../src/weights/file-source.ts";
import { bytesSource } from "../../src/weights/source.ts";
import { type StoredTensor, toFloat32 } from "../../src/weights/stored.ts";
import { openTorch, readTorch } from "../../src/weights/torch.ts";
import { madeFile, sharedCheckpoint } from "./files.ts";

/** [dtype, shape, first digits of the sha256 of the bytes, sum] as PyTorch reads it; see files/make.py. */
type Described = Record<string, [dtype: string, shape: number[], digest: string, sum: number]>;
const expected: Record<string, Described> = JSON.parse(readFileSync(madeFile("expected.json"), "utf8"));

const dtypes: Record<string, string> = {
  float32: "F32",
  float64: "F64",
  float16: "F16",
  bfloat16: "BF16",
  int64: "I64",
  int32: "I32",
  int16: "I16",
  int8: "I8",
  uint8: "U8",
  bool: "BOOL",
  float8_e4m3fn: "F8_E4M3",
  float8_e5m2: "F8_E5M2",
  float8_e4m3fnuz: "F8_E4M3FNUZ",
  float8_e5m2fnuz: "F8_E5M2FNUZ",
  float8_e8m0fnu: "F8_E8M0",
  uint16: "U16",
  uint32: "U32",
  uint64: "U64",
  complex64: "C64",
};

function assertSame(tensors: ReadonlyMap<string, StoredTensor>, described: Described): void {
  assert.deepEqual([...tensors.keys()], Object.keys(described));
  for (const [name, [dtype, shape, digest, sum]] of Object.entries(described)) {
    const tensor = tensors.get(name)!;
    assert.deepEqual([tensor.dtype, tensor.shape], [dtypes[dtype], shape], name);
    assert.equal(createHash("sha256").update(tensor.data).digest("hex").slice(0, 16), digest, name);
    // Sums are of finite values; complex ones have none.
    const values = tensor.dtype === "C64" ? [] : [...toFloat32(tensor)];
    const found = values.reduce((total, value) => total + (Number.isFinite(value) ? value : 0), 0);
    assert.ok(Math.abs(found - sum) <= 1e-4 * (1 + Math.abs(sum)), `${name}: sums to ${found}, not ${sum}`);
  }
}

const bytesOf = (name: string) => new Uint8Array(readFileSync(madeFile(name)));
const read = (bytes: Uint8Array, options?: { key?: string }) => readTorch(bytesSource(bytes, "a.pth"), options);

for (const name of ["zip", "zip-protocol4", "legacy", "legacy-protocol5"])
  test(`${name}: every tensor is as PyTorch reads it`, async () => {
    const file = await read(bytesOf(`${name}.pth`));
    assertSame(file.tensors, expected.made);
    assert.equal(file.format, name.split("-")[0]);
    assert.deepEqual([file.path, file.others], [["model"], ["optimizer"]]);
    assert.deepEqual(
      [...file.facts],
      [
        ["epoch", 3],
        ["arch", "tiny"],
        ["best", 0.5],
      ],
    );
  });

for (const name of ["kinds", "kinds-legacy"])
  test(`${name}: dtypes of torch 2, each code of 8-bit floats, and tensors with attributes are as PyTorch reads them`, async () => {
    const file = await read(bytesOf(`${name}.pth`));
    assertSame(file.tensors, expected.kinds);
    assert.deepEqual([file.path, [...file.facts]], [["ema"], [["epoch", 1]]]);
    for (const [dtype, [digest]] of Object.entries(expected.float32)) {
      const values = toFloat32(file.tensors.get(dtype)!).map((value) => (Number.isNaN(value) ? -1.5 : value));
      assert.equal(createHash("sha256").update(values).digest("hex").slice(0, 16), digest, dtype);
    }
  });

for (const name of ["resnet20-12fca82f.th", "fastestdet.pth"]) {
  const { path, skip } = sharedCheckpoint(name);
  test(`${name}: every tensor is as PyTorch reads it`, { skip }, async () => {
    const source = await fileSource(path);
    assertSame((await readTorch(source)).tensors, expected[name]);
    await source.close();
  });
}

test("tensors of one storage share its bytes", async () => {
  const { tensors } = await read(bytesOf("zip.pth"));
  assert.equal(tensors.get("row")!.data.buffer, tensors.get("plain")!.data.buffer);
});

test("a file in a Buffer of Node gives what its bytes give, for tensors that do not lie row by row too", async () => {
  for (const name of ["zip.pth", "legacy.pth"]) {
    const bytes = bytesOf(name);
    const buffer = Buffer.from(new ArrayBuffer(bytes.length + 3), 3, bytes.length);
    buffer.set(bytes);
    const [plain, same] = [await read(bytes), await read(buffer)];
    for (const [tensor, { data }] of plain.tensors)
      assert.deepEqual(Uint8Array.from(same.tensors.get(tensor)!.data), Uint8Array.from(data), `${name}: ${tensor}`);
  }
});

test("a key chooses another entry", async () => {
  const { tensors, path } = await read(bytesOf("zip.pth"), { key: "optimizer" });
  assert.deepEqual([[...tensors.keys()], path], [["state.0.momentum"], ["optimizer"]]);
  await assert.rejects(
    read(bytesOf("zip.pth"), { key: "ema" }),
    /no tensors under "ema"; there are some under: model, optimizer/,
  );
});

test("of several weights the teacher's are taken; a key of entries and names chooses others", async () => {
  const chosen = async (key?: string) => {
    const { tensors, path, others } = await openTorch(bytesSource(bytesOf("wrapped.pth")), { key });
    return [[...tensors.keys()], path, others];
  };
  assert.deepEqual(await chosen(), [["module.backbone.a", "module.head.b"], ["teacher"], ["student", "state_dict"]]);
  assert.deepEqual(await chosen("student"), [["backbone.a", "head.b"], ["student"], ["teacher", "state_dict"]]);
  assert.deepEqual((await chosen("teacher.module.backbone")).slice(0, 2), [["a"], ["teacher", "module", "backbone"]]);
  assert.deepEqual((await chosen("state_dict.model")).slice(0, 2), [["a"], ["state_dict", "model"]]);
  const { tensors } = await readTorch(bytesSource(bytesOf("wrapped.pth")));
  assert.deepEqual([...tensors.keys()], ["backbone.a", "head.b"]);
});

/** A legacy file whose contents are the given pickle, with no storages. */
function legacyOf(...contents: (string | number[])[]): Uint8Array {
  const codes = (text: string) => [...text].map((letter) => letter.charCodeAt(0));
  const magic = [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e];
  const version = [0x80, 2, ...codes("M"), 0xe9, 3, 0x2e];
  const machine = [0x80, 2, ...codes("}.")];
  const body = contents.flatMap((part) => (typeof part === "string" ? codes(part) : part));
  return Uint8Array.from([...magic, ...version, ...machine, 0x80, 2, ...body, 0x2e, 0x80, 2, ...codes("].")]);
}
const text = (value: string): (string | number[])[] => ["X", [value.length, 0, 0, 0], value];
const tensor = (shape: number[], strides: number[]) => [
  "ctorch._utils\n_rebuild_tensor\n((",
  ...text("storage"),
  "ctorch\nFloatStorage\n",
  ...text("0"),
  ...text("cpu"),
  [0x4b, 1, 0x4e],
  "tQ",
  [0x4b, 0],
  "(",
  ...shape.map((size) => [0x4b, size]),
  "t(",
  ...strides.map((size) => [0x4b, size]),
  "ttR",
];

test("a call that would run a command is named and refused, with every other", async () => {
  const attack = legacyOf("cos\nsystem\n(", ...text("rm -rf /"), "tR0cbuiltins\neval\n(", ...text("1"), "tR");
  await assert.rejects(read(attack), (error) => {
    assert.ok(error instanceof OrielError && error.code === "refused");
    assert.deepEqual(error.facts.details, ["os.system", "builtins.eval"]);
    assert.match(error.message, /nothing of it was executed \(at a\.pth\)/);
    return true;
  });
});

test("a pickled module is refused with the mend", () =>
  assert.rejects(read(bytesOf("module.pth")), /torch\.nn\.modules\.linear\.Linear.*save `model\.state_dict\(\)`/s));

const malformed: [name: string, bytes: Uint8Array, says: RegExp][] = [
  ["empty", new Uint8Array(), /not a torch file: it looks like an empty file/],
  ["safetensors", bytesOf("reference.safetensors"), /not a torch file/],
  ["a zip cut short", bytesOf("zip.pth").slice(0, -100), /truncated: a zip archive ends with its directory/],
  ["a storage cut short", bytesOf("legacy.pth").slice(0, -8), /truncated: expected at least \d+ bytes, found \d+/],
  ["no tensors", legacyOf("}"), /holds no tensors/],
  ["a list within itself", legacyOf("]q", [0], "h", [0], "a"), /holds no tensors/],
  ["a storage that is missing", legacyOf(...tensor([1], [1])), /storage 0 is missing/],
  ["a wrapping that wraps itself", legacyOf("}q", [0], ...text("model"), "h", [0], "s"), /holds no tensors/],
  [
    "the same with a tensor beside it",
    legacyOf("}q", [0], ...text("model"), "h", [0], "s", ...text("x"), ...tensor([1], [1]), "s"),
    /storage 0 is missing/,
  ],
  ["an unknown opcode", legacyOf("S'x'\n"), /opcode "S" is none that weights need, at byte 27/],
  ["strides for other axes", legacyOf(...tensor([2, 2], [1])), /a tensor's description makes no sense/],
  ["values for no container", legacyOf("NNa"), /items for something that is no container/],
  ["an empty stack", legacyOf("0"), /there is no mark/],
];
for (const [name, bytes, says] of malformed)
  test(`malformed: ${name}`, () =>
    assert.rejects(
      read(bytes),
      (error) => error instanceof OrielError && says.test(error.message) && error.message.includes("a.pth"),
    ));

test("a pickle of a few bytes that unfolds to millions is read in no time", async () => {
  const bomb = ["]q", [0], ...Array.from({ length: 40 }, (_, i) => ["(h", [i], "h", [i], "lq", [i + 1]]).flat()];
  await assert.rejects(read(legacyOf(...bomb)), /holds no tensors|nested/);
});

for (const name of ["zip.pth", "legacy.pth"])
  test(`${name}: no cut and no changed byte gives anything but an OrielError or tensors`, async () => {
    const attempt = async (bytes: Uint8Array) => {
      try {
        for (const tensor of (await read(bytes)).tensors.values()) toFloat32(tensor);
      } catch (error) {
        assert.ok(error instanceof OrielError, (error as Error).stack);
      }
    };
    const bytes = bytesOf(name);
    for (let length = 0; length < bytes.length; length += 7) await attempt(bytes.slice(0, length));
    for (let at = 0; at < bytes.length; at += 3) {
      const changed = bytes.slice();
      changed[at] ^= [1, 0x10, 0xff][at % 3];
      await attempt(changed);
    }
  });
