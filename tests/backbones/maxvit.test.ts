import { after, test } from "node:test";
import { MaxViT, type MaxViTConfig } from "../../src/backbones/maxvit.ts";
import { openNode } from "../../src/runtime/node.ts";
import { assertMaps, mapsOf } from "./maps.ts";

const runtime = await openNode();
after(() => runtime.close());

test("windows and grids follow the shape of the image", async () => {
  // timm 1.0.31 in float64: MaxxVit(MaxxVitCfg(embed_dim=(32, 64), depths=(1, 2), block_type=("M", "M"), stem_width=32, stem_bias=True,
  // head_hidden_size=64, **_tf_cfg()), img_size=(64, 96)).
  const config: MaxViTConfig = { style: "tf", stem: [32, 32], dims: [32, 64], depths: [1, 2], preLogits: true };
  assertMaps(await mapsOf(runtime, new MaxViT(config, { imageSize: [64, 96] }), [1, 3, 64, 96]), [
    [
      [1, 32, 16, 24],
      [246.43001382971894, -281.15803596074284],
    ],
    [
      [1, 64, 8, 12],
      [239.85161943853672, -26.111691516466042],
    ],
  ]);
});
