import { readFile } from "node:fs/promises";
import { openNode } from "../src/runtime/node.ts";
import { checkGolden, type Golden } from "./golden-check.ts";

// npm run golden -- FILE…: checks models against what their reference implementations answered.

const args = process.argv.slice(2);
const strict = args.includes("--strict");
const files = args.filter((arg) => arg !== "--strict");
const runtime = await openNode();
const failed = 0;
let skipped = 0;
for (const file of files) {
  const golden = JSON.parse(await readFile(file, "utf8")) as Golden;
  const result = await checkGolden(golden, runtime);
  if (!result) {
    console.log(`${golden.name}: skipped, there is no such model`);
    skipped++;
    continue;
  }
  console.log(result);
}
await runtime.close();
process.exitCode = failed > 0 || (strict && skipped > 0) ? 1 : 0;
