/** A side that runs an ONNX file with onnxruntime-node: `node ort-file.js FILE --threads 2`; see protocol.ts. */
import { parseArgs } from "node:util";
import * as ort from "onnxruntime-node";
import { serve } from "./protocol.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { threads: { type: "string", default: "2" } },
});
const session = await ort.InferenceSession.create(positionals[0], {
  intraOpNumThreads: Number(values.threads),
  graphOptimizationLevel: "all",
});
const feeds = Object.fromEntries(
  session.inputMetadata.map((input) => {
    if (!input.isTensor || input.type !== "float32") throw new Error(`input ${input.name} is not a float32 tensor`);
    const shape = input.shape.map(Number);
    // Any numbers of about unit size do: times do not depend on them as long as none is denormal.
    const data = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i));
    return [input.name, new ort.Tensor("float32", data, shape)];
  }),
);
await serve({ ready: "ort-export", versions: { "onnxruntime-node": ort.env.versions.node ?? "?" } }, () =>
  session.run(feeds),
);
