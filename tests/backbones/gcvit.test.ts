import { after, test } from "node:test";
import { GCViT } from "../../src/backbones/gcvit.ts";
import { openNode } from "../../src/runtime/node.ts";
import { assertMaps, mapsOf } from "./maps.ts";

const runtime = await openNode();
after(() => runtime.close());

test("every image of a batch is asked by its own queries", async () => {
  // timm 1.0.31 in float64: GlobalContextVit(img_size=(64, 96), depths=(2, 2), num_heads=(2, 4), embed_dim=32, window_ratio=(32, 16),
  // mlp_ratio=2, layer_scale=1e-5).
  const config = { dim: 32, depths: [2, 2], heads: [2, 4], ratios: [32, 16], mlpRatio: 2, layerScale: 1e-5 };
  assertMaps(await mapsOf(runtime, new GCViT(config, { imageSize: [64, 96] }), [2, 3, 64, 96]), [
    [
      [2, 32, 16, 24],
      [269.59591652260633, -57.57918114702191],
    ],
    [
      [2, 64, 8, 12],
      [115.44193197519813, 85.29094516854957],
    ],
  ]);
});
