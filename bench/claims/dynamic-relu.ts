import { compare } from "./compare.ts";

// Dynamic ReLU's claim that activations which depend on the image make the same MobileNetV2 better than ReLU does, with one function for
// all channels (A) and more so with one for each (B) (Chen et al. 2020, tables 1 and 4), on CIFAR-10: the same width, depth and schedule.
// See compare.ts for the arguments.

const model = "mobilenetv2_micro_32";
await compare(
  {
    relu: { model, modelOptions: { activation: "relu" } },
    "dynamic-relu-a": { model, modelOptions: { activation: "dynamic-relu-a" } },
    "dynamic-relu-b": { model, modelOptions: { activation: "dynamic-relu-b" } },
  },
  { epochs: 2 },
);
