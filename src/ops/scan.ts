import type { Body } from "../graph/tensor.ts";
import { defineMany } from "./define.ts";

/**
 * A body run on one slice of its inputs along their first axis after another, its results joined (ONNX Scan).  It has no gradient:
 * passes draw it where one has been drawn.  Inputs: [N, ...S] for each input of the body [...S], then what the body captures.
 */
export const scan = defineMany<{ body: Body }>({
  onnx: "Scan",
  inputs: "variadic",
  infer: ([x], { body }) => body.outputs.map(({ dtype, shape }) => ({ dtype, shape: [x.shape[0], ...shape] })),
  vjp: "none",
  form: ({ body }) => ({ attributes: { body, num_scan_inputs: body.inputs.length } }),
});
