/**
 * Writes what the options of `train` are for, and their defaults, into the declarations that editors read, from the schema that the
 * command line's help comes from.  `tools/setup.js` runs it after each build.
 */
import { readFileSync, writeFileSync } from "node:fs";

const declarations = new URL("../dist/src/train/run/config.d.ts", import.meta.url);
const { trainSchema } = await import("../dist/src/train/run/config.js");

let text = readFileSync(declarations, "utf8");
for (const [key, { description, def }] of Object.entries(trainSchema.shape)) {
  const usual = def.defaultValue === undefined ? "" : ` (${JSON.stringify(def.defaultValue)})`;
  text = text.replace(new RegExp(`(?<!\\*/)\n    ${key}: `), (line) => `\n    /** ${description}${usual} */${line}`);
}
writeFileSync(declarations, text);
