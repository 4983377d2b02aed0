import { readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { OrielError } from "../../base/errors.ts";
import { Random } from "../../base/philox.ts";
import type { Graph } from "../../graph/graph.ts";
import { openNode } from "../../runtime/node.ts";
import type { HostTensor } from "../../runtime/runtime.ts";
import type { ModelMetadata } from "../checkpoint/model-metadata.ts";
import { softmaxOf } from "../evaluate/tally.ts";
import { DeviceState } from "../step/device-state.ts";

/** How far an exported model may be from the one it came from: rounding, since other operators compute the same. */
const tolerance = 1e-4;

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
  const runtime = await openNode();
  try {
    const written = await runtime.compile(await readFile(file), { folder: dirname(file), transfer: true });
    const origin = await runtime.compile(plain, { optimize: "basic" });
    const given = [...plain.inputs].filter(([name]) => name !== "image");
    const state = await DeviceState.upload(
      runtime,
      new Map(given.map(([name, { shape }]) => [name, { shape: shape as number[], data: values.get(name)! }])),
    );
    const weights = state.feeds(state.names);
    let worst = 0;
    for (const batch of [1, 3]) {
      const { bytes, pixels } = noise(batch, told);
      const { [told.output]: answer } = await written.run({ image: told.input === "uint8" ? bytes : pixels });
      const { logits } = await origin.run({ ...weights, image: pixels });
      worst = Math.max(worst, difference(answer?.data as Float32Array, wanted(logits.data as Float32Array, told)));
    }
    if (worst <= tolerance) return worst;
    throw new OrielError("export", {
      message: `the written model answers otherwise than the one it came from: by ${worst.toExponential(1)} of the largest answer`,
      details: [`up to ${tolerance} is rounding`],
      help: "nothing was left behind; another --opset or --target may do",
    });
  } finally {
    await runtime.close();
  }
}

/** Pictures of noise, as they are and normalised: uint8 [N, H, W, 3] and float32 [N, 3, H, W]. */
function noise(batch: number, { preprocessing }: ModelMetadata): { bytes: HostTensor; pixels: HostTensor } {
  const { imageSize, mean, std } = preprocessing;
  const area = imageSize * imageSize;
  const random = new Random(0, "export", batch);
  const bytes = Uint8Array.from({ length: batch * area * 3 }, () => random.uint32() & 255);
  const pixels = new Float32Array(bytes.length);
  for (let n = 0; n < batch; n++)
    for (let c = 0; c < 3; c++)
      for (let p = 0; p < area; p++)
        pixels[(n * 3 + c) * area + p] = (bytes[(n * area + p) * 3 + c] / 255 - mean[c]) / std[c];
  return {
    bytes: { dtype: "uint8", shape: [batch, imageSize, imageSize, 3], data: bytes },
    pixels: { dtype: "float32", shape: [batch, 3, imageSize, imageSize], data: pixels },
  };
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
