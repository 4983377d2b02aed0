import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { gradients } from "../../src/autodiff/gradients.ts";
import { isFloat } from "../../src/graph/dtype.ts";
import * as ops from "../../src/ops/index.ts";
import { numbers } from "../support/arrays.ts";
import { checkGrad, checkOp, evaluate } from "../support/check.ts";
import { kinds } from "./cases/index.ts";
import { sharedGradients } from "./cases/reduce.ts";

for (const [kind, cases] of Object.entries(kinds))
  describe(kind, () => {
    for (const { name, draw, inputs, naive, ...options } of cases)
      test(name, async () => {
        await checkOp(draw, inputs, naive, options.dtype ? { dtype: options.dtype } : {});
        const differentiable = options.wrt ?? inputs.filter((x) => isFloat(x.dtype));
        if (differentiable.length > 0) await checkGrad(draw, inputs, options);
      });
  });

test("every exported operation is in the table", () => {
  const tested = new Set(
    Object.values(kinds)
      .flat()
      .map(({ name }) => name.split(":")[0]),
  );
  assert.deepEqual(
    Object.keys(ops).filter((name) => !tested.has(name)),
    [],
  );
});

describe("gradients where a function bends", () => {
  for (const [name, x, draw, wanted] of sharedGradients)
    test(name, async () => {
      assert.deepEqual(numbers(await evaluate((x) => gradients(draw(x).sum(), [x])[0], x)), wanted);
    });
});
