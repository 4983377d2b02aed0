import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { listModels } from "../../src/backbones/index.ts";
import { systemsPage } from "../../src/cli/systems/page.ts";
import { evidenceOf, listSystems } from "../../src/cli/systems/table.ts";

const systems = await listSystems();

test("every system has a paper, and every file that it names is there", () => {
  for (const system of systems) {
    assert.match(system.paper, /https:\/\//, system.name);
    const evidence = evidenceOf(system);
    assert.ok(evidence.length > 0, `${system.name} has no evidence`);
    for (const file of [system.code, ...evidence]) assert.ok(existsSync(file), `${system.name}: there is no ${file}`);
  }
});

test("every family of models and every reference is part of a system", async () => {
  const families = new Set((await listModels()).map(({ family }) => `src/backbones/${family.replaceAll("_", "-")}.ts`));
  assert.deepEqual(
    [...families].filter((file) => !systems.some(({ code }) => code === file)),
    [],
  );
  const named = new Set(systems.flatMap(({ golden = [] }) => golden.map((name) => `${name}.json`)));
  assert.deepEqual(
    readdirSync("tests/golden").filter((file) => !named.has(file)),
    [],
  );
});

test("docs/systems.md is what the table says", () => {
  assert.equal(readFileSync("docs/systems.md", "utf8"), systemsPage(systems));
});
