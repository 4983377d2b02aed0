import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { InferenceSession, Tensor as OrtTensor } from "onnxruntime-node";
import { gradients } from "../../src/autodiff/gradients.ts";
import { isFloat } from "../../src/graph/dtype.ts";
import { Graph } from "../../src/graph/graph.ts";
import { lower, writeOnnx } from "../../src/graph/onnx/write.ts";
import { bindShape } from "../../src/graph/shape.ts";
import { input, type Tensor } from "../../src/graph/tensor.ts";
import type { HostTensor } from "../../src/runtime/runtime.ts";
import { missingWebGpu } from "../runtime/software-driver.ts";
import { randn } from "../support/arrays.ts";
import type { OpCase } from "../support/cases.ts";
import { as, difference, runGraph } from "../support/check.ts";
import { refused } from "../support/webgpu.ts";
import { kinds } from "./cases/index.ts";

/** An operation and its gradient in float32, as one graph. */
function drawn({ draw, inputs, wrt }: OpCase): { graph: Graph; feeds: Record<string, HostTensor> } {
  const xs = inputs.map((x) => as(x, "float32"));
  const named = xs.map((x, i): [string, Tensor] => [`x${i}`, input(x.shape, x.dtype)]);
  const y = draw(...named.map(([, x]) => x));
  const outputs: [string, Tensor][] = [["y", y]];
  const feeds = Object.fromEntries(xs.map((x, i) => [`x${i}`, x]));
  const chosen = wrt ?? xs.flatMap((x, i) => (isFloat(x.dtype) ? [i] : []));
  if (chosen.length > 0 && isFloat(y.dtype)) {
    const seed = input(y.shape);
    named.push(["seed", seed]);
    feeds.seed = as(randn(bindShape(y.shape, 1)), "float32");
    const wanted = chosen.map((i) => named[i][1]);
    gradients(y, wanted, { seed }).forEach((dx, k) => void outputs.push([`dx${chosen[k]}`, dx]));
  }
  return { graph: new Graph(named, outputs), feeds };
}

/** Gradients that cannot stay on the device, each with a reason. */
const gaps: Readonly<Record<string, string>> = {
  "gather: places from the end, in int64": "int64 places are reshaped; int32 ones are not",
  "scatterNdAdd: rows repeated": "int64 places are reshaped; int32 ones are not",
  "conv: three axes, depthwise": "WebGPU has no grouped convolution in three dimensions, forward or back",
};

describe("gradients use only what WebGPU runs", () => {
  for (const one of Object.values(kinds).flat())
    test(one.name, { skip: gaps[one.name] }, () => {
      const { graph } = drawn(one);
      assert.deepEqual(refused(lower(graph).nodes.filter((node) => node.scope.startsWith("grad:"))), []);
    });
});

/** Every case compiles shaders, which takes minutes where the device is software. */
const skip = process.env.ORIEL_WEBGPU ? undefined : "set ORIEL_WEBGPU=1 to run these";
let missing: Promise<string | undefined> | undefined;

describe("operations and gradients on a WebGPU device agree with the processor", { skip }, () => {
  for (const one of Object.values(kinds).flat())
    test(one.name, async (t) => {
      const { graph, feeds } = drawn(one);
      const unable = refused(lower(graph).nodes);
      if (unable.length > 0) return t.skip(unable.join("; "));
      missing ??= missingWebGpu();
      const why = await missing;
      if (why) return t.skip(why);
      const session = await InferenceSession.create(writeOnnx(graph), {
        executionProviders: ["webgpu"],
        logSeverityLevel: 4,
        extra: { session: { disable_cpu_ep_fallback: "1" } },
      });
      const read = Object.entries(feeds).map(([name, { dtype, shape, data }]) => [
        name,
        new OrtTensor(dtype as "float32", data as Float32Array, shape as number[]),
      ]);
      const results = await session.run(Object.fromEntries(read));
      await session.release();
      const wanted = await runGraph(graph, feeds);
      for (const [name, value] of Object.entries(wanted)) {
        const got = { dtype: value.dtype, shape: results[name].dims, data: results[name].data } as HostTensor;
        assert.ok(difference(got, value) < 2e-3, `${name} is ${difference(got, value)} away`);
      }
    });
});
