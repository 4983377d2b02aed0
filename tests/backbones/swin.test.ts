import { after, test } from "node:test";
import { Swin } from "../../src/backbones/swin.ts";
import { openNode } from "../../src/runtime/node.ts";
import { assertMaps, mapsOf } from "./maps.ts";

const runtime = await openNode();
after(() => runtime.close());

test("where patches and windows do not divide an image, zeros complete it before it is rolled, as in the official dense models", async () => {
  // timm 1.0.31 in float64, its blocks padding before they roll: SwinTransformer(img_size=(80, 112), patch_size=4, embed_dim=32,
  // depths=(2, 2), num_heads=(1, 2), window_size=7) on 78 × 110 pixels and zeros.
  const config = { patch: 4, dim: 32, depths: [2, 2], heads: [1, 2], window: 7 };
  assertMaps(await mapsOf(runtime, new Swin(config, { imageSize: [78, 110] }), [1, 3, 78, 110]), [
    [
      [1, 32, 20, 28],
      [199.899905609297, 67.14958321533594],
    ],
    [
      [1, 64, 10, 14],
      [160.3434684960223, 111.1924209968644],
    ],
  ]);
});
