import assert from "node:assert/strict";
import { test } from "node:test";
import { findModel } from "../../src/backbones/index.ts";
import { UsageError } from "../../src/base/errors.ts";
import { input } from "../../src/graph/tensor.ts";
import { weightsOf } from "../../src/nn/module.ts";

test("filters belong to a size of image; images of another are told so", async () => {
  const shapesOf = async (name: string, imageSize: readonly [number, number]) =>
    weightsOf((await findModel(name)).create({ imageSize }))
      .filter((w) => w.path.endsWith("complex_weight"))
      .map((w) => w.tensor.shape.join());
  assert.equal((await shapesOf("spectformer_xs_224", [160, 96]))[0], "10,4,384,2");
  assert.deepEqual([...new Set(await shapesOf("spectformer_h_s_224", [100, 75]))], ["25,10,64,2", "13,6,128,2"]);
  for (const [name, size] of [
    ["spectformer_xs_224", [160, 160]],
    ["spectformer_xs_224", [112, 448]], // as many patches
    ["spectformer_h_s_224", [160, 160]],
  ] as const) {
    const model = (await findModel(name)).create();
    assert.throws(
      () => model.embed(input([1, 3, ...size])),
      (error) => error instanceof UsageError && /imageSize/.test(`${error.facts.help}`),
    );
  }
});
