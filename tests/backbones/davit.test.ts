import { after, test } from "node:test";
import { DaViT } from "../../src/backbones/davit.ts";
import { openNode } from "../../src/runtime/node.ts";
import { assertMaps, mapsOf } from "./maps.ts";

const runtime = await openNode();
after(() => runtime.close());

// timm 1.0.31 in float64: DaVit(depths=(1, 1), embed_dims=(32, 64), num_heads=(2, 4)), the second with down_kernel_size=3,
// channel_attn_v2=True and named_blocks=True.
const config = { patch: 4, dims: [32, 64], depths: [1, 1], heads: [2, 4], window: 7 };

test("maps that windows do not divide are padded as the reference pads them", async () => {
  assertMaps(await mapsOf(runtime, new DaViT(config), [2, 3, 100, 75]), [
    [
      [2, 32, 25, 19],
      [814.078705030026, -522.4107724020222],
    ],
    [
      [2, 64, 13, 10],
      [483.78438186681007, 138.90518978945647],
    ],
  ]);
});

test("Florence-2's form of it", async () => {
  assertMaps(await mapsOf(runtime, new DaViT({ ...config, florence: true }), [2, 3, 100, 75]), [
    [
      [2, 32, 25, 19],
      [722.1530960048773, 167.57824137568196],
    ],
    [
      [2, 64, 13, 10],
      [560.4417569658524, -361.8262559893111],
    ],
  ]);
});
