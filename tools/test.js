/**
 * Everything that must hold before a change goes in: types, lint and format, and the tests, examples among them.  Prints what fails,
 * what is skipped and why, and ends with one line: `N passed, N failed, N skipped`.
 *
 *     npm test                    all of it
 *     npm test -- cli graph       only the test files whose paths hold one of these words
 */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join, relative } from "node:path";
import { run } from "node:test";
import { fileURLToPath } from "node:url";
import { setup } from "./setup.js";

const root = fileURLToPath(new URL("..", import.meta.url));
const words = process.argv.slice(2);

/** A file that takes longer than this hangs. */
const patience = 15 * 60_000;

/** Files at once.  The engine uses every core by itself; a second file fills the gaps in which the first draws graphs. */
const lanes = 2;

/** Started first, so that none of them is left running alone at the end. */
const slow = ["golden", "browser", "package", "cli/train", "runtime/training", "train/"];

const counts = { passed: 0, failed: 0, skipped: 0 };
/** Why tests were skipped, and how many for each reason. */
const skips = new Map();

/** One check that is not a test of its own. */
function check(name, passes) {
  const start = performance.now();
  const passed = passes();
  counts[passed ? "passed" : "failed"]++;
  report(passed, name, start);
  return passed;
}

const report = (passed, name, start, note = "") =>
  console.log(`${passed ? "ok    " : "FAILED"} ${name}${note}  ${((performance.now() - start) / 1000).toFixed(1)} s`);

const lint = () => {
  const biome = join(root, "node_modules", "@biomejs", "biome", "bin", "biome");
  return (
    spawnSync(process.execPath, [biome, "check", "--colors=off"], { cwd: root, stdio: ["ignore", 1, 2] }).status === 0
  );
};

/** Compiled test files, by their sources: what a deleted source left in dist is not run. */
function testFiles() {
  const sources = readdirSync(join(root, "tests"), { recursive: true })
    .map((path) => path.replaceAll("\\", "/"))
    .filter((path) => path.endsWith(".test.ts"))
    .filter((path) => words.length === 0 || words.some((word) => path.includes(word)));
  const rank = (path) => {
    const at = slow.findIndex((part) => path.includes(part));
    return at < 0 ? slow.length : at;
  };
  return sources
    .sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1))
    .map((path) => join(root, "dist", "tests", path.replace(/\.ts$/, ".js")));
}

/** Runs one file in a process of its own and prints a line, or what failed in it. */
async function runFile(file) {
  const name = relative(join(root, "dist"), file).replaceAll("\\", "/").replace(/\.js$/, ".ts");
  const start = performance.now();
  const own = { passed: 0, failed: 0, skipped: 0 };
  const said = [];
  const failures = [];
  for await (const { type, data } of run({ files: [file], concurrency: 1, timeout: patience })) {
    if (type === "test:stdout" || type === "test:stderr") said.push(data.message);
    if (type !== "test:pass" && type !== "test:fail") continue;
    // A suite passes when its tests do, and a file's own entry only tells that one of them failed.
    const isTest = data.details?.type !== "suite";
    if (data.skip !== undefined || data.todo !== undefined) {
      own.skipped++;
      const reason = [data.skip, data.todo].find((text) => typeof text === "string" && text) ?? "no reason given";
      skips.set(reason, [...(skips.get(reason) ?? []), `${name}: ${data.name}`]);
    } else if (type === "test:pass") own.passed += isTest ? 1 : 0;
    else if (isTest && !(data.name === file && own.failed > 0)) {
      own.failed++;
      failures.push(`  ${data.name === file ? "the file" : data.name}\n${indent(reasonOf(data.details?.error))}`);
    }
  }
  if (own.passed + own.failed + own.skipped === 0) {
    own.failed++;
    failures.push(existsSync(file) ? "  the file holds no tests" : "  the file was not built");
  }
  for (const key of Object.keys(counts)) counts[key] += own[key];
  const failed = own.failed > 0;
  report(!failed, name, start, `  ${own.passed} passed${own.skipped > 0 ? `, ${own.skipped} skipped` : ""}`);
  if (failed) console.log([...failures, ...(said.length > 0 ? [indent(said.join("").slice(-8000))] : [])].join("\n"));
}

/** What a failed test threw, with its stack. */
function reasonOf(error) {
  const cause = error?.cause ?? error;
  return String(cause?.stack ?? cause ?? "no reason given");
}

const indent = (text) => text.trimEnd().replace(/^/gm, "    ");

let made;
check("types", () => {
  made = setup();
  return made === "ready";
});
// What has a wrong type is built all the same, and its tests may tell more.
if (made !== "install") {
  if (words.length === 0) check("lint and format", lint);
  const waiting = testFiles();
  const lane = async () => {
    for (let file = waiting.shift(); file; file = waiting.shift()) await runFile(file);
  };
  await Promise.all(Array.from({ length: lanes }, lane));
}

for (const [reason, names] of skips) {
  console.log(`skipped: ${reason}`);
  for (const name of names.slice(0, 6)) console.log(`    ${name}`);
  if (names.length > 6) console.log(`    and ${names.length - 6} more`);
}
console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
process.exitCode = counts.failed > 0 || counts.passed === 0 ? 1 : 0;
