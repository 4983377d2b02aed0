import assert from "node:assert/strict";
import { after, test } from "node:test";
import { modelCost } from "../../src/backbones/cost.ts";
import { CSWin } from "../../src/backbones/cswin.ts";
import { findModel } from "../../src/backbones/index.ts";
import { UsageError } from "../../src/base/errors.ts";
import { weightsOf } from "../../src/nn/module.ts";
import { openNode } from "../../src/runtime/node.ts";
import { assertMaps, mapsOf } from "./maps.ts";

const runtime = await openNode();
after(() => runtime.close());

const config = { patch: 4, dim: 64, depths: [1, 2, 2, 1], heads: [2, 4, 8, 16], split: [1, 2, 7] };

test("where stripes do not divide the map, it is padded as the official dense models do", async () => {
  // segmentation/backbone/cswin_transformer.py of the official repository at f111ae2, in float64, before its output norms.
  const official: [number[], [number, number]][] = [
    [
      [2, 64, 25, 19],
      [342.01966600227155, 237.0209027809953],
    ],
    [
      [2, 128, 13, 10],
      [347.042340754536, 115.59813266216092],
    ],
    [
      [2, 256, 7, 5],
      [268.1779471677326, -276.234215004656],
    ],
    [
      [2, 512, 4, 3],
      [179.32117630763108, -56.82549144411479],
    ],
  ];
  assertMaps(await mapsOf(runtime, new CSWin(config), [2, 3, 100, 75]), official);
});

test("stripes of one direction have the parameters and the cost of both", async () => {
  const entry = await findModel("cswin_tiny_224");
  const named = (directions?: string) =>
    weightsOf(entry.create({ directions })).map((w) => `${w.path} ${w.tensor.shape}`);
  const one = (directions: string) => ({
    ...entry,
    create: (options = {}) => entry.create({ ...options, directions }),
  });
  for (const directions of ["horizontal", "vertical"]) {
    assert.deepEqual(named(directions), named());
    assert.deepEqual(modelCost(one(directions)), modelCost(entry));
  }
  assert.throws(
    () => entry.create({ directions: "diagonal" }),
    (error) => error instanceof UsageError && /both or horizontal or vertical/.test(error.message),
  );
});

test("directions change what a stage sees", async () => {
  const two = { ...config, depths: [1, 1] };
  const first = async (directions: "both" | "horizontal" | "vertical") =>
    (await mapsOf(runtime, new CSWin(two, { directions }), [1, 3, 32, 32]))[0].data;
  const [both, horizontal, vertical] = [await first("both"), await first("horizontal"), await first("vertical")];
  assert.notDeepEqual(both, horizontal);
  assert.notDeepEqual(both, vertical);
  assert.notDeepEqual(horizontal, vertical);
});
