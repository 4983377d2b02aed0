import assert from "node:assert/strict";
import { test } from "node:test";
import { z } from "zod";
import { UsageError } from "../../src/base/errors.ts";
import { check, flagsOf } from "../../src/cli/flags.ts";

const schema = z.strictObject({
  data: z.string(),
  imageSize: z.int().min(1).default(32).describe("side of the images"),
  val: z.union([z.string(), z.number().gt(0).lt(1)]).optional(),
  betas: z.tuple([z.number(), z.number()]).default([0.9, 0.999]),
  kind: z.enum(["adamw", "sgd"]).default("adamw").describe("rule"),
  balanced: z.boolean().default(false),
  flip: z.boolean().default(true),
  options: z.record(z.string(), z.union([z.string(), z.number()])).optional(),
});
const flags = flagsOf(schema, ["data"]);
const flag = (key: string) => flags.find((f) => f.key === key)!;

test("flags come from a schema", () => {
  assert.deepEqual(
    flags.map(({ usage }) => usage),
    [
      "--image-size <n>",
      "--val <text|n>",
      "--betas <n,…>",
      "--kind <name>",
      "--balanced",
      "--no-flip",
      "--options <key=value,…>",
    ],
  );
  assert.equal(flag("imageSize").description, "side of the images (32)");
  assert.equal(flag("kind").description, "rule: adamw, sgd (adamw)");
});

test("words become the values that the schema wants", () => {
  assert.equal(flag("imageSize").read("64"), 64);
  assert.equal(flag("imageSize").read("wide"), "wide"); // left for the check to refuse
  assert.equal(flag("val").read("0.1"), 0.1);
  assert.equal(flag("val").read("folder"), "folder");
  assert.deepEqual(flag("options").read("depth=3,way=both"), { depth: 3, way: "both" });
  assert.deepEqual(flag("options").read('{"depth":3}'), { depth: 3 });
  assert.equal(flag("options").read("depth"), "depth");
  assert.deepEqual(flag("betas").read("0.9, 0.99"), [0.9, 0.99]);
});

test("all faults at once, by the names that were used", () => {
  const fault = (values: object, where?: Parameters<typeof check>[2]): string => {
    try {
      check(schema, values, where);
    } catch (error) {
      assert.ok(error instanceof UsageError);
      return error.message;
    }
    return "";
  };
  assert.equal(
    fault({ data: "", imageSize: Number.POSITIVE_INFINITY }),
    "--image-size is Infinity, expected a finite number",
  );
  assert.equal(
    fault({ data: "", val: true }, { file: "run.json" }),
    "val is true, expected text or a number (at run.json)",
  );
  assert.match(
    fault({ imageSize: 0, kind: "adam" }, { args: ["data"] }),
    /3 values[\s\S]*<data> is missing[\s\S]*--image-size is 0, expected at least 1[\s\S]*--kind is "adam", expected one of adamw, sgd/,
  );
  assert.match(
    fault({ data: "x", imageSizes: 3 }, { file: "run.json" }),
    /^imageSizes: there is no such key; did you mean imageSize\? \(at run\.json\)/,
  );
  assert.match(fault({ data: "x", imageSize: 1.5 }), /--image-size is 1\.5, expected a whole number/);
});
