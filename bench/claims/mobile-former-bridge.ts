import { compare } from "./compare.ts";

// Mobile-Former's claim that a few tokens and a bridge to them are worth more than a wider mobile stream of the same multiply-adds
// (Chen et al. 2022, section 4.1 and table 8), on CIFAR-10.  See compare.ts for the arguments.

await compare(
  {
    "with bridge": { model: "mobile_former_micro_32", batch: 128 },
    "mobile alone": { model: "mobile_alone_micro_32", batch: 128 },
  },
  { epochs: 1 },
);
