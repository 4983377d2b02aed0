import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  createReadStream,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { OrielError } from "../../src/base/errors.ts";
import { fileSource } from "../../src/weights/file-source.ts";
import { SafetensorsFile } from "../../src/weights/safetensors.ts";
import { saveSafetensors } from "../../src/weights/save-safetensors.ts";
import { writeFileSafely } from "../../src/weights/write-file.ts";

const folder = mkdtempSync(join(tmpdir(), "oriel-save-"));
after(() => rmSync(folder, { recursive: true }));

const tensors = (value: number, count = 4) =>
  [
    ["weight", { dtype: "F32", shape: [count], data: new Uint8Array(new Float32Array(count).fill(value).buffer) }],
  ] as const;

async function firstValue(path: string): Promise<number> {
  const source = await fileSource(path);
  try {
    return (await (await SafetensorsFile.open(source)).readFloat32("weight"))[0];
  } finally {
    await source.close();
  }
}

test("a save replaces the file and leaves nothing beside it", async () => {
  const path = join(folder, "replaced.safetensors");
  await saveSafetensors(path, tensors(1));
  const open = await fileSource(path);
  await saveSafetensors(path, tensors(2), { step: "2" });
  assert.equal(await firstValue(path), 2);
  // Who had the old file open still reads the old one.
  assert.equal((await (await SafetensorsFile.open(open)).readFloat32("weight"))[0], 1);
  await open.close();
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.startsWith("replaced")),
    ["replaced.safetensors"],
  );
});

test("saves to one path take turns", async () => {
  const path = join(folder, "turns.safetensors");
  await Promise.all([1, 2, 3].map((value) => saveSafetensors(path, tensors(value, 100_000))));
  assert.equal(await firstValue(path), 3);
});

const noFullDevice = existsSync("/dev/full") ? false : "this system has no /dev/full";
test("a full disk leaves the previous file and says so", { skip: noFullDevice }, async () => {
  const path = join(folder, "full.safetensors");
  await saveSafetensors(path, tensors(1));
  symlinkSync("/dev/full", `${path}.part`); // every write there fails as on a full disk
  await assert.rejects(saveSafetensors(path, tensors(2)), (error) => {
    assert.ok(error instanceof OrielError && error.code === "not-saved");
    assert.match(error.message, /no space left while saving .*full\.safetensors; a previous file there is untouched/);
    return true;
  });
  assert.equal(await firstValue(path), 1);
  assert.equal(existsSync(`${path}.part`), false);
  await saveSafetensors(path, tensors(3));
  assert.equal(await firstValue(path), 3);
});

test("a file that is first written elsewhere is named by its place", { skip: noFullDevice }, async () => {
  const [elsewhere, place] = [join(folder, "checking.onnx"), join(folder, "model.onnx")];
  symlinkSync("/dev/full", `${elsewhere}.part`);
  await assert.rejects(
    writeFileSafely(elsewhere, [Uint8Array.of(1)], place),
    /no space left while saving .*model\.onnx;/,
  );
});

test("a folder that is not there is named", async () => {
  const path = join(folder, "missing", "a.safetensors");
  await assert.rejects(saveSafetensors(path, tensors(1)), /the folder does not exist while saving .*missing/);
});

const noFifo = process.platform === "win32" ? "no named pipes in folders on Windows" : false;
test("a kill in the middle of a save leaves the previous file", { skip: noFifo, timeout: 60_000 }, async () => {
  const path = join(folder, "killed.safetensors");
  await saveSafetensors(path, tensors(1));
  // A pipe in the temporary file's place stops the child when some bytes are written and before the rest.
  execFileSync("mkfifo", [`${path}.part`]);
  const module = new URL("../../src/weights/save-safetensors.js", import.meta.url).href;
  const child = spawn(process.execPath, [
    "--input-type=module",
    "-e",
    `import { saveSafetensors } from ${JSON.stringify(module)};
     await saveSafetensors(${JSON.stringify(path)}, [["weight", { dtype: "U8", shape: [2 ** 24], data: new Uint8Array(2 ** 24) }]]);`,
  ]);
  const exited = once(child, "exit");
  const pipe = createReadStream(`${path}.part`);
  await once(pipe, "data");
  child.kill("SIGKILL");
  assert.deepEqual(await exited, [null, "SIGKILL"]);
  pipe.destroy();
  assert.equal(await firstValue(path), 1);
  // What a kill leaves behind is replaced by the next save.
  rmSync(`${path}.part`);
  writeFileSync(`${path}.part`, "half a file");
  await saveSafetensors(path, tensors(2));
  assert.equal(await firstValue(path), 2);
  assert.equal(existsSync(`${path}.part`), false);
});

test("a pipe is none, and is not waited for", { skip: noFifo, timeout: 10_000 }, async () => {
  const pipe = join(folder, "weights-pipe");
  execFileSync("mkfifo", [pipe]);
  await assert.rejects(fileSource(pipe), /expected a file/);
});

test("a file that is not there, or is none, is named", async () => {
  await assert.rejects(fileSource(join(folder, "absent")), /no such file \(at .*absent\)/);
  await assert.rejects(fileSource(folder), /expected a file, found a folder/);
});

test("the same save twice gives the same bytes", async () => {
  const paths = ["a", "b"].map((name) => join(folder, name));
  for (const path of paths) await saveSafetensors(path, tensors(1), { step: "1" });
  assert.deepEqual(readFileSync(paths[0]), readFileSync(paths[1]));
});
