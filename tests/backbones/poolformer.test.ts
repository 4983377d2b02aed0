import assert from "node:assert/strict";
import { test } from "node:test";
import { findModel } from "../../src/backbones/index.ts";
import { UsageError } from "../../src/base/errors.ts";
import { input } from "../../src/graph/tensor.ts";
import { weightsOf } from "../../src/nn/module.ts";
import { trace } from "../../src/nn/trace.ts";

test("mixers share a skeleton: pooling and none have the same weights, attention its own besides", async () => {
  const entry = await findModel("poolformer_micro_32");
  const paths = (mixer?: string) => weightsOf(entry.create({ mixer })).map((w) => w.path);
  assert.deepEqual(paths("pooling"), paths());
  assert.deepEqual(paths("identity"), paths());
  assert.deepEqual(
    paths("attention").filter((path) => !path.includes("token_mixer")),
    paths(),
  );
  assert.equal(paths("attention").length, paths().length + 2 * 6);
  const maps = (mixer: string) => {
    const model = entry.create({ mixer });
    return trace(model, {}, () => model.forward(input([1, 3, 32, 32]))).result.map((map) => map.shape);
  };
  assert.deepEqual(maps("identity"), maps("pooling"));
  assert.deepEqual(maps("attention"), maps("pooling"));
  assert.throws(
    () => entry.create({ mixer: "none" }),
    (error) => error instanceof UsageError && /pooling or identity or attention/.test(error.message),
  );
});
