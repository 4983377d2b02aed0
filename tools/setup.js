/**
 * Makes a fresh clone ready: installs what the lockfile names and builds, each only where it is missing or out of date.
 * Plain Node without dependencies, since nothing is installed yet.  `npm start` and `npm test` begin here.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const at = (...parts) => join(root, ...parts);

/** Where the last build's time is kept; written only after a build without errors. */
const stamp = at("dist", ".built");

/** @returns {number} milliseconds, 0 where there is no such file */
const changed = (path) => (existsSync(path) ? statSync(path).mtimeMs : 0);

/** The latest change of any file below a folder. */
function latest(folder) {
  let time = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    time = Math.max(time, entry.isDirectory() ? latest(path) : changed(path));
  }
  return time;
}

function checkNode() {
  const wanted = /\d+(\.\d+)?/.exec(JSON.parse(readFileSync(at("package.json"), "utf8")).engines.node)[0];
  const [major, minor = 0] = wanted.split(".").map(Number);
  const [ownMajor, ownMinor] = process.versions.node.split(".").map(Number);
  if (ownMajor > major || (ownMajor === major && ownMinor >= minor)) return;
  console.error(
    `Oriel needs Node ${wanted} or newer, this is ${process.versions.node}: get one from https://nodejs.org`,
  );
  process.exit(1);
}

/** Runs a command with its output on stderr, so that what a caller prints on stdout stays its own. */
function run(command, args, env = {}) {
  const { status, error } = spawnSync(command, args, {
    cwd: root,
    stdio: ["ignore", 2, 2],
    env: { ...process.env, ...env },
    shell: process.platform === "win32" && !command.endsWith(".exe"),
  });
  if (error) console.error(`${command} did not start: ${error.message}`);
  return status === 0;
}

function install() {
  const installed = changed(at("node_modules", ".package-lock.json"));
  if (installed > 0 && installed >= changed(at("package-lock.json"))) return true;
  console.error(`setup: ${installed ? "updating" : "installing"} dependencies (npm ci)`);
  // The npm that called us, else the one on the path.
  const npm = process.env.npm_execpath?.endsWith(".js") ? [process.execPath, process.env.npm_execpath] : ["npm"];
  // The engine's package would download CUDA libraries from elsewhere; its CPU and WebGPU parts are inside it.
  const env = { ONNXRUNTIME_NODE_INSTALL: "skip" };
  if (run(npm[0], [...npm.slice(1), "ci", "--no-audit", "--no-fund"], env)) return true;
  console.error("setup: npm ci failed; it needs the npm registry, and nothing else");
  return false;
}

/** Removes what was built of sources that are gone: it would be packed, and imported, still. */
function sweep(folder) {
  const built = at("dist", folder);
  if (!existsSync(built)) return;
  for (const name of readdirSync(built, { recursive: true, encoding: "utf8" })) {
    const source = name.replace(/\.(d\.ts|js|js\.map)$/, ".ts");
    if (source !== name && !existsSync(at(folder, source))) rmSync(join(built, name));
  }
}

/** A source that is built itself, and not kept by git. */
const code = at("src", "data", "pixels-code.ts");

/** Compiles the loops over pixels into WebAssembly, and that into a module that any bundler takes. */
function assemble() {
  const source = at("assembly", "pixels.ts");
  if (changed(code) >= Math.max(changed(source), changed(at("package-lock.json")))) return true;
  const binary = at("dist", "pixels.wasm");
  const options = ["-O3", "--runtime", "stub", "--enable", "simd", "--noAssert", "--outFile", binary];
  if (!run(process.execPath, [at("node_modules", "assemblyscript", "bin", "asc.js"), source, ...options])) return false;
  const text = readFileSync(binary, "base64");
  writeFileSync(
    code,
    `/** Made of assembly/pixels.ts by tools/setup.js: WebAssembly in base64. */\nexport const code =\n  "${text}";\n`,
  );
  rmSync(binary);
  return true;
}

function build() {
  const folders = ["src", "tests", "examples", "bench"];
  folders.forEach(sweep);
  const sources = [...folders, "assembly", "tools"].map((folder) => at(folder)).filter(existsSync);
  const newest = Math.max(...sources.map(latest), changed(at("tsconfig.json")), changed(at("package-lock.json")));
  if (existsSync(code) && changed(stamp) >= newest) return true;
  console.error("setup: building (asc, tsc)");
  const started = new Date();
  const compiler = at("node_modules", "typescript", "bin", "tsc");
  if (!assemble() || !run(process.execPath, [compiler, "-p", root])) return false;
  if (!run(process.execPath, [at("tools", "document.js")])) return false;
  writeFileSync(stamp, `${started.toISOString()}\n`);
  return true;
}

/** @returns {"ready" | "install" | "build"} what failed, or "ready" */
export function setup() {
  checkNode();
  if (!install()) return "install";
  return build() ? "ready" : "build";
}

if (import.meta.url === pathToFileURL(process.argv[1]).href && setup() !== "ready") process.exit(1);
