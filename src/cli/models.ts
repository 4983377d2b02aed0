import { z } from "zod";
import { modelCost } from "../backbones/cost.ts";
import { listModels } from "../backbones/index.ts";
import { didYouMean, UsageError } from "../base/errors.ts";
import { defineCommand, maybe } from "./command.ts";
import { count, table } from "./out.ts";

export default defineCommand({
  name: "models",
  summary: "List models: parameters, multiply-adds, input size, paper",
  details: "Figures are for one image, with the classifier that a model was published with.",
  args: { pattern: maybe("part of a name, or a whole name with * for anything") },
  imports: true,
  flags: z.object({}),
  examples: [
    ["oriel models", "all of them"],
    ["oriel models 'cswin_*_224'", "a family at one size"],
    ["oriel models micro --json", "for machines: [{ name, params, macs, imageSize, paper }]"],
  ],
  async run({ pattern }, out) {
    const all = await listModels();
    const wanted = matcher(pattern ?? "*");
    const found = all.filter(({ name, aliases }) => [name, ...aliases].some(wanted));
    if (found.length === 0)
      throw new UsageError({
        message: `no model matches "${pattern}"`,
        help: didYouMean(
          pattern ?? "",
          all.map(({ name }) => name),
          "`oriel models` lists all",
        ),
      });
    const models = found.map((entry) => {
      const { params, macs } = modelCost(entry);
      return { name: entry.name, params, macs, imageSize: entry.preprocessing.imageSize, paper: entry.paper };
    });
    out.result(models, () =>
      table(
        ["model", "params", "multiply-adds", "image", "paper"],
        models.map(({ name, params, macs, imageSize, paper }) => [
          name,
          count(params),
          count(macs),
          String(imageSize),
          paper,
        ]),
      ),
    );
  },
});

/** Whether a name holds the pattern, or is what a pattern with stars describes. */
function matcher(pattern: string): (name: string) => boolean {
  if (!pattern.includes("*")) return (name) => name.toLowerCase().includes(pattern.toLowerCase());
  const escaped = pattern.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
  const whole = new RegExp(`^${escaped.join(".*")}$`, "i");
  return (name) => whole.test(name);
}
