import assert from "node:assert/strict";
import { after, test } from "node:test";
import { modelCost } from "../../src/backbones/cost.ts";
import { CSWin } from "../../src/backbones/cswin.ts";
import { findModel } from "../../src/backbones/index.ts";
import { UsageError } from "../../src/base/errors.ts";
import { Graph } from "../../src/graph/graph.ts";
import { staticSize } from "../../src/graph/shape.ts";
import { input, type Tensor } from "../../src/graph/tensor.ts";
import { weightsOf } from "../../src/nn/module.ts";
import { trace } from "../../src/nn/trace.ts";
import { openNode } from "../../src/runtime/node.ts";
import type { HostTensor } from "../../src/runtime/runtime.ts";
import { fingerprint, goldenWeight, uniform } from "../golden-check.ts";

const runtime = await openNode();
after(() => runtime.close());

/** The maps of an image, weights and pixels made from names. */
async function mapsOf(model: CSWin, shape: readonly number[]): Promise<HostTensor[]> {
  const image = input(shape);
  const maps = trace(model, {}, () => model.forward(image)).result;
  const named = weightsOf(model).map((w): [string, Tensor] => [w.path, w.tensor]);
  const graph = new Graph(
    [["image", image], ...named],
    maps.map((map, i) => [`map${i}`, map]),
  );
  const feeds = Object.fromEntries(
    [...graph.inputs].map(([name, tensor]): [string, HostTensor] => {
      const shape = tensor.shape as number[];
      const data =
        name === "image" ? Float32Array.from(uniform("input", staticSize(shape))) : goldenWeight(name, shape);
      return [name, { dtype: "float32", shape, data }];
    }),
  );
  const program = await runtime.compile(graph);
  const answers = await program.run(feeds);
  await program.release();
  return maps.map((_, i) => answers[`map${i}`] as HostTensor);
}

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
  const maps = await mapsOf(new CSWin(config), [2, 3, 100, 75]);
  for (const [i, [shape, theirs]] of official.entries()) {
    assert.deepEqual(maps[i].shape, shape);
    const ours = fingerprint(maps[i].data as Float32Array, `map${i}`);
    for (const k of [0, 1])
      assert.ok(Math.abs(ours[k] - theirs[k]) < 1e-5 * theirs[0], `${ours[k]}, theirs ${theirs[k]}`);
  }
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
    (await mapsOf(new CSWin(two, { directions }), [1, 3, 32, 32]))[0].data;
  const [both, horizontal, vertical] = [await first("both"), await first("horizontal"), await first("vertical")];
  assert.notDeepEqual(both, horizontal);
  assert.notDeepEqual(both, vertical);
  assert.notDeepEqual(horizontal, vertical);
});
