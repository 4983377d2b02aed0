import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { modelCost } from "../../src/backbones/cost.ts";
import { findModel, listModels } from "../../src/backbones/index.ts";

// Millions of parameters, billions of multiply-adds and millions of activations, as published: by timm for its models, which counts a
// little for norms too, else by the official repositories or papers.
const published: Record<string, [number, number, number?]> = {
  swin_tiny_patch4_window7_224: [28.29, 4.51, 17.06],
  swin_s3_base_224: [71.13, 13.69, 48.26],
  swinv2_tiny_window8_256: [28.35, 5.96, 24.57],
  swinv2_base_window12to24_192to384: [87.92, 55.25, 280.36],
  davit_tiny: [28.36, 4.54, 18.89],
  maxvit_tiny_tf_224: [30.92, 5.6],
  gcvit_xxtiny: [12, 2.14, 15.36],
  vit_small_patch16_224: [22.05, 4.61, 11.95],
  deit_base_patch16_224: [86.57, 17.58, 23.9],
  resnet18: [11.69, 1.82, 2.48],
  resnet50: [25.56, 4.11, 11.11],
  resnet152: [60.19, 11.56, 22.56],
  resnetrs101: [63.62, 6.04, 12.7],
  mobilenetv2_100: [3.5, 0.3],
  mobilenetv3_large_100: [5.48, 0.219, 4.41],
  mobilenetv3_large_150d: [14.62, 1.03, 12.35],
  mnasnet_a1: [3.89, 0.312, 6.23],
  mnasnet_140: [7.12, 0.6, 7.71],
  fbnetv3_g: [16.62, 1.28, 14.87],
  ghostnetv2_160: [12.39, 0.399],
  convnext_nano: [15.59, 2.46, 8.37],
  convnext_tiny: [28.59, 4.47, 13.44],
  poolformer_s12: [11.92, 1.82, 5.53],
  poolformerv2_m36: [56.08, 8.81, 22.02],
  focalnet_tiny_lrf: [28.65, 4.49, 17.76],
  focalnet_base_lrf: [88.75, 15.43, 38.13],
  smt_tiny_224: [11.5, 2.4],
  iformer_small_224: [19.866, 4.849],
  iformer_large_224: [86.637, 14.048],
  spectformer_xs_224: [20.03, 4],
  cswin_tiny_224: [22.32, 4.3],
  cswin_small_224: [34.64, 6.9],
  cswin_base_224: [77.38, 15],
  focalnet_large_fl3: [239.13, 105.06, 168.04],
  davit_base_fl: [90.37, 190.32, 530.15],
  tiny_vit_5m_224: [12.08, 1.27, 11.25],
  tiny_vit_11m_224: [20.35, 2.03, 13.49],
  tiny_vit_21m_384: [21.22, 13.72, 77.83],
  cvt_13_224: [20, 4.5],
  cvt_13_384: [20, 16.3],
  cvt_w24_384: [277, 193.2],
  uniformer_small_plus_224: [24, 4.2],
  uniformer_base_224: [50, 8.3],
  mobile_former_294m: [11.4, 0.294],
  mobile_former_508m: [14, 0.508],
  volo_d1_224: [26.63, 6.94, 24.43],
  volo_d5_512: [296.09, 425.09, 1105.37],
};

/** Papers that count products alone, of models in which norms are a few hundredths of all. */
const withoutNorms = new Set([
  "mobilenetv2_100",
  "mobilenetv3_large_100",
  "mnasnet_a1",
  "ghostnetv2_160",
  "smt_tiny_224",
]);

for (const [name, [params, macs, activations]] of Object.entries(published))
  test(`${name} costs what its authors say`, async () => {
    const ours = modelCost(await findModel(name));
    const near = (value: number, wanted: number, tolerance: number): void =>
      assert.ok(Math.abs(value / wanted - 1) < tolerance, `${value}, published ${wanted}`);
    near(ours.params / 1e6, params, 0.005);
    near((withoutNorms.has(name) ? ours.products : ours.macs) / 1e9, macs, 0.03);
    if (activations) near(ours.activations / 1e6, activations, 0.01);
  });

const table = "../shared/golden/costs.csv";
const noTable = existsSync(table) ? false : `there is no ${table}`;

test("every model of timm's table costs what it says there", { skip: noTable }, async () => {
  const models = await listModels();
  const rows = readFileSync(table, "utf8").trim().split("\n").slice(1);
  let compared = 0;
  for (const [name, ...figures] of rows.map((row) => row.split(","))) {
    const entry = models.find((model) => model.name === name || model.aliases.includes(name));
    if (!entry) continue;
    const [imageSize, params, macs] = figures.map(Number);
    const ours = modelCost(entry, { imageSize });
    // The table has two digits behind the point.
    const near = (value: number, wanted: number, tolerance: number): void =>
      assert.ok(
        Math.abs(value - wanted) <= tolerance * wanted + 0.005,
        `${name} at ${imageSize}: ${value}, there ${wanted}`,
      );
    near(ours.params / 1e6, params, 0.005);
    near(ours.macs / 1e9, macs, 0.03);
    compared++;
  }
  assert.ok(compared > 150, `${compared}`);
});
