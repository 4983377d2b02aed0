import "../../src/ops/methods.ts";
import { Graph } from "../../src/graph/graph.ts";
import { input } from "../../src/graph/tensor.ts";
import { openNode } from "../../src/runtime/node.ts";
import type { DeviceTensor, HostTensor } from "../../src/runtime/runtime.ts";

// A loop like training's, in a process of its own: prints the resident megabytes after each step.  As where a step is split, or where
// an evaluation comes between steps, another program reads the state, and keeps nothing.

const [steps, side] = [Number(process.argv[2]), 512];
const runtime = await openNode();
const names = ["w", "m", "v"];
const [x, w, m, v] = Array.from({ length: 4 }, () => input([side, side]));
const grad = x.mul(w).sub(x);
const nextM = m.mul(0.9).add(grad.mul(0.1));
const nextV = v.mul(0.999).add(grad.square().mul(0.001));
const nextW = w.sub(nextM.div(nextV.sqrt().add(1e-8)).mul(1e-3));
const program = await runtime.compile(
  new Graph(
    [
      ["x", x],
      ["w", w],
      ["m", m],
      ["v", v],
    ],
    [
      ["loss", grad.square().mean()],
      ["w'", nextW],
      ["m'", nextM],
      ["v'", nextV],
    ],
  ),
);
const other = await runtime.compile(
  new Graph(
    [
      ["x", x],
      ["w", w],
    ],
    [["loss", grad.square().mean()]],
  ),
);
const host = (value: number): HostTensor => ({
  dtype: "float32",
  shape: [side, side],
  data: new Float32Array(side * side).fill(value),
});
let state = await Promise.all(names.map(() => runtime.upload(host(0))));
const resident: number[] = [];
const batch = host(1);
for (let step = 0; step < steps; step++) {
  const feeds = { x: batch, ...Object.fromEntries(names.map((name, i) => [name, state[i]])) };
  await other.run({ x: batch, w: state[0] });
  const results = await program.run(feeds, { keep: ["w'", "m'", "v'"], donate: state });
  state = names.map((name) => results[`${name}'`] as DeviceTensor);
  resident.push(process.memoryUsage.rss() / 2 ** 20);
}
await runtime.close();
console.log(JSON.stringify(resident));
