import { OrielError } from "../base/errors.ts";
import { Random } from "../base/philox.ts";
import type { Graph } from "../graph/graph.ts";
import { writeOnnx } from "../graph/onnx/write.ts";
import type { ModelMetadata } from "./model-metadata.ts";
import { softmaxOf } from "./tally.ts";

/** How far an exported model may be from the one it came from: rounding, since other operators compute the same. */
const most = 1e-4;

interface Origin {
  /** (image, weights) -> logits */
  plain: Graph;
  values: ReadonlyMap<string, Float32Array<ArrayBuffer>>;
  told: ModelMetadata;
}

/**
 * Runs a written file and the model that it came from on the same pictures of noise, one alone and three together.  The model gets its
 * weights as inputs, so that nothing of what was written is taken for granted.  -> the largest difference, relative to the largest
 * answer; an error where it is more than rounding
 */
export async function checkExport(file: string, { plain, values, told }: Origin): Promise<number> {
  const ort = await import("onnxruntime-node");
  const quiet = { logSeverityLevel: 3 } as const;
  const [written, origin] = [
    await ort.InferenceSession.create(file, quiet),
    await ort.InferenceSession.create(writeOnnx(plain), { ...quiet, graphOptimizationLevel: "basic" }),
  ];
  const weights = Object.fromEntries(
    [...plain.inputs]
      .filter(([name]) => name !== "image")
      .map(([name, { shape }]) => [name, new ort.Tensor("float32", values.get(name)!, shape as number[])]),
  );
  const { imageSize, mean, std } = told.preprocessing;
  const area = imageSize * imageSize;
  let worst = 0;
  try {
    for (const batch of [1, 3]) {
      const random = new Random(0, "export", batch);
      const bytes = Uint8Array.from({ length: batch * area * 3 }, () => random.uint32() & 255);
      const image = new Float32Array(bytes.length);
      for (let n = 0; n < batch; n++)
        for (let c = 0; c < 3; c++)
          for (let p = 0; p < area; p++)
            image[(n * 3 + c) * area + p] = (bytes[(n * area + p) * 3 + c] / 255 - mean[c]) / std[c];
      const pixels = new ort.Tensor("float32", image, [batch, 3, imageSize, imageSize]);
      const fed = told.input === "uint8" ? new ort.Tensor("uint8", bytes, [batch, imageSize, imageSize, 3]) : pixels;
      const { [told.output]: answer } = await written.run({ image: fed });
      const { logits } = await origin.run({ ...weights, image: pixels });
      worst = Math.max(worst, difference(answer?.data as Float32Array, wanted(logits.data as Float32Array, told)));
    }
  } finally {
    await Promise.all([written.release(), origin.release()]);
  }
  if (worst <= most) return worst;
  throw new OrielError("export", {
    message: `the written model answers otherwise than the one it came from: by ${worst.toExponential(1)} of the largest answer`,
    details: [`up to ${most} is rounding`],
    help: "nothing was left behind; another --opset or --target may do",
  });
}

function wanted(logits: Float32Array, { output, classes }: ModelMetadata): Float32Array {
  if (output === "logits") return logits;
  const count = classes.length;
  const rows = Array.from({ length: logits.length / count }, (_, i) =>
    softmaxOf(logits.slice(i * count, (i + 1) * count)),
  );
  return Float32Array.from(rows.flat());
}

function difference(got: Float32Array | undefined, expected: Float32Array): number {
  if (got?.length !== expected.length) return Infinity;
  let [largest, apart] = [1e-6, 0];
  for (const [i, value] of expected.entries()) {
    largest = Math.max(largest, Math.abs(value));
    const off = Math.abs(got[i] - value);
    apart = off <= apart ? apart : off; // not a number counts as apart
  }
  return apart / largest;
}
