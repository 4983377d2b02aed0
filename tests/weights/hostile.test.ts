import assert from "node:assert/strict";
import { test } from "node:test";
import { OrielError } from "../../src/base/errors.ts";
import { unpickle } from "../../src/weights/pickle.ts";
import { SafetensorsFile } from "../../src/weights/safetensors.ts";
import { bytesSource } from "../../src/weights/source.ts";
import { readTorch } from "../../src/weights/torch.ts";
import { Storage, torchNames } from "../../src/weights/torch-names.ts";
import { crc32, zipParts } from "../../src/weights/write-zip.ts";
import { listZip } from "../../src/weights/zip.ts";

const codes = (...parts: (string | number[])[]) =>
  Uint8Array.from(parts.flatMap((part) => (typeof part === "string" ? [...part].map((c) => c.charCodeAt(0)) : part)));
const int32 = (value: number) => [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24];
const text = (value: string): (string | number[])[] => ["X", int32(value.length), value];

async function refused(work: Promise<unknown>, code: string, says: RegExp): Promise<void> {
  await assert.rejects(work, (error) => {
    assert.ok(error instanceof OrielError, (error as Error).stack);
    assert.equal(error.code, code, error.message);
    assert.match(error.message, says);
    return true;
  });
}

const load = async (bytes: Uint8Array) => unpickle(bytes, { names: torchNames, persistent: (id) => id });

// Each calls something that would do harm, by one of the ways that pickles have for it.
const attacks: [what: string, names: RegExp, ...pickle: (string | number[])[]][] = [
  ["a global", /os\.system/, [0x80, 2], "cos\nsystem\n(", ...text("id"), "tR."],
  ["its other name", /posix\.system/, [0x80, 2], "cposix\nsystem\n(", ...text("id"), "tR."],
  ["eval", /builtins\.eval/, [0x80, 2], "cbuiltins\neval\n(", ...text("1"), "tR."],
  ["exec of Python 2", /__builtin__\.exec/, [0x80, 2], "c__builtin__\nexec\n(", ...text("1"), "tR."],
  ["a process", /subprocess\.Popen/, [0x80, 2], "csubprocess\nPopen\n(", ...text("id"), "tR."],
  [
    "a name from the stack",
    /os\.system/,
    [0x80, 4],
    ...text("os"),
    ...text("system"),
    [0x93],
    ...text("id"),
    [0x85],
    "R.",
  ],
  ["a class made anew", /socket\.socket/, [0x80, 2], "csocket\nsocket\n)", [0x81], "."],
  ["a call in one opcode", /os\.system/, "(", ...text("id"), "ios\nsystem\n."],
  ["protocol 0", /os\.system/, "cos\nsystem\n(S'id'\ntR."],
  [
    "a name within a name",
    /torch\._utils\._rebuild_tensor\.__globals__/,
    [0x80, 4],
    ...text("torch._utils"),
    ...text("_rebuild_tensor.__globals__"),
    [0x93],
    ".",
  ],
  ["getattr", /builtins\.getattr/, [0x80, 2], "cbuiltins\ngetattr\n(ctorch\nTensor\n", ...text("__init__"), "tR."],
  ["torch's own loader", /torch\.load/, [0x80, 2], "ctorch\nload\n(", ...text("x"), "tR."],
  [
    "storage from bytes, a pickle in a pickle",
    /torch\.storage\._load_from_bytes/,
    [0x80, 2],
    "ctorch.storage\n_load_from_bytes\n(C",
    [1],
    "x",
    "tR.",
  ],
  ["a name as a key", /os\.system/, [0x80, 2], "}cos\nsystem\nNs."],
  ["a name set as state", /os\.system/, [0x80, 2], "cargparse\nNamespace\n)Rcos\nsystem\nb."],
  ["then broken off", /os\.system/, [0x80, 2], "cos\nsystem\n(X"],
];
for (const [what, names, ...pickle] of attacks)
  test(`pickles refused by name: ${what}`, () => refused(load(codes(...pickle)), "refused", names));

const tricks: [what: string, code: string, says: RegExp, ...pickle: (string | number[])[]][] = [
  ["a protocol to come", "malformed", /protocol 6; 2 to 5 are known/, [0x80, 6], "}."],
  ["an extension code", "malformed", /none that weights need/, [0x80, 2], [0x82, 1], "."],
  ["an integer of a gigabyte", "malformed", /an integer of 1073741824 bytes/, [0x80, 2], [0x8b], int32(2 ** 30), "."],
  ["text of four gigabytes", "truncated", /needs at least 4294967302 bytes/, [0x80, 2], "X", int32(2 ** 32 - 1), "."],
  ["bytes without end", "truncated", /truncated/, [0x80, 4], [0x8e, 255, 255, 255, 255, 255, 255, 255, 127], "."],
  [
    "what was never remembered",
    "malformed",
    /value 2147483648 was never remembered/,
    [0x80, 2],
    "j",
    int32(2 ** 31),
    ".",
  ],
  [
    "a list for a name",
    "malformed",
    /container stands where a name belongs/,
    [0x80, 4],
    "]",
    ...text("x"),
    [0x93],
    ".",
  ],
  ["pairs that are none", "malformed", /something else than pairs/, [0x80, 2], "ccollections\nOrderedDict\n(]NatR."],
  ["a call of text", "malformed", /cannot be called/, [0x80, 2], ...text("x"), ")R."],
];
for (const [what, code, says, ...pickle] of tricks)
  test(`pickles: ${what}`, () => refused(load(codes(...pickle)), code, says));

test("a tensor that is the negative or the conjugate of what is stored is refused, not read as that", () => {
  for (const builder of ["torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"]) {
    const dtype = builder.endsWith("3") ? [torchNames.get("torch.float32")] : [];
    const build = (marks: Map<string, boolean>) =>
      torchNames.get(builder)!.build!([new Storage("0", "F32", 0), 0, [2], [1], false, new Map(), ...dtype, marks]);
    build(new Map([["neg", false]]));
    assert.throws(
      () => build(new Map([["neg", true]])),
      /tensor \[2\] .* is the negative of what is stored.*resolve_neg/s,
    );
    assert.throws(() => build(new Map([["conj", true]])), /is the conjugate of what is stored/);
  }
});

test("a value is remembered at any index without room for those before it", async () => {
  const { value } = await load(codes([0x80, 2], "Nr", int32(2 ** 31), "0j", int32(2 ** 31), "."));
  assert.equal(value, null);
});

test("a pickle of a million nested lists is read or refused, not recursed into", async () => {
  const deep = codes([0x80, 2], "(".repeat(1_000_000), "l".repeat(1_000_000), ".");
  assert.ok(Array.isArray((await load(deep)).value));
  const nested = codes([0x80, 2], "]", "(".repeat(1000), "l".repeat(1000), "a", ".");
  const file = codes([0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e]);
  const whole = Uint8Array.from([
    ...file,
    ...codes([0x80, 2], "M", [0xe9, 3], "."),
    ...codes([0x80, 2], "}."),
    ...nested,
    ...codes([0x80, 2], "]."),
  ]);
  await refused(readTorch(bytesSource(whole, "deep.pth")), "malformed", /nested more than 64 deep \(at deep\.pth\)/);
});

test("a memo that makes a long list of pairs a thousand times over comes to an end", async () => {
  // 100,000 pairs, then 1,000 dicts of them: 10⁸ entries from a pickle of a megabyte.
  const pair = codes("NN", [0x86]);
  const pairs = Uint8Array.from({ length: 100_000 * pair.length }, (_, i) => pair[i % pair.length]);
  const call = codes("ccollections\nOrderedDict\nh", [0], [0x85], "R");
  const calls = Uint8Array.from({ length: 1000 * call.length }, (_, i) => call[i % call.length]);
  const bomb = Uint8Array.from([...codes([0x80, 2], "("), ...pairs, ...codes("lq", [0]), ...calls, ...codes("l.")]);
  await refused(load(bomb), "malformed", /more than 10000000 steps/);
});

test("text that holds itself many times over is never joined", async () => {
  const folds = Array.from({ length: 60 }, (_, i) => ["(h", [i], "h", [i], "lq", [i + 1]]).flat();
  const pickle = codes([0x80, 2], "]q", [0], ...folds, "ctorch\ndevice\n(h", [60], "tR.");
  await refused(load(pickle), "malformed", /container stands where a name belongs/);
});

async function zipOf(entries: Record<string, string>): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  const content = Object.entries(entries).map(([name, value]) => {
    const bytes = new TextEncoder().encode(value);
    return { name, size: bytes.length, content: async () => bytes };
  });
  for await (const part of zipParts(content)) parts.push(part);
  return Uint8Array.from(Buffer.concat(parts));
}

/** A copy with numbers written over it, counted from the first place of a signature. */
function patched(bytes: Uint8Array, signature: string, changes: Record<number, number>, skip = 0): Uint8Array {
  const copy = bytes.slice();
  let at = -1;
  for (let i = 0; i <= skip; i++) at = Buffer.from(copy.buffer).indexOf(signature, at + 1, "latin1");
  for (const [offset, value] of Object.entries(changes)) copy.set(int32(value), at + Number(offset));
  return copy;
}
const entry = "PK\u0001\u0002";
const end = "PK\u0005\u0006";

test("zip entries that would leave their place are refused by name", async () => {
  for (const name of ["a/../../etc/passwd", "../x", "/etc/passwd", "C:\\x", "a\\..\\b", "..", "a\0b"])
    await refused(
      listZip(bytesSource(await zipOf({ "a/data.pkl": "", [name]: "x" }))),
      "malformed",
      /would lie outside of it/,
    );
  assert.deepEqual([...(await listZip(bytesSource(await zipOf({ "a/..b/c": "x" })))).keys()], ["a/..b/c"]);
});

test("zip directories that lie are refused", async () => {
  const zip = await zipOf({ "a/data.pkl": "1".repeat(100), "a/data/0": "2".repeat(100) });
  const list = (bytes: Uint8Array) => listZip(bytesSource(bytes, "a.zip"));
  assert.equal((await list(zip)).size, 2);
  const cases: [Uint8Array, string, RegExp][] = [
    [patched(zip, entry, { 42: 0 }, 1), "malformed", /entries .* overlap at byte 0/],
    [patched(zip, entry, { 20: 2 ** 30, 24: 2 ** 30 }, 1), "malformed", /reaches into the directory/],
    [patched(zip, entry, { 24: 2 ** 30 }), "malformed", /of 1073741824 bytes is stored in 100/],
    [patched(zip, entry, { 42: 2 ** 32 - 1 }, 1), "malformed", /reaches into the directory|directory is damaged/],
    [patched(zip, end, { 12: 2 ** 29 }), "malformed", /directory claims 536870912 bytes/],
    [patched(zip, end, { 16: 2 ** 31 }), "truncated", /expected at least/],
    [patched(zip, end, { 12: 2 ** 32 - 1 }), "malformed", /64-bit directory is missing/],
    [patched(zip, entry, { 8: 1 }), "malformed", /is encrypted/],
  ];
  for (const [bytes, code, says] of cases) await refused(list(bytes), code, says);
  assert.equal((await list(await zipOf({}))).size, 0);
  const twice = await zipOf({ "a/x1": "1", "a/x2": "2" });
  const same = patched(twice, "a/x2", { 0: 0x31782f61 });
  await refused(list(patched(same, "a/x2", { 0: 0x31782f61 })), "malformed", /two entries are named "a\/x1"/);
});

test("a compressed entry, which could unfold without bound, is refused by name", async () => {
  const zip = patched(await zipOf({ "a/data.pkl": "x".repeat(100) }), entry, { 8: 0x80000 });
  await refused(readTorch(bytesSource(zip, "bomb.pth")), "unsupported", /"a\/data\.pkl" is compressed.*bomb\.pth/s);
});

test("a zip's checksums are those of everybody", () => {
  assert.equal(crc32(new TextEncoder().encode("123456789")), 0xcbf43926); // the check value of CRC-32
});

const safetensors = (header: string, length = BigInt(new TextEncoder().encode(header).length), data = 0) => {
  const bytes = new Uint8Array(8 + header.length + data);
  new DataView(bytes.buffer).setBigUint64(0, length, true);
  bytes.set(new TextEncoder().encode(header), 8);
  return SafetensorsFile.open(bytesSource(bytes, "a.safetensors"));
};
const described = (shape: string, offsets: string, dtype = "F32") =>
  `{"a":{"dtype":"${dtype}","shape":${shape},"data_offsets":${offsets}}}`;

test("safetensors headers that overflow are refused", async () => {
  const cases: [Promise<unknown>, string, RegExp][] = [
    [safetensors("{}", 2n ** 64n - 1n), "malformed", /header claims 18446744073709552000 bytes/],
    [safetensors("{}", 2n ** 53n), "malformed", /header claims/],
    [safetensors("{}", 99_999_999n), "truncated", /expected at least/],
    [safetensors(described("[4294967296,4294967296]", "[0,0]")), "malformed", /needs 73786976294838210000 bytes/],
    [safetensors(described("[9007199254740993]", "[0,4]"), undefined, 4), "malformed", /has shape/],
    [safetensors(described("[1e308,1e308,0]", "[0,0]")), "malformed", /has shape/],
    [safetensors(described("[1]", "[0,18446744073709551616]")), "malformed", /has offsets/],
    [safetensors(described("[1]", "[-4,0]")), "malformed", /has offsets/],
    [safetensors(described("[1.5]", "[0,6]"), undefined, 6), "malformed", /has shape/],
    [safetensors(described("[3]", "[0,1]", "F4"), undefined, 1), "malformed", /needs 1\.5 bytes/],
    [safetensors(`{"a":${"[".repeat(100_000)}`), "malformed", /nested deeper/],
  ];
  for (const [work, code, says] of cases) await refused(work, code, says);
});
