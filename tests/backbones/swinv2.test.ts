import assert from "node:assert/strict";
import { after, test } from "node:test";
import { findModel } from "../../src/backbones/index.ts";
import { SwinV2 } from "../../src/backbones/swinv2.ts";
import { UsageError } from "../../src/base/errors.ts";
import { weightsOf } from "../../src/nn/module.ts";
import { openNode } from "../../src/runtime/node.ts";
import { assertMaps, mapsOf } from "./maps.ts";

const runtime = await openNode();
after(() => runtime.close());

test("windows of 8 with the position bias of windows of 4, and sharp attention cut at 100", async () => {
  // timm 1.0.31 in float64: SwinTransformerV2(img_size=64, embed_dim=32, depths=(2, 2), num_heads=(2, 4), window_size=8,
  // pretrained_window_sizes=(4, 4)), 4 added to every logit_scale.
  const config = { patch: 4, dim: 32, depths: [2, 2], heads: [2, 4], window: 4, learned: [4, 4] };
  const model = new SwinV2(config, { imageSize: 64, window: 8 });
  const sharpen = (path: string, value: number): number => (path.endsWith("logit_scale") ? value + 4 : value);
  assertMaps(await mapsOf(runtime, model, [1, 3, 64, 64], sharpen), [
    [
      [1, 32, 16, 16],
      [198.95421339243498, 137.76090934859218],
    ],
    [
      [1, 64, 8, 8],
      [149.15100833955015, 90.3315581546048],
    ],
  ]);
});

test("weights fit windows of any side", async () => {
  const entry = await findModel("swinv2_tiny_window8_256");
  const named = (options: Record<string, unknown>) =>
    weightsOf(entry.create(options)).map((w) => `${w.path} ${w.tensor.shape}`);
  assert.deepEqual(named({ window: 12, imageSize: 384 }), named({}));
  const wrong = (window: unknown) => () => entry.create({ window });
  for (const window of [0, 7.5, "8"])
    assert.throws(
      wrong(window),
      (error) => error instanceof UsageError && /window of .* must be a whole number of patches/.test(error.message),
    );
});
