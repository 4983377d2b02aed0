import { peakBytes } from "../../src/cli/bench/workload.ts";
import { openNode } from "../../src/runtime/node.ts";
import { nextName } from "../../src/train/step/state.ts";
import { openStep } from "./step.ts";

// Two training steps in a process of their own: prints its peak of resident bytes, and the losses.

const [model, batch, memoryBudget] = process.argv.slice(2);
const { graph, state, feeds } = await openStep(model, {
  batch: Number(batch),
  memoryBudget: memoryBudget === undefined ? undefined : Number(memoryBudget),
});
const runtime = await openNode({ threads: 2 });
const program = await runtime.compile(graph);
const keep = state.map(({ name }) => nextName(name));
const losses: number[] = [];
for (let i = 0; i < 2; i++) {
  const { loss, ...next } = await program.run(feeds, { keep, outputs: ["loss", ...keep] });
  if ("data" in loss) losses.push(Number(loss.data[0]));
  for (const { name } of state) feeds[name] = next[nextName(name)] as never;
}
console.log(JSON.stringify({ peak: peakBytes(), losses }));
await runtime.close();
