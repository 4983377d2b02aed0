import { compare } from "./compare.ts";

// CSWin's claim that stripes of both directions together beat stripes of one (Dong et al. 2021, section 4.4, table 7), on CIFAR-10: the
// same parameters, multiply-adds and schedule.  See compare.ts for the arguments.

const model = "cswin_micro_32";
await compare(
  {
    both: { model, modelOptions: { directions: "both" } },
    vertical: { model, modelOptions: { directions: "vertical" } },
    horizontal: { model, modelOptions: { directions: "horizontal" } },
  },
  { epochs: 2 },
);
