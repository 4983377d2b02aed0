import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { openNode } from "../../src/runtime/node.ts";
import { missingWebGpu } from "./software-driver.ts";
import { trainingLosses } from "./training.ts";

const skip = await missingWebGpu();

describe("training in Node", () => {
  for (const model of ["swin_micro_32", "cswin_micro_32"])
    test(`${model} learns on WebGPU as on the processor, and nothing falls back`, { skip }, async () => {
      const [expected, losses] = [await lossesOn("cpu", model), await lossesOn("webgpu", model)];
      for (const [i, loss] of expected.entries())
        assert.ok(Math.abs(losses[i] - loss) <= 1e-3, `step ${i + 1}: ${losses[i]}, expected ${loss}`);
    });
});

async function lossesOn(device: "cpu" | "webgpu", model: string): Promise<number[]> {
  const runtime = await openNode({ device });
  const losses = await trainingLosses(runtime, model, { steps: 3, strict: true });
  await runtime.close();
  return losses;
}
