import assert from "node:assert/strict";
import { test } from "node:test";
import { modelCost } from "../../src/backbones/cost.ts";
import { findModel } from "../../src/backbones/index.ts";

// Millions of parameters, billions of multiply-adds and millions of activations at the variant's size, as published: by timm for its models, for CSWin
// (parameters and multiply-adds) in the README of the official repository; multiply-adds of the smallest are the papers', since timm counts
// norms too.
const published: Record<string, [number, number, number?]> = {
  swin_tiny_patch4_window7_224: [28.29, 4.51, 17.06],
  swin_s3_base_224: [71.13, 13.69, 48.26],
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
  cswin_tiny_224: [22.32, 4.3],
  cswin_small_224: [34.64, 6.9],
  cswin_base_224: [77.38, 15],
};

for (const [name, [params, macs, activations]] of Object.entries(published))
  test(`${name} costs what its authors say`, async () => {
    const ours = modelCost(await findModel(name));
    const near = (value: number, wanted: number, tolerance: number): void =>
      assert.ok(Math.abs(value / wanted - 1) < tolerance, `${value}, published ${wanted}`);
    near(ours.params / 1e6, params, 0.005);
    near(ours.macs / 1e9, macs, 0.03);
    if (activations) near(ours.activations / 1e6, activations, 0.01);
  });
