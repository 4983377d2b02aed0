import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

/** Folders of `src/`: each may import from itself and from those before it. */
const layers =
  "base graph ops autodiff passes nn optim backbones tasks methods weights runtime data train cli studio".split(" ");

/** Where the platform may be named: Node's modules, and packages that only run there. */
const platform = /^(runtime\/node|data\/|weights\/|train\/|cli\/|studio\/)/;
const platformOnly = /^(node:|sharp$|onnxruntime-node$)|\/package\.json$/;

// The compiled test lies in dist/tests, the sources beside dist.
const root = join(dirname(fileURLToPath(import.meta.url)), "../../src");

/** Specifiers of static, dynamic, type and worker imports. */
export function importsOf(source: string): string[] {
  const patterns = [
    /\b(?:from|import)\s*\(?\s*["'`]([^"'`\n]+)["'`]/g,
    /\brequire\s*\(\s*["'`]([^"'`\n]+)["'`]/g,
    /\bnew URL\(\s*["'`](\.[^"'`\n]+)["'`]\s*,\s*import\.meta\.url/g,
  ];
  return patterns.flatMap((pattern) => [...source.matchAll(pattern)].map((match) => match[1]));
}

/** Why `file`, as its path in `src/`, may not import `specifier`; undefined where it may. */
export function refusal(file: string, specifier: string): string | undefined {
  if (platformOnly.test(specifier)) return platform.test(file) ? undefined : `${file} names ${specifier}`;
  if (!specifier.startsWith(".") || /^(index|web)\.ts$/.test(file)) return undefined;
  const target = relative(root, resolve(root, dirname(file), specifier)).replaceAll("\\", "/");
  if (target.startsWith("..")) return `${file} leaves src/ for ${specifier}`;
  const [own, other] = [file, target].map((path) => layers.indexOf(path.split("/")[0]));
  if (own < 0) return `${file} lies in no layer`;
  return other >= 0 && other <= own ? undefined : `${file} imports ${target}`;
}

const sources = readdirSync(root, { recursive: true, encoding: "utf8" })
  .map((file) => file.replaceAll("\\", "/"))
  .filter((file) => /\.tsx?$/.test(file));

test("no import points up through the layers", () => {
  assert.ok(sources.length > 20, `only ${sources.length} sources were found in ${root}`);
  const refused = sources.flatMap((file) =>
    importsOf(readFileSync(join(root, file), "utf8")).flatMap((specifier) => refusal(file, specifier) ?? []),
  );
  assert.deepEqual(refused, []);
});

test("the scan sees every form of import", () => {
  const source = `
    import { a } from "../graph/a.ts";
    import type {
      B,
    } from '../nn/b.ts';
    import "../ops/c.ts";
    export * from "./d.ts";
    const e = await import("../cli/e.ts");
    type F = import("../data/f.ts").F;
    new Worker(new URL("./worker.js", import.meta.url));`;
  assert.deepEqual(importsOf(source).sort(), [
    "../cli/e.ts",
    "../data/f.ts",
    "../graph/a.ts",
    "../nn/b.ts",
    "../ops/c.ts",
    "./d.ts",
    "./worker.js",
  ]);
});

test("the rule refuses what points up, and the platform where it does not belong", () => {
  assert.equal(refusal("nn/layers.ts", "../ops/conv.ts"), undefined);
  assert.equal(refusal("nn/layers.ts", "./module.ts"), undefined);
  assert.equal(refusal("index.ts", "./cli/main.ts"), undefined);
  assert.equal(refusal("runtime/node-worker.ts", "node:fs"), undefined);
  assert.equal(refusal("ops/conv.ts", "../nn/layers.ts"), "ops/conv.ts imports nn/layers.ts");
  assert.equal(refusal("graph/onnx/write.ts", "../../ops/move.ts"), "graph/onnx/write.ts imports ops/move.ts");
  assert.equal(refusal("runtime/engine.ts", "node:fs"), "runtime/engine.ts names node:fs");
  assert.equal(refusal("nn/init.ts", "sharp"), "nn/init.ts names sharp");
  assert.equal(refusal("nn/init.ts", "../index.ts"), "nn/init.ts imports index.ts");
  assert.equal(refusal("nn/init.ts", "../../tests/golden.ts"), "nn/init.ts leaves src/ for ../../tests/golden.ts");
});
