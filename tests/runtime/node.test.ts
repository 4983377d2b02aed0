import "../../src/ops/methods.ts";
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Graph } from "../../src/graph/graph.ts";
import { input, type Tensor } from "../../src/graph/tensor.ts";
import { nodeDevices, openNode } from "../../src/runtime/node.ts";
import { type DeviceTensor, type Feeds, type HostTensor, numberOf } from "../../src/runtime/runtime.ts";
import { openWeb, webDevices } from "../../src/runtime/web.ts";
import { handModel } from "../graph/onnx-files.ts";
import { knownGaps } from "./gaps.ts";
import { missingWebGpu } from "./software-driver.ts";
import { runtimeSuite } from "./suite-node.ts";

const execute = promisify(execFile);
const script = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

const reason = await missingWebGpu();
runtimeSuite("cpu", () => openNode({ device: "cpu" }));
runtimeSuite("cpu, two streams", () => openNode({ device: "cpu", streams: 2 }));
runtimeSuite("webgpu", () => openNode({ device: "webgpu" }), { skip: knownGaps.webgpu, missing: reason });

/** Many matrix products in a row: side³ × count multiply-adds. */
function products(side: number, count: number): { graph: Graph; feeds: { x: HostTensor } } {
  const x = input([side, side]);
  let y: Tensor = x;
  for (let i = 0; i < count; i++) y = y.matmul(x);
  const data = new Float32Array(side * side).fill(1 / side);
  return {
    graph: new Graph([["x", x]], [["y", y.mean()]]),
    feeds: { x: { dtype: "float32", shape: [side, side], data } },
  };
}

describe("Node", () => {
  test("every device is reported, with a reason where it cannot be used", async () => {
    const reports = await nodeDevices();
    assert.deepEqual(reports.map(({ device }) => device).sort(), ["cpu", "cuda", "webgpu"]);
    for (const { usable, note } of reports) if (!usable) assert.match(note ?? "", /\w+ \w+/);
  });

  test("auto opens a device, and never a slow one", async () => {
    const runtime = await openNode({ device: "auto" });
    const report = (await nodeDevices()).find(({ device }) => device === runtime.device);
    assert.equal(report?.note, undefined);
    await runtime.close();
  });

  test("a device that is not here is refused in words", async (t) => {
    const cuda = (await nodeDevices()).find(({ device }) => device === "cuda");
    if (cuda?.usable) return t.skip("CUDA is here");
    await assert.rejects(openNode({ device: "cuda" }), /CUDA cannot be used here[\s\S]*help: /);
  });

  test("what cannot be opened is told as it was asked for", async () => {
    await assert.rejects(openNode({ device: "gpu" as "cuda" }), /there is no device "gpu"\n {2}help: cpu, webgpu/);
    await assert.rejects(openNode({ threads: -1 }), /threads is -1\n {2}help: a whole number/);
    await assert.rejects(openWeb(), /no web workers here\n {2}help: in Node, take openNode/);
    await assert.rejects(webDevices(), /no web workers here/);
  });

  test("a model with operators from before version 11 runs, its outputs kept too", async () => {
    const runtime = await openNode();
    const nodes = [{ op: "Relu", inputs: ["x"], outputs: ["y"] }];
    for (const opset of [9, 10, 11]) {
      const program = await runtime.compile(handModel({ opset, nodes, inputs: { x: [2] }, outputs: ["y"] }));
      const x: HostTensor = { dtype: "float32", shape: [2], data: Float32Array.of(-1, 1) };
      const { y } = await program.run({ x }, { keep: ["y"] });
      const { data } = await runtime.read(y as DeviceTensor);
      assert.deepEqual([...data], [0, 1]);
      await program.release();
    }
    await runtime.close();
  });

  test("a part of a Buffer is uploaded, and handed over, without the rest", async () => {
    const runtime = await openNode();
    const data = Buffer.from([1, 2, 3, 4]).subarray(1, 3) as Uint8Array<ArrayBuffer>;
    for (const transfer of [false, true]) {
      const held = await runtime.upload({ dtype: "uint8", shape: [2], data }, { transfer });
      assert.deepEqual([...(await runtime.read(held)).data], [2, 3]);
    }
    await runtime.close();
  });

  test("strict forbids falling back to the processor", { skip: reason }, async () => {
    const runtime = await openNode({ device: "webgpu" });
    const x = input([2], "float64");
    const graph = new Graph([["x", x]], [["y", x.add(x)]]);
    await (await runtime.compile(graph)).release();
    await assert.rejects(runtime.compile(graph, { strict: true }), /fallback/i);
    await runtime.close();
    const cpu = await openNode();
    await cpu.compile(graph, { strict: true });
    await cpu.close();
  });

  test("a profile lists the time of each operation", async () => {
    const runtime = await openNode();
    const { graph, feeds } = products(64, 3);
    const program = await runtime.compile(graph, { profile: true });
    for (let i = 0; i < 3; i++) await program.run(feeds);
    const times = await program.profile();
    assert.equal(times.filter(({ op }) => op === "MatMul").length, 3);
    assert.ok(times.every(({ calls }) => calls === 2));
    await assert.rejects(program.profile(), /no profile was kept/);
    await runtime.close();
  });

  test("of a training step the engine does not look for forward passes in parts", async () => {
    const runtime = await openNode();
    const x = input([64]);
    const graph = new Graph([["x", x]], [["y", x.div(Math.SQRT2).erf().add(1).mul(x).mul(0.5)]]);
    const feeds = {
      x: { dtype: "float32", shape: [64], data: Float32Array.from({ length: 64 }, (_, i) => i / 16 - 2) },
    } as const;
    const found = [];
    for (const training of [false, true]) {
      const program = await runtime.compile(graph, { training, profile: true });
      const [{ y }] = [await program.run(feeds), await program.run(feeds)];
      found.push({ y: y.data as Float32Array, ops: (await program.profile()).map(({ op }) => op) });
    }
    const [joined, apart] = found;
    assert.ok(joined.ops.includes("Gelu"));
    assert.ok(apart.ops.includes("Erf"));
    assert.ok(apart.y.every((v, i) => Math.abs(v - joined.y[i]) < 1e-6));
    await runtime.close();
  });

  const kept = process.arch !== "x64" && "the engine leaves numbers too small for normal ones out on x64 alone";
  test("every runtime of a process takes numbers too small for normal ones as zeros", { skip: kept }, async () => {
    const x = input([65536]);
    const graph = new Graph([["x", x]], [["largest", x.mul(0.5).max()]]);
    const feeds: Feeds = { x: { dtype: "float32", shape: [65536], data: new Float32Array(65536).fill(1e-40) } };
    for (const threads of [1, 2, 1]) {
      const runtime = await openNode({ threads });
      const { largest } = await (await runtime.compile(graph)).run(feeds);
      assert.equal(numberOf(largest), 0);
      await runtime.close();
    }
  });

  test("the caller's thread goes on while a program runs", async () => {
    const runtime = await openNode();
    const { graph, feeds } = products(768, 8);
    const program = await runtime.compile(graph);
    const lags: number[] = [];
    // Other work on the machine can hold the processor, so the best of a few tries counts.
    for (let attempt = 0; attempt < 4; attempt++) {
      const delay = monitorEventLoopDelay({ resolution: 5 });
      delay.enable();
      const start = performance.now();
      while (performance.now() - start < 600) await program.run(feeds);
      delay.disable();
      lags.push(delay.max / 1e6);
      if (lags[attempt] < 50) break;
    }
    assert.ok(Math.min(...lags) < 50, `the event loop waited for ${lags.map((lag) => lag.toFixed(0))} ms`);
    await runtime.close();
  });

  test("memory stays flat from step 50 to step 1000", async () => {
    // JavaScript's optimising compiler works in memory of its own for hundreds of steps, and its heap may grow once: neither is ours.
    const settled = ["--no-opt", "--max-semi-space-size=1"];
    const { stdout } = await execute(process.execPath, [...settled, script("./memory-program.js"), "1000"]);
    const resident = JSON.parse(stdout) as number[];
    const after = (step: number): number => resident.slice(step, step + 50).sort((a, b) => a - b)[25];
    const [early, late] = [after(50), after(950)];
    assert.ok(Math.abs(late / early - 1) < 0.02, `${early.toFixed(1)} MB, then ${late.toFixed(1)} MB`);
  });

  test("a process that ends while a program runs ends as it was told to", async () => {
    for (const how of ["exit", "throw", "close"]) {
      const ended = await execute(process.execPath, [script("./ending-program.js"), how]).catch((error) => error);
      const expected = { exit: 3, throw: 1, close: undefined }[how];
      assert.equal(ended.code, expected, `${how}: ${ended.stderr}`);
    }
  });

  test("an open runtime that nobody waits for lets the process end", async () => {
    await execute(process.execPath, [script("./ending-program.js"), "forget"], { timeout: 20_000 });
  });
});
