import assert from "node:assert/strict";
import { after, test } from "node:test";
import { findModel } from "../../src/backbones/index.ts";
import { UsageError } from "../../src/base/errors.ts";
import { Graph } from "../../src/graph/graph.ts";
import { OpenDim } from "../../src/graph/shape.ts";
import { input, type Tensor } from "../../src/graph/tensor.ts";
import { bindWeights, features, initialWeights, weightsOf } from "../../src/nn/index.ts";
import { openNode } from "../../src/runtime/node.ts";
import type { HostTensor } from "../../src/runtime/runtime.ts";

const runtime = await openNode();
after(() => runtime.close());

test("features by path are named outputs of one graph", async () => {
  const model = (await findModel("swin_micro_32")).create();
  const image = input([new OpenDim("N"), 3, 32, 32]);
  const found = features(model, image, ["patch_embed", "layers.1.blocks.0.attn", "layers.2", "0"]);
  assert.deepEqual(
    [...found].map(([path, y]) => [path, y.shape.slice(1).join()]),
    [
      ["patch_embed", "16,16,32"],
      ["layers.1.blocks.0.attn", "64,64"],
      ["layers.2", "4,4,128"],
      ["0", "32,16,16"],
    ],
  );
  const weights = weightsOf(model).map((w): [string, Tensor] => [w.path, w.tensor]);
  const graph = bindWeights(new Graph([["image", image], ...weights], found), model, initialWeights(model, 0));
  const program = await runtime.compile(graph);
  const data = Float32Array.from({ length: 2 * 3 * 32 * 32 }, (_, i) => Math.sin(i));
  const outputs = await program.run({ image: { dtype: "float32", shape: [2, 3, 32, 32], data } });
  assert.deepEqual((outputs["layers.2"] as HostTensor).shape, [2, 4, 4, 128]);
});

test("a path that is not there names its neighbours", async () => {
  const model = (await findModel("swin_micro_32")).create();
  assert.throws(
    () => features(model, input([1, 3, 32, 32]), ["layers.9"]),
    (error) => {
      assert.ok(error instanceof UsageError);
      assert.match(error.message, /no module at "layers\.9"[\s\S]*did you mean layers\.[012]/);
      return true;
    },
  );
});
