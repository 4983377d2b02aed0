/**
 * Writes what the options of `train` are for, and their defaults, into the declarations that editors read, from the schema that the
 * command line's help comes from.  `tools/setup.js` runs it after each build.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { z } from "zod";

const declarations = new URL("../dist/src/train/run/config.d.ts", import.meta.url);
const { trainSchema } = await import("../dist/src/train/run/config.js");
const { properties } = z.toJSONSchema(trainSchema, { io: "input" });

let text = readFileSync(declarations, "utf8");
for (const [key, { description, default: value }] of Object.entries(properties)) {
  const usual = value === undefined ? "" : ` (${JSON.stringify(value)})`;
  text = text.replace(new RegExp(`(?<!\\*/)\n    ${key}: `), (line) => `\n    /** ${description}${usual} */${line}`);
}
writeFileSync(declarations, text);
