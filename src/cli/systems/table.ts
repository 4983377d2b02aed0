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
  { name: "CSWin Transformer", family: "cswin", golden: ["CSWin_64_12211_tiny_224"] },
  { name: "Swin Transformer V2", family: "swinv2", golden: ["swinv2_tiny_window8_256"] },
  { name: "ViT and DeiT", family: "vit", golden: ["vit_tiny_patch16_224", "deit_tiny_patch16_224"] },
  { name: "ResNet", family: "resnet", golden: ["resnet18", "resnet50"] },
  { name: "DaViT", family: "davit", golden: ["davit_tiny"] },
  { name: "MaxViT", family: "maxvit", golden: ["maxvit_tiny_tf_224"] },
  { name: "ConvNeXt and ConvNeXt V2", family: "convnext", golden: ["convnext_tiny", "convnextv2_atto"] },
  { name: "PoolFormer", family: "poolformer", golden: ["poolformer_s12"] },
  { name: "FocalNet", family: "focalnet", golden: ["focalnet_tiny_srf"] },
  { name: "SMT", family: "smt", golden: ["smt_tiny_224"] },
  { name: "SpectFormer", family: "spectformer", golden: ["spectformer_xs_224", "spectformer_h_s_224"] },
  { name: "iFormer", family: "iformer", golden: ["iformer_small_224"] },
];

/** Operators and methods. */
const others: readonly System[] = [];

/** Every system that is built. */
export async function listSystems(): Promise<System[]> {
  const papers = new Map((await listModels()).map(({ family, paper }) => [family, paper]));
  const backbones = families.map(({ family, ...rest }): System => {
    return { ...rest, paper: papers.get(family) ?? "", code: `src/backbones/${family}.ts` };
  });
  return [...backbones, ...others];
}

/** The files that show a system to be right. */
export const evidenceOf = ({ golden = [], tests = [], claims = [] }: Evidence): string[] => [
  ...golden.map((name) => `tests/golden/${name}.json`),
  ...tests,
  ...claims.map(({ script }) => script),
];
