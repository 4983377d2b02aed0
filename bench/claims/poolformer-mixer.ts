import { compare } from "./compare.ts";

// MetaFormer's claim that the skeleton matters more than what mixes its tokens (Yu et al. 2022, table 5), on CIFAR-10: attention replaced by
// pooling loses little, no mixing at all loses much.  Pooling and no mixing have the same parameters, attention has its own besides.  See
// compare.ts for the arguments.

const model = "poolformer_micro_32";
await compare(
  {
    pooling: { model, modelOptions: { mixer: "pooling" } },
    attention: { model, modelOptions: { mixer: "attention" } },
    identity: { model, modelOptions: { mixer: "identity" } },
  },
  { epochs: 3 },
);
