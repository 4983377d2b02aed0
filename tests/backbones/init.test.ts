import assert from "node:assert/strict";
import { test } from "node:test";
import { findModel } from "../../src/backbones/index.ts";
import { initialWeights } from "../../src/nn/module.ts";
import { Classifier } from "../../src/tasks/classify.ts";

const deviation = (values: Float32Array): number => {
  const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
  return Math.sqrt(values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / values.length);
};

test("weights begin with the deviation that the reference gives them", async () => {
  // timm 1.0.31: the deviation of each parameter of a fresh model; GC ViT: its official code, where gates are linear layers.
  const published: Record<string, Record<string, number>> = {
    maxvit_tiny_tf_224: {
      "stages.0.blocks.0.attn_block.attn.qkv.weight": 0.0885,
      "stages.3.blocks.1.attn_grid.attn.proj.weight": 0.0442,
      "stages.3.blocks.1.attn_block.mlp.fc2.weight": 0.028,
      "stages.3.blocks.1.conv.conv3_1x1.weight": 0.0626,
      "head.pre_logits.fc.weight": 0.0255,
      "head.fc.weight": 0.0255,
    },
    maxvit_rmlp_pico_rw_256: {
      "stages.0.blocks.0.attn_block.attn.rel_pos.mlp.fc1.weight": 0.0625,
      "head.fc.weight": 0.0361,
    },
    maxxvitv2_nano_rw_256: {
      "stem.conv1.weight": 0.02,
      "stages.0.blocks.0.conv.conv_dw.weight": 0.02,
      "stages.3.blocks.0.conv.mlp.fc1.weight": 0.02,
      "stages.3.blocks.0.attn_grid.mlp.fc1.weight": 0.02,
    },
    gcvit_xxtiny: { "stages.2.downsample.conv_block.se.fc1.weight": 0.02 },
    vit_tiny_patch16_224: { pos_embed: 0.02, "blocks.0.attn.qkv.weight": 0.02, "head.weight": 0.02 },
    convnext_atto: { "stages.3.blocks.0.conv_dw.weight": 0.02, "stages.3.blocks.0.mlp.fc1.weight": 0.02 },
    resnet50: { "fc.weight": 0.0128, "layer4.0.conv1.weight": 0.0625 },
    ghostnet_100: {
      "blocks.8.3.ghost2.primary_conv.0.weight": 0.0187,
      "blocks.8.3.ghost2.cheap_operation.0.weight": 0.1957,
      "blocks.8.3.se.conv_reduce.weight": 0.0187,
      "blocks.8.3.se.conv_expand.weight": 0.0373,
      "classifier.weight": 0.0161,
    },
  };
  for (const [name, parameters] of Object.entries(published)) {
    const weights = initialWeights(new Classifier((await findModel(name)).create(), 1000), 1);
    for (const [path, theirs] of Object.entries(parameters)) {
      const ours = deviation(weights.get(path)!);
      assert.ok(Math.abs(ours / theirs - 1) < 0.1, `${name} ${path}: ${ours}, theirs ${theirs}`);
    }
  }
});
