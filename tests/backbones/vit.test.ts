import { after, test } from "node:test";
import { ViT } from "../../src/backbones/vit.ts";
import { openNode } from "../../src/runtime/node.ts";
import { Classifier } from "../../src/tasks/classify.ts";
import { answersOf, assertMaps } from "./maps.ts";

const runtime = await openNode();
after(() => runtime.close());

test("DeiT with a second token: two classifiers, each reading its own, answer together", async () => {
  // timm 1.0.31 in float64: deit_tiny_distilled_patch16_224(img_size=(48, 64), depth=2, num_classes=10), its logits and what
  // `forward_head(…, pre_logits=True)` gives.
  const config = { patch: 16, dim: 192, depth: 2, heads: 3, distilled: true };
  const model = new Classifier(new ViT(config, { imageSize: [48, 64] }), 10);
  const draw = (image: Parameters<ViT["embed"]>[0]) => [model.forward(image), model.backbone.embed(image)];
  assertMaps(await answersOf(runtime, model, [1, 3, 48, 64], draw), [
    [
      [1, 10],
      [2.3668390662212766, 0.03767558986727776],
    ],
    [
      [1, 192],
      [12.941670386098219, -7.20063244825094],
    ],
  ]);
});
