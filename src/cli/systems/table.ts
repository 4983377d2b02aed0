import { listModels } from "../../backbones/index.ts";

/** A small experiment of `bench/claims/`: what a paper says, and what came out here. */
export interface Claim {
  script: string;
  claims: string;
  found: string;
}

/** What shows that a system is right.  At least one of these is there. */
interface Evidence {
  /** Files of `tests/golden/`, without `.json`: outputs and gradients of the reference. */
  golden?: readonly string[];
  /** Tests with another second source: a naive computation, figures of the reference. */
  tests?: readonly string[];
  claims?: readonly Claim[];
}

/** A system that is built: where, and what shows that it is right. */
export interface System extends Evidence {
  name: string;
  paper: string;
  code: string;
}

/** Families of backbones, whose papers stand in their files. */
const families: readonly (Evidence & { name: string; family: string })[] = [
  { name: "Swin Transformer", family: "swin", golden: ["swin_tiny_patch4_window7_224"] },
  {
    name: "CSWin Transformer",
    family: "cswin",
    golden: ["CSWin_64_12211_tiny_224"],
    claims: [
      {
        script: "bench/claims/cswin-directions.ts",
        claims: "stripes of both directions are better than stripes of one",
        found:
          "4 epochs: both 65.5, 66.4, 64.2 % (mean 65.4); vertical 63.5, 62.9, 63.2 (63.2); horizontal 65.8, 66.1, 65.1 (65.7). It shows half: both beat vertical stripes for every seed, by 2.2 in the mean, and are level with horizontal ones, ahead for one seed of three; after 8 epochs of one seed both have 74.4, horizontal 75.0. " +
          "With wider stripes and the second block behind them: both 62.7 in the mean, vertical 61.8, horizontal 64.1.",
      },
    ],
  },
  {
    name: "Swin Transformer V2",
    family: "swinv2",
    golden: ["swinv2_tiny_window8_256"],
    claims: [
      {
        script: "bench/claims/swinv2-activations.ts",
        claims:
          "norms behind each branch and cosine attention keep activations flat with depth, where Swin's grow (figure 2)",
        found:
          "Mean square behind the last of 12 blocks ÷ behind the first, trained for 250 steps: Swin 8.0, 8.2, 6.9, V2 1.28, 1.25, 1.22. It shows. " +
          "Random, gain 1: 6.6, 7.7, 8.6 and 6.9, 8.1, 9.3; gain 2: 9.8, 10.7, 12.4 and 6.9, 8.0, 9.3, from 15 to 264 in all for Swin, while V2 stays at 24: it does not depend on the weights' size.",
      },
    ],
  },
  { name: "ViT and DeiT", family: "vit", golden: ["vit_tiny_patch16_224", "deit_tiny_patch16_224"] },
  { name: "ResNet and ResNet-RS", family: "resnet", golden: ["resnet18", "resnet50", "resnetrs50"] },
  { name: "MobileNet V2", family: "mobilenetv2", golden: ["mobilenetv2_100"] },
  {
    name: "MobileNet V3",
    family: "mobilenetv3",
    golden: ["mobilenetv3_small_100", "tf_mobilenetv3_small_minimal_100"],
  },
  { name: "MnasNet", family: "mnasnet", golden: ["mnasnet_100", "mnasnet_small"] },
  { name: "FBNet and FBNetV3", family: "fbnet", golden: ["fbnetc_100", "fbnetv3_b"] },
  { name: "Single-Path NAS", family: "spnasnet", golden: ["spnasnet_100"] },
  { name: "ProxylessNAS", family: "proxyless", golden: ["proxyless_mobile"] },
  { name: "GhostNet and GhostNetV2", family: "ghostnet", golden: ["ghostnetv2_100"] },
  { name: "MicroNet", family: "micronet", golden: ["micronet_m1_224"] },
  { name: "AttNet", family: "attnet", golden: ["attnet_xxs_224"] },
  { name: "DaViT", family: "davit", golden: ["davit_tiny"] },
  {
    name: "MaxViT and MaxxViT",
    family: "maxvit",
    golden: ["maxvit_tiny_tf_224", "maxvit_rmlp_pico_rw_256", "maxvit_tiny_pm_256", "maxxvitv2_nano_rw_256"],
  },
  { name: "ConvNeXt and ConvNeXt V2", family: "convnext", golden: ["convnext_tiny", "convnextv2_atto"] },
  {
    name: "PoolFormer",
    family: "poolformer",
    golden: ["poolformer_s12"],
    claims: [
      {
        script: "bench/claims/poolformer-mixer.ts",
        claims: "pooling in the place of attention loses little, no mixing of tokens at all loses much (table 5)",
        found:
          "3 epochs: pooling 49.1, 50.4, 49.7 % (mean 49.7); attention 46.9, 46.2, 43.5 (45.5); no mixing 47.0, 46.1, 48.4 (47.2). " +
          "Pooling loses nothing here, and no mixing costs 2.5 points; attention, with its own parameters besides, has not learnt to mix by then.",
      },
    ],
  },
  { name: "FocalNet", family: "focalnet", golden: ["focalnet_tiny_srf"] },
  { name: "SMT", family: "smt", golden: ["smt_tiny_224"] },
  { name: "SpectFormer", family: "spectformer", golden: ["spectformer_xs_224", "spectformer_h_s_224"] },
  { name: "iFormer", family: "iformer", golden: ["iformer_small_224"] },
  { name: "GC ViT", family: "gcvit", golden: ["gcvit_xxtiny"] },
  { name: "TinyViT", family: "tiny_vit", golden: ["tiny_vit_5m_224"] },
  { name: "CvT", family: "cvt", golden: ["cvt_13_224"] },
  { name: "UniFormer", family: "uniformer", golden: ["uniformer_small_224"] },
  { name: "VOLO", family: "volo", golden: ["volo_d1_224"], tests: ["tests/methods/token-labeling.test.ts"] },
  {
    name: "Mobile-Former",
    family: "mobile_former",
    golden: ["mobile_former_26m", "mobile_former_294m"],
    claims: [
      {
        script: "bench/claims/mobile-former-bridge.ts",
        claims: "tokens and a bridge to them are worth more than a wider mobile stream of the same multiply-adds",
        found:
          "1 epoch: with the bridge 59.4, 58.6, 58.3 % (mean 58.8); the wider stream alone 57.3, 58.2, 57.6 (57.7). It shows early, for every seed, by 1.1 in the mean; with other random numbers they were level, and so they were after 4 epochs of one seed, at 73.6 %.",
      },
    ],
  },
];

/** Operators and methods. */
const others: readonly System[] = [
  {
    name: "Dynamic ReLU",
    paper: "Chen et al., Dynamic ReLU (2020), https://arxiv.org/abs/2003.10027",
    code: "src/nn/dynamic-relu.ts",
    golden: ["dynamic_relu_b"],
    tests: ["tests/nn/operators.test.ts"],
    claims: [
      {
        script: "bench/claims/dynamic-relu.ts",
        claims:
          "functions that depend on the image beat ReLU in the same MobileNetV2, one for each channel (B) more than one for all (A)",
        found:
          "2 epochs: ReLU 50.1, 50.6, 52.1 % (mean 50.9); A 51.3, 52.8, 53.0 (52.4); B 55.1, 54.1, 54.1 (54.4). It shows.",
      },
    ],
  },
  {
    name: "Dynamic Convolution",
    paper: "Chen et al., Dynamic Convolution (2020), https://arxiv.org/abs/1912.03458",
    code: "src/nn/dynamic-conv.ts",
    golden: ["dynamic_conv2d"],
  },
  {
    name: "Disentangled Non-Local",
    paper: "Yin et al., Disentangled Non-Local Neural Networks (2020), https://arxiv.org/abs/2006.06668",
    code: "src/nn/non-local.ts",
    golden: ["dnl_block_in"],
  },
  {
    name: "Involution",
    paper: "Li et al., Involution (2021), https://arxiv.org/abs/2103.06255",
    code: "src/nn/involution.ts",
    tests: ["tests/nn/operators.test.ts"],
  },
];

/** Every system that is built. */
export async function listSystems(): Promise<System[]> {
  const papers = new Map((await listModels()).map(({ family, paper }) => [family, paper]));
  const backbones = families.map(({ family, ...rest }): System => {
    return { ...rest, paper: papers.get(family) ?? "", code: `src/backbones/${family.replaceAll("_", "-")}.ts` };
  });
  return [...backbones, ...others];
}

/** The files that show a system to be right. */
export const evidenceOf = ({ golden = [], tests = [], claims = [] }: Evidence): string[] => [
  ...golden.map((name) => `tests/golden/${name}.json`),
  ...tests,
  ...claims.map(({ script }) => script),
];
