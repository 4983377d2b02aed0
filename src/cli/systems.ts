import { z } from "zod";
import { didYouMean, UsageError } from "../base/errors.ts";
import { defineCommand, maybe } from "./command.ts";
import { table } from "./out.ts";
import { systemsPage } from "./systems/page.ts";
import { evidenceOf, listSystems } from "./systems/table.ts";

export default defineCommand({
  name: "systems",
  summary: "List the systems that are built: where their code is, and what shows that it is right",
  args: { pattern: maybe("part of a name or of a paper's title") },
  flags: z.object({ markdown: z.boolean().default(false).describe("print the page docs/systems.md") }),
  examples: [
    ["oriel systems", "all of them"],
    ["oriel systems swin", "those whose name or paper holds a word"],
  ],
  async run({ pattern = "", markdown }, out) {
    const systems = await listSystems();
    const word = pattern.toLowerCase();
    const found = systems.filter(({ name, paper }) => `${name} ${paper}`.toLowerCase().includes(word));
    if (found.length === 0)
      throw new UsageError({
        message: `no system matches "${pattern}"`,
        help: didYouMean(
          pattern,
          systems.map(({ name }) => name),
          "`oriel systems` lists all",
        ),
      });
    out.result(found, () =>
      markdown
        ? systemsPage(found).trimEnd()
        : table(
            ["system", "code", "shown by"],
            found.map((system) => [system.name, system.code, evidenceOf(system).join(", ")]),
          ),
    );
  },
});
