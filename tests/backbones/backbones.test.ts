import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { stageRates } from "../../src/backbones/backbone.ts";
import { parameterCount } from "../../src/backbones/cost.ts";
import { type Backbone, findModel, listModels, registerFamily } from "../../src/backbones/index.ts";
import { UsageError } from "../../src/base/errors.ts";
import { openNode } from "../../src/runtime/node.ts";
import type { Runtime } from "../../src/runtime/runtime.ts";
import { backboneSuite } from "./suite.ts";

const models = await listModels();

let opened: Promise<Runtime> | undefined;
const runtime = (): Promise<Runtime> => {
  opened ??= openNode();
  return opened;
};
after(async () => (await opened)?.close());

test("every name and alias is one model's", async () => {
  const names = models.flatMap((m) => [m.name, ...m.aliases]);
  assert.equal(new Set(names).size, names.length);
  assert.equal((await findModel("CSWin_64_12211_tiny_224")).name, "cswin_tiny_224");
});

test("a name that is none is answered with names that are near", async () => {
  await assert.rejects(
    findModel("swin_tiny"),
    (error) => error instanceof UsageError && /did you mean swin_/.test(error.message),
  );
});

test("a registered family is found by its names, before another's; its own name is free only once", async () => {
  const { create } = await findModel("swin_micro_32");
  const preprocessing = { imageSize: 64 };
  const variants = { mine_s: { config: {}, aliases: ["mine"], preprocessing }, resnet18: { config: {} } };
  registerFamily("mine", { variants, create: (_, options) => create({ ...options }) });
  assert.deepEqual((await findModel("mine")).preprocessing.imageSize, 64);
  assert.equal((await findModel("resnet18")).family, "mine");
  const listed = await listModels();
  assert.equal(listed.length, models.length + 1);
  assert.deepEqual(
    listed.slice(-2).map(({ name, family }) => [name, family]),
    [
      ["mine_s", "mine"],
      ["resnet18", "mine"],
    ],
  );
  const other = (name: string) => () =>
    registerFamily("other", { variants: { [name]: { config: {} } }, create: () => create() });
  assert.throws(() => registerFamily("mine", { variants, create: () => create() }), /family called "mine" already/);
  assert.throws(other("mine_s"), /another registered family has a model called "mine_s"/);
  for (const name of ["a/b", "net.onnx", "../up", ""]) assert.throws(other(name), /a model cannot be called/);
  assert.throws(
    () => registerFamily("none", { variants: {}, create: () => create() }),
    /the family "none" has no models/,
  );
  const odd = { odd_none: { config: undefined }, odd_fault: { config: "my own fault" } };
  registerFamily("odd", {
    variants: odd,
    create: (fault: string | undefined): Backbone => {
      if (fault) throw new Error(fault);
      return {} as Backbone;
    },
  });
  for (const [name, message] of [
    ["odd_none", /odd_none is no backbone/],
    ["odd_fault", /odd_fault cannot be made: my own fault/],
  ] as const) {
    const entry = await findModel(name);
    assert.throws(() => entry.create(), message);
  }
});

test("stochastic depth grows evenly over all stages, up to the rate that was asked for", () => {
  assert.deepEqual(stageRates([2, 3], 0.5), [
    [0, 0.125],
    [0.25, 0.375, 0.5],
  ]);
  assert.deepEqual(stageRates([1], 0.5), [[0]]);
});

const smallest = new Map<string, { name: string; size: number }>();
for (const { family, name, create } of models) {
  const size = parameterCount(create());
  if (size < (smallest.get(family)?.size ?? Number.POSITIVE_INFINITY)) smallest.set(family, { name, size });
}

for (const entry of models)
  describe(entry.name, () =>
    backboneSuite(entry, { runtime, isSmallest: smallest.get(entry.family)?.name === entry.name }),
  );
