import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { openNode } from "../../src/runtime/node.ts";
import { checkGolden, readGolden } from "../golden-check.ts";

// What reference implementations answered, full size: outputs, loss and every gradient.

const folder = "tests/golden";
const files = readdirSync(folder).filter((file) => file.endsWith(".json"));

describe("golden", async () => {
  const runtime = await openNode();
  after(() => runtime.close());
  for (const file of files)
    test(file.replace(".json", ""), async () => {
      const result = await checkGolden(await readGolden(join(folder, file)), runtime);
      assert.ok(result, "there is no such model");
      assert.deepEqual(result.problems, []);
    });
});
