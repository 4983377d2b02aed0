import "../../src/ops/methods.ts";
import { Graph } from "../../src/graph/graph.ts";
import { input, type Tensor } from "../../src/graph/tensor.ts";
import { openNode } from "../../src/runtime/node.ts";

// Ends in one of several ways while the engine works.

const runtime = await openNode();
const x = input([768, 768]);
let y: Tensor = x;
for (let i = 0; i < 12; i++) y = y.matmul(x);
const program = await runtime.compile(new Graph([["x", x]], [["y", y.mean()]]));
const feeds = { x: { dtype: "float32", shape: [768, 768], data: new Float32Array(768 ** 2) } } as const;
await program.run(feeds);
if (process.argv[2] !== "forget") {
  for (let i = 0; i < 3; i++) program.run(feeds).catch(() => {});
  await new Promise((resolve) => setTimeout(resolve, 20));
}
if (process.argv[2] === "exit") process.exit(3);
if (process.argv[2] === "throw") throw new Error("thrown on purpose");
if (process.argv[2] === "close") await runtime.close();
