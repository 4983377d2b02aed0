import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { build } from "esbuild";
import { trainSchema } from "../src/train/run/config.ts";

// The package as people get it: packed, put into a project of their own, and used as README and examples say.

const repository = fileURLToPath(new URL("../..", import.meta.url));
const project = mkdtempSync(join(tmpdir(), "oriel-package-"));
after(() => rmSync(project, { recursive: true, force: true }));

const manifest = JSON.parse(readFileSync(join(repository, "package.json"), "utf8"));
const examples = readdirSync(join(repository, "examples")).filter((name) => name.endsWith(".ts"));
const readme = (language: string): string[] => {
  const blocks = new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``, "g");
  return [...readFileSync(join(repository, "README.md"), "utf8").matchAll(blocks)].map(([, code]) => code);
};
const blocks = readme("ts");

const run = (...words: string[]) =>
  promisify(execFile)(process.execPath, words, {
    cwd: project,
    env: { ...process.env, NO_COLOR: "1" },
    maxBuffer: 2 ** 24,
  });

before(() => {
  const npm = process.env.npm_execpath?.endsWith(".js") ? [process.execPath, process.env.npm_execpath] : ["npm"];
  const pack = [...npm.slice(1), "pack", "--pack-destination", project, "--ignore-scripts", "--silent"];
  const file = execFileSync(npm[0], pack, { cwd: repository, encoding: "utf8", shell: process.platform === "win32" })
    .trim()
    .split("\n")
    .at(-1)!;
  mkdirSync(join(project, "node_modules"));
  execFileSync("tar", ["-xzf", file], { cwd: project });
  cpSync(join(project, "package"), join(project, "node_modules", "oriel"), { recursive: true });
  for (const name of readdirSync(join(repository, "node_modules")))
    if (!name.startsWith("."))
      symlinkSync(join(repository, "node_modules", name), join(project, "node_modules", name), "junction");

  writeFileSync(join(project, "package.json"), JSON.stringify({ type: "module" }));
  // As strict as `tsc --init` makes a project.
  const strict = { strict: true, noUncheckedIndexedAccess: true, exactOptionalPropertyTypes: true };
  const compilerOptions = { ...strict, module: "NodeNext", target: "ES2023", types: ["node"], noEmitOnError: true };
  writeFileSync(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["*.ts"] }));
  for (const name of examples) cpSync(join(repository, "examples", name), join(project, name));
  blocks.forEach((code, i) => {
    writeFileSync(join(project, `readme-${i}.ts`), code);
  });
});

test("what is packed: no tests, no tools, the licence, nothing of this machine", () => {
  const packed = readdirSync(join(project, "node_modules", "oriel"), { recursive: true }).map(String);
  for (const name of ["LICENSE", "README.md", "package.json", join("dist", "src", "index.js"), join("src", "index.ts")])
    assert.ok(packed.includes(name), name);
  for (const name of packed) assert.doesNotMatch(name, /^(tests|tools|examples|bench|runs)\b|\.test\.|\.built/);
  const modules = (folder: string, ending: string): string[] =>
    packed
      .filter((name) => name.startsWith(join(folder, "/")) && name.endsWith(ending))
      .map((name) => name.slice(folder.length, -ending.length))
      .sort();
  assert.deepEqual(
    modules(join("dist", "src"), ".js"),
    modules("src", ".ts"),
    "`node tools/setup.js` removes what was built of sources that are gone",
  );
});

test("every entry point is there and loads", async () => {
  const own = join(project, "node_modules", "oriel");
  for (const [entry, target] of Object.entries(manifest.exports as Record<string, string>)) {
    if (entry.includes("*") || entry.endsWith(".json")) continue;
    assert.ok(existsSync(join(own, target)), `${entry} -> ${target}`);
    assert.ok(existsSync(join(own, target.replace(/\.js$/, ".d.ts"))), `types of ${entry}`);
    if (entry.endsWith("-worker")) continue; // it runs in a page alone
    const name = entry.replace(".", "oriel");
    const { stdout } = await run(
      "--input-type=module",
      "-e",
      `console.log(Object.keys(await import("${name}")).length)`,
    );
    assert.ok(Number(stdout) > 0 || entry === "./runtime", entry);
  }
});

test("editors are told what each option of train is for, and its default", () => {
  const declared = readFileSync(join(project, "node_modules/oriel/dist/src/train/run/config.d.ts"), "utf8");
  for (const [key, { description }] of Object.entries(trainSchema.shape))
    assert.ok(new RegExp(`/\\*\\* (.*) \\*/\n {4}${key}: `).exec(declared)?.[1].startsWith(`${description}`), key);
  assert.match(declared, / \(30\) \*\/\n {4}epochs: /);
});

test("README and examples compile against the package's types", async () => {
  const tsc = join(repository, "node_modules", "typescript", "bin", "tsc");
  await run(tsc, "-p", project).catch((error) => assert.fail(error.stdout));
});

test("transforms that draw random numbers can be given them", async () => {
  const code = `import { createImage } from "oriel";
    import { padAndCrop, Random } from "oriel/data";
    const view = padAndCrop(createImage(9, 7), 2, new Random(0, "crop"), [4, 6]);
    console.log(view.height, view.width);`;
  assert.equal((await run("--input-type=module", "-e", code)).stdout, "4 6\n");
});

test("a runtime needs no other import than a graph's", async () => {
  const code = `import { Graph, input } from "oriel/graph";
    import { openNode } from "oriel/node";
    const x = input([2, 3]);
    const runtime = await openNode();
    const program = await runtime.compile(new Graph([["x", x]], [["y", x]]));
    const { y } = await program.run({ x: { dtype: "float32", shape: [2, 3], data: Float32Array.of(1, 2, 3, 4, 5, 6) } });
    console.log(y.data.join());
    await runtime.close();`;
  assert.equal((await run("--input-type=module", "-e", code)).stdout, "1,2,3,4,5,6\n");
});

test("a library may export what it gets of ours: every type in it has a name", async () => {
  const folder = join(project, "declares");
  mkdirSync(folder);
  const source = `import { openNode } from "oriel/node";
    import { parseCsv } from "oriel/data";
    import { loadCheckpoint, openPredictor } from "oriel/train";
    export const read = async (path: string) => {
      const { metadata, tensors } = await loadCheckpoint(path);
      return { config: metadata.config, progress: metadata.progress, tensors };
    };
    export const logits = async (path: string) => (await openPredictor(path)).logits;
    export const [rows, open] = [parseCsv(""), openNode];`;
  writeFileSync(join(folder, "own.ts"), source);
  const compilerOptions = { module: "NodeNext", target: "ES2023", strict: true, types: ["node"], declaration: true };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["own.ts"] }));
  await run(join(repository, "node_modules", "typescript", "bin", "tsc"), "-p", folder).catch((error) =>
    assert.fail(error.stdout),
  );
});

test("types need no others than a project has: without the DOM in Node, without Node's in a page", async () => {
  const tsc = join(repository, "node_modules", "typescript", "bin", "tsc");
  const anywhere = Object.keys(manifest.exports).filter((entry) => !/[*]|json$/.test(entry));
  const inPage = anywhere.filter((entry) => !/(node|data|train|weights)$/.test(entry));
  const check = async (name: string, entries: readonly string[], lib: readonly string[], types: readonly string[]) => {
    const source = entries.map((entry) => `export type {} from "${entry.replace(".", "oriel")}";\n`).join("");
    const folder = join(project, name);
    mkdirSync(folder);
    writeFileSync(join(folder, "all.ts"), source);
    const compilerOptions = { module: "NodeNext", target: "ES2023", lib, types, strict: true, noEmit: true };
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["all.ts"] }));
    await run(tsc, "-p", folder).catch((error) => assert.fail(`${name}: ${error.stdout}`));
  };
  await check("node", anywhere, ["ES2023"], ["node"]);
  await check("page", inPage, ["ES2023", "DOM"], []);
});

test("`oriel` bundles for a page: no Node in it, and the arithmetic that tensors are given survives", async () => {
  const entry = `import { Classifier, cost, findModel, inferenceGraph } from "oriel";
    const { create } = await findModel("swin_micro_32");
    console.log(cost(inferenceGraph(new Classifier(create(), 10), 32)).macs);`;
  await build({
    stdin: { contents: entry, resolveDir: project },
    bundle: true,
    format: "esm",
    platform: "browser",
    minify: true,
    outfile: join(project, "bundle.mjs"),
  });
  assert.ok(Number((await run("bundle.mjs")).stdout) > 1e7);
});

test("README: a page that classifies, and one of a single family, have the types of a page alone and are small", async () => {
  const [page] = readme("js").filter((code) => code.includes("openWeb"));
  const folder = join(project, "classify");
  mkdirSync(folder);
  const typed = page.replace("(source)", "(source: File | HTMLCanvasElement | HTMLVideoElement | ImageData | URL)");
  assert.notEqual(typed, page);
  const family = `import { familyModels } from "oriel/backbones";
    import * as swin from "oriel/backbones/swin";
    export const names = familyModels(swin).map(({ name }) => name);`;
  writeFileSync(join(folder, "page.ts"), typed);
  writeFileSync(join(folder, "family.ts"), family);
  const compilerOptions = { module: "ESNext", moduleResolution: "bundler", target: "ES2023", types: [], noEmit: true };
  const strict = { strict: true, exactOptionalPropertyTypes: true, lib: ["ES2023", "DOM"] };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions: { ...compilerOptions, ...strict } }));
  const tsc = join(repository, "node_modules", "typescript", "bin", "tsc");
  await run(tsc, "-p", folder).catch((error) => assert.fail(error.stdout));
  const small = async (contents: string) => {
    const stdin = { contents, resolveDir: project };
    const { outputFiles } = await build({ stdin, bundle: true, format: "esm", minify: true, write: false });
    const { length } = outputFiles[0].contents;
    assert.ok(length < 80_000, `${length} bytes`);
  };
  await small(page);
  await small(family);
});

test("a server's bundle that swallowed the package says so", async () => {
  await build({
    stdin: { contents: `import { openNode } from "oriel/node"; await openNode();`, resolveDir: project },
    bundle: true,
    format: "esm",
    platform: "node",
    packages: "bundle",
    external: ["onnxruntime-node", "sharp"],
    outfile: join(project, "server.mjs"),
  });
  await assert.rejects(run("server.mjs"), /node-nursery\.js[\s\S]*help: .*keep oriel out of the bundle/);
});

test("the engine's scripts bundle by their names, where a bundler does not find them by itself", async () => {
  const names = ["wasm-worker", "webgpu-worker"];
  await build({
    stdin: { contents: names.map((name) => `import "oriel/${name}";`).join("\n"), resolveDir: project },
    bundle: true,
    format: "esm",
    outfile: join(project, "workers.js"),
  });
  const bundled = readFileSync(join(project, "workers.js"), "utf8");
  for (const device of ["wasm", "webgpu"]) assert.match(bundled, new RegExp(`\\bserve\\(\\w+, "${device}"\\)`));
});

test("README: every block runs, and the command is there", async () => {
  assert.ok(blocks.length >= 2);
  for (let i = 0; i < blocks.length; i++) assert.ok((await run(`readme-${i}.js`)).stdout.length > 0);
  const bin = join(project, "node_modules", "oriel", manifest.bin.oriel);
  assert.match((await run(bin, "models", "micro")).stdout, /swin_micro_32/);
});

test("the library example is the one in the README", () => {
  const [, example] = readFileSync(join(repository, "examples", "library.ts"), "utf8").split(/\*\/\n/);
  assert.ok(blocks.includes(example));
});

for (const name of examples)
  test(`examples/${name}`, async () => {
    const { stdout } = await run(name.replace(/ts$/, "js"), ...(name === "digits.ts" ? ["--quick"] : []));
    assert.ok(stdout.length > 0);
    if (name === "digits.ts") {
      assert.match(stdout, /npx oriel train path\/to\/pictures/);
      const again = await run("digits.js", "--quick");
      assert.match(again.stdout, /already[\s\S]*holds a finished run/);
    }
    if (name === "own-model.ts") assert.match(stdout, /lying\/0\.png: lying/);
    if (name === "custom-module.ts") assert.ok(Number(/loss (\S+)\s*$/.exec(stdout)?.[1]) < 0.2, stdout);
  });
