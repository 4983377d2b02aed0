import { Graph } from "../graph/graph.ts";
import { input } from "../graph/tensor.ts";
import "../ops/methods.ts";
import { type NodeDevice, openNode } from "./node.ts";
import type { DeviceReport, Runtime } from "./runtime.ts";

// Run with a device's name; prints a DeviceReport.

const device = process.argv[2] as NodeDevice;

/** Milliseconds of a matrix product, the better of two runs after the first. */
async function time(runtime: Runtime, size: number): Promise<number> {
  const x = input([size, size]);
  const program = await runtime.compile(new Graph([["x", x]], [["y", x.matmul(x).mean()]]));
  const held = await runtime.upload({ dtype: "float32", shape: [size, size], data: new Float32Array(size ** 2) });
  const times: number[] = [];
  for (let i = 0; i < 3; i++) {
    const start = performance.now();
    await program.run({ x: held });
    times.push(performance.now() - start);
  }
  return Math.min(...times.slice(1));
}

/** Slow where a driver computes in software: no device of its own takes so long for so little. */
async function isSlow(theirs: Runtime): Promise<boolean> {
  if ((await time(theirs, 512)) > 50) return true;
  const ours = await openNode({ device: "cpu" });
  return (await time(theirs, 2048)) > (await time(ours, 2048));
}

async function report(): Promise<DeviceReport> {
  try {
    const theirs = await openNode({ device });
    const slow = device !== "cpu" && (await isSlow(theirs));
    return { device, usable: true, ...(slow ? { note: "it is slower than the processor here" } : {}) };
  } catch (error) {
    return { device, usable: false, note: (error as Error).message.replace(/\n\s+help:/, ";") };
  }
}

// The runtimes that it opened would keep nothing alive, but a driver might.
process.stdout.write(`${JSON.stringify(await report())}\n`, () => process.exit());
