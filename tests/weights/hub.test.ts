import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { homedir, hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, test } from "node:test";
import { OrielError } from "../../src/base/errors.ts";
import {
  type DownloadEvent,
  type HubOptions,
  hubFile,
  hubSettings,
  hubWeights,
  parseHubName,
} from "../../src/weights/hub/index.ts";
import { openWeights } from "../../src/weights/open-node.ts";
import { encodeSafetensors } from "../../src/weights/safetensors.ts";
import { gitHash, HubServer, sha256 } from "./hub-server.ts";

const server = await new HubServer().start();
const folder = mkdtempSync(join(tmpdir(), "oriel-hub-"));
after(() => {
  server.stop();
  rmSync(folder, { recursive: true });
});

const commit = "0123456789abcdef0123456789abcdef01234567";
const file = (value: number, count = 50_000) => {
  const data = new Uint8Array(new Float32Array(count).fill(value).buffer);
  return Buffer.from(encodeSafetensors([[`w${value}`, { dtype: "F32", shape: [count], data }]]));
};
const weights = file(1);
const config = Buffer.from(`{"architecture": "tiny"}`);
const repo = { commit, files: { "config.json": config, "model.safetensors": weights }, large: ["model.safetensors"] };

let cache = "";
let events: DownloadEvent[] = [];
let count = 0;
beforeEach(() => {
  cache = join(folder, `cache${count++}`);
  events = [];
  server.take();
  server.faults.length = 0;
  server.down = undefined;
  server.repos.clear();
  server.repos.set("timm/tiny", repo);
});
const options = (settings: HubOptions["settings"] = {}): HubOptions => ({
  settings: { endpoint: server.endpoint, cache, token: undefined, offline: false, patience: 5, ...settings },
  pause: 0.01,
  tries: 3,
  onEvent: (event) => events.push(event),
});
const named = (text: string) => parseHubName(text)!;
const fetchTiny = (settings?: HubOptions["settings"]) => hubWeights(named("timm/tiny"), options(settings));
const inCache = (...parts: string[]) => join(cache, "models--timm--tiny", ...parts);
const leftovers = () => readdirSync(inCache("blobs")).filter((name) => name.endsWith(".incomplete"));

async function refused(work: Promise<unknown>, code: string, says: RegExp): Promise<void> {
  await assert.rejects(work, (error) => {
    assert.ok(error instanceof OrielError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, says);
    return true;
  });
}

test("weights come once, into the layout of Python's cache", async () => {
  const path = await fetchTiny();
  assert.equal(path, inCache("snapshots", commit, "model.safetensors"));
  assert.deepEqual(readFileSync(path), weights);
  assert.equal(readlinkSync(path), join("..", "..", "blobs", sha256(weights)));
  assert.equal(readFileSync(inCache("refs", "main"), "utf8"), commit);
  assert.deepEqual(readdirSync(inCache("blobs")), [sha256(weights)]);
  assert.deepEqual(
    server.take().map(({ where, method }) => `${where} ${method}`),
    ["hub GET", "hub HEAD", "hub GET", "store GET"],
  );
  // The content is not asked for again, and of a commit nothing is.
  assert.equal(await fetchTiny(), path);
  assert.ok(server.take().every(({ where }) => where === "hub"));
  const name = named(`timm/tiny@${commit}`);
  assert.equal(await hubFile({ ...name, file: "model.safetensors" }, options()), path);
  assert.deepEqual(server.take(), []);
});

test("progress tells bytes and the total, from the start to the end", async () => {
  await fetchTiny();
  const total = weights.length;
  assert.deepEqual(events[0], { type: "download", from: "timm/tiny", file: "model.safetensors", done: 0, total });
  assert.equal(events.at(-1)?.done, total);
  assert.ok(events.every(({ done }, i) => i === 0 || done >= events[i - 1].done));
});

test("a small file is checked by git's hash", async () => {
  const path = await hubFile({ ...named("timm/tiny"), file: "config.json" }, options());
  assert.deepEqual(readFileSync(path), config);
  assert.equal(readlinkSync(path), join("..", "..", "blobs", gitHash(config)));
});

test("the token is for the hub, not for where the content lies", async () => {
  server.repos.set("timm/tiny", { ...repo, gated: true });
  await fetchTiny({ token: "secret" });
  for (const { where, authorization } of server.take())
    assert.equal(authorization, where === "hub" ? "Bearer secret" : undefined);
});

test("a repository that was renamed is followed", async () => {
  server.repos.set("old/name", { ...repo, movedTo: "timm/tiny" });
  const path = await hubWeights(named("old/name"), options());
  assert.match(path, /models--old--name/);
  assert.deepEqual(readFileSync(path), weights);
});

test("a connection that breaks off costs nothing that has arrived", async () => {
  server.faults.push({ after: 100_000, ending: "cut" }, { after: 50_000, ending: "cut" });
  assert.deepEqual(readFileSync(await fetchTiny()), weights);
  const ranges = server.take().flatMap(({ where, range }) => (where === "store" ? [range] : []));
  assert.equal(ranges.length, 3);
  const offsets = ranges.map((range) => Number(/\d+/.exec(range ?? "0")![0]));
  assert.ok(offsets[0] === 0 && offsets[1] > 0 && offsets[2] > offsets[1], String(offsets));
});

test("a connection that falls silent counts as broken", async () => {
  server.faults.push({ after: 100_000, ending: "silence" });
  assert.deepEqual(readFileSync(await fetchTiny({ patience: 0.3 })), weights);
});

test("a busy server is asked again, and given up in the end", async () => {
  server.faults.push({ status: 503 }, { status: 429 });
  assert.deepEqual(readFileSync(await fetchTiny()), weights);
  server.down = 500;
  await refused(hubWeights(named("timm/other"), options()), "unreachable", /answered 500/);
  // What is cached serves while the hub is down.
  assert.deepEqual(readFileSync(await fetchTiny()), weights);
  await refused(
    hubWeights(named("timm/tiny"), options({ endpoint: "http://127.0.0.1:1", cache: `${cache}x` })),
    "unreachable",
    /no answer from 127\.0\.0\.1:1/,
  );
});

test("what another process left behind is gone on with; wrong bytes of it are thrown away", async () => {
  const { pid } = spawnSync(process.execPath, ["-e", ""]);
  const part = inCache("blobs", `${sha256(weights)}.${hostname()}-${pid}.incomplete`);
  mkdirSync(inCache("blobs"), { recursive: true });
  writeFileSync(part, weights.subarray(0, 150_000));
  await fetchTiny();
  assert.deepEqual(
    server.take().flatMap(({ where, range }) => (where === "store" ? [range] : [])),
    ["bytes=150000-"],
  );

  rmSync(cache, { recursive: true });
  mkdirSync(inCache("blobs"), { recursive: true });
  writeFileSync(part, Buffer.alloc(150_000, 7));
  assert.deepEqual(readFileSync(await fetchTiny()), weights);
  assert.deepEqual(leftovers(), []);
});

test("content with another hash is refused, and nothing of it stays", async () => {
  server.faults.push({ content: Buffer.alloc(weights.length, 1) });
  await refused(fetchTiny(), "wrong-hash", /timm\/tiny\/model\.safetensors is not what the server announced/);
  assert.deepEqual(readdirSync(inCache("blobs")), []);
  assert.equal(existsSync(inCache("snapshots")), false);
  server.faults.push({ content: Buffer.alloc(2 * weights.length, 1) });
  await refused(fetchTiny(), "hub", /sends more of .* than the \d+ bytes it announced/);
});

test("refusals say what to do", async () => {
  server.repos.set("meta/gated", { ...repo, gated: true });
  await refused(hubWeights(named("meta/gated"), options()), "no-access", /accept them on that page, then set HF_TOKEN/);
  await refused(hubWeights(named("meta/gated"), options({ token: "other" })), "no-access", /token of the same account/);
  await refused(hubWeights(named("timm/tyny"), options()), "no-access", /no repository timm\/tyny, or it is private/);
  await refused(hubWeights(named("timm/tiny@v2"), options()), "not-found", /timm\/tiny has no revision "v2"/);
  const missing = hubFile({ ...named("timm/tiny"), file: "model.safetensor" }, options());
  await refused(missing, "not-found", /has no file "model\.safetensor".*\n.*did you mean model\.safetensors/s);
  server.repos.set("timm/tiny", { ...repo, files: { "a.bin": config, "b.bin": config, "README.md": config } });
  await refused(fetchTiny(), "usage", /several files of weights.*a\.bin.*b\.bin.*name one/s);
});

test("offline, what is cached is used and nobody is asked", async () => {
  await refused(
    fetchTiny({ offline: true }),
    "offline",
    /timm\/tiny at main is not in the cache, and HF_HUB_OFFLINE forbids/,
  );
  const path = await fetchTiny();
  server.take();
  assert.equal(await fetchTiny({ offline: true }), path);
  const other = hubFile({ ...named("timm/tiny"), file: "config.json" }, options({ offline: true }));
  await refused(other, "offline", /timm\/tiny\/config\.json at main is not in the cache/);
  assert.deepEqual(server.take(), []);
});

test("weights in parts come whole and open as one", async () => {
  const parts = { "model-00001-of-00002.safetensors": file(1), "model-00002-of-00002.safetensors": file(2) };
  const places = { w1: "model-00001-of-00002.safetensors", w2: "model-00002-of-00002.safetensors" };
  const index = Buffer.from(JSON.stringify({ metadata: { total_size: 400_000 }, weight_map: places }));
  server.repos.set("timm/tiny", {
    commit,
    files: { ...parts, "model.safetensors.index.json": index },
    large: Object.keys(parts),
  });
  const opened = await openWeights("hf-hub:timm/tiny", options());
  assert.deepEqual([...opened.tensors.keys()], ["w1", "w2"]);
  assert.deepEqual(
    (await opened.tensors.get("w2")!.read()).data.slice(0, 4),
    new Uint8Array(Float32Array.of(2).buffer),
  );
  await opened.close();
});

test("a hostile hub writes nowhere else", async () => {
  server.repos.set("timm/tiny", { ...repo, etag: "../../../evil" });
  await refused(fetchTiny(), "hub", /the hash "\.\.\/\.\.\/\.\.\/evil", which is none/);
  server.repos.set("timm/tiny", { ...repo, commit: "../../evil" });
  await refused(fetchTiny(), "hub", /no list of files/);
  server.repos.set("timm/tiny", repo);
  server.take();
  await refused(
    hubFile({ ...named("timm/tiny"), file: "../evil" }, options()),
    "hub",
    /"\.\.\/evil" is no name of anything/,
  );
  await refused(
    hubWeights({ repo: "timm/tiny", revision: "../../evil" }, options()),
    "hub",
    /"\.\.\/\.\.\/evil" is no name/,
  );
  assert.deepEqual(server.take(), []);
  const index = Buffer.from(JSON.stringify({ weight_map: { w: "../evil" } }));
  server.repos.set("timm/tiny", { commit, files: { "model.safetensors.index.json": index } });
  await refused(fetchTiny(), "malformed", /its file "\.\.\/evil" would lie elsewhere/);
  assert.equal(
    readdirSync(folder).some((name) => name.includes("evil")),
    false,
  );
});

test("processes that want the same file at once do not disturb each other", async () => {
  const module = new URL("../../src/weights/hub/index.js", import.meta.url).href;
  const settings = JSON.stringify({ endpoint: server.endpoint, cache, offline: false });
  const script = `import { hubWeights } from ${JSON.stringify(module)};
    await hubWeights({ repo: "timm/tiny", revision: "main" }, { settings: ${settings} });`;
  // Slow enough that both are at it.
  server.faults.push({ after: 100_000, ending: "cut" });
  const children = [0, 1].map(() =>
    spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: "inherit" }),
  );
  const codes = await Promise.all(children.map(async (child) => (await once(child, "exit"))[0]));
  assert.deepEqual(codes, [0, 0]);
  assert.deepEqual(readFileSync(inCache("snapshots", commit, "model.safetensors")), weights);
  assert.deepEqual(leftovers(), []);
});

test("calls that want the same file at once download it once", async () => {
  const paths = await Promise.all([fetchTiny(), fetchTiny(), fetchTiny()]);
  assert.equal(new Set(paths).size, 1);
  assert.equal(server.take().filter(({ where }) => where === "store").length, 1);
});

test("the environment means what it means to Python's huggingface_hub", async () => {
  const home = join(folder, "home");
  mkdirSync(home);
  writeFileSync(join(home, "token"), "from-file\n");
  const plain = await hubSettings({});
  assert.deepEqual([plain.endpoint, plain.offline, plain.patience], ["https://huggingface.co", false, 10]);
  assert.equal(plain.cache, join(homedir(), ".cache", "huggingface", "hub"));
  assert.equal((await hubSettings({ XDG_CACHE_HOME: "/x" })).cache, join("/x", "huggingface", "hub"));
  const set = await hubSettings({ HF_HOME: home, HF_ENDPOINT: "https://mirror.example/", HF_HUB_OFFLINE: "1" });
  assert.deepEqual(set, {
    endpoint: "https://mirror.example",
    cache: join(home, "hub"),
    token: "from-file",
    offline: true,
    patience: 10,
  });
  assert.equal((await hubSettings({ HF_HOME: home, HF_TOKEN: " from-env\n" })).token, "from-env");
  assert.equal((await hubSettings({ HF_HOME: home, HF_HUB_CACHE: "~/c" })).cache, join(homedir(), "c"));
  assert.equal((await hubSettings({ HF_HOME: "/none", HF_TOKEN_PATH: "$T/token", T: home })).token, "from-file");
  await refused(hubSettings({ HF_ENDPOINT: "mirror" }), "hub", /HF_ENDPOINT is "mirror"/);
});

test("names of the hub, and what is none", () => {
  const main = { repo: "timm/resnet50.a1_in1k", revision: "main", file: undefined };
  assert.deepEqual(parseHubName("timm/resnet50.a1_in1k"), main);
  assert.deepEqual(parseHubName("hf-hub:timm/resnet50.a1_in1k"), main);
  assert.deepEqual(parseHubName("hf://timm/resnet50.a1_in1k@v1"), { ...main, revision: "v1" });
  assert.deepEqual(parseHubName("hf-hub:a/b@refs/pr/3/sub/m.bin"), {
    repo: "a/b",
    revision: "refs/pr/3",
    file: "sub/m.bin",
  });
  for (const path of ["model.safetensors", "runs/best.safetensors", "./a/b", "/a/b", "a/b/c", "../b"])
    assert.equal(parseHubName(path), undefined, path);
  for (const wrong of ["hf-hub:timm", "hf-hub:a/b/../../c", "hf-hub:"])
    assert.throws(() => parseHubName(wrong), /names no repository of the hub/);
});
