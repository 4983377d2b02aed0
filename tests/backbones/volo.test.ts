import assert from "node:assert/strict";
import { after, test } from "node:test";
import { OutlookAttention } from "../../src/backbones/volo.ts";
import { Graph } from "../../src/graph/graph.ts";
import { staticSize } from "../../src/graph/shape.ts";
import { input, type Tensor } from "../../src/graph/tensor.ts";
import { weightsOf } from "../../src/nn/module.ts";
import { trace } from "../../src/nn/trace.ts";
import { openNode } from "../../src/runtime/node.ts";
import type { HostTensor } from "../../src/runtime/runtime.ts";
import { fingerprint, goldenWeight, uniform } from "../golden-check.ts";

const runtime = await openNode();
after(() => runtime.close());

// timm 1.0.31's OutlookAttention(8, 2, stride=2) in float64, weights and maps made from names.
const official: [number[], [number, number]][] = [
  [
    [2, 5, 7, 8],
    [7.869880883804182, 0.6065703903159396],
  ],
  [
    [1, 4, 6, 8],
    [3.6437059952890194, 2.715276355931854],
  ],
];

for (const [shape, theirs] of official)
  test(`outlook attention over a map of ${shape[1]} × ${shape[2]}`, async () => {
    const layer = new OutlookAttention(8, 2);
    const x = input(shape);
    const named = weightsOf(layer).map((w): [string, Tensor] => [w.path, w.tensor]);
    const { result } = trace(layer, {}, () => layer.forward(x));
    const program = await runtime.compile(new Graph([["x", x], ...named], [["y", result]]));
    const feed = (shape: readonly number[], data: Float32Array<ArrayBuffer>): HostTensor => ({
      dtype: "float32",
      shape,
      data,
    });
    const { y } = (await program.run({
      x: feed(shape, Float32Array.from(uniform("input", staticSize(shape)))),
      ...Object.fromEntries(
        named.map(([name, { shape }]) => [name, feed(shape as number[], goldenWeight(name, shape as number[]))]),
      ),
    })) as Record<string, HostTensor>;
    await program.release();
    assert.deepEqual(y.shape, shape);
    const ours = fingerprint(y.data as Float32Array, "outlook");
    for (const k of [0, 1])
      assert.ok(Math.abs(ours[k] - theirs[k]) < 1e-6 * theirs[0], `${ours[k]}, theirs ${theirs[k]}`);
  });
