import { OrielError } from "../../base/errors.ts";
import { checkNumbers } from "../../base/options.ts";
import type { Image } from "../../data/image.ts";
import { prepare } from "../../data/transform.ts";
import { isCount } from "../../graph/shape.ts";
import type { CompileOptions, HostTensor, Runtime } from "../../runtime/runtime.ts";
import { evaluateTransform, type ModelDescription } from "../checkpoint/model.ts";
import { readModelMetadata } from "../checkpoint/model-metadata.ts";
import { inPieces } from "../evaluate/pieces.ts";
import { softmaxOf } from "../evaluate/tally.ts";

/** image [N, 3, H, W] -> logits [N, classes] */
export type Logits = (image: Float32Array<ArrayBuffer>, shape: readonly number[]) => Promise<Float32Array>;

/** A class, and what a model gives it. */
export interface Likely {
  label: string;
  probability: number;
}

/** A trained classifier, ready to be shown pictures. */
export interface Predictor extends ModelDescription {
  /** Of pictures that are prepared already, as `preprocessing` says. */
  logits: Logits;
  /** The likeliest classes of a picture of any size, five or so many; probabilities sum to 1 over all classes. */
  predict(image: Image, options?: { topk?: number }): Promise<Likely[]>;
  /** Gives the memory back. */
  close(): Promise<void>;
}

/** A predictor of what computes logits on a runtime, a few pictures at a time; `at` is the file that they come from, for messages. */
export function predictorOf(
  description: ModelDescription,
  { runtime, run, close, at }: { runtime: Runtime; run: Logits; close: () => Promise<void>; at?: string },
): Predictor {
  const { classes, preprocessing } = description;
  const view = prepare(evaluateTransform(preprocessing));
  const logits: Logits = async (data, shape) => checkAnswer(await inPieces(runtime, data, shape, run), at);
  return {
    ...description,
    logits,
    close,
    predict: async (image, { topk = 5 } = {}) => {
      checkNumbers({ topk }, isCount, "a whole number of at least 1");
      const data = new Float32Array(3 * view.height * view.width);
      view.apply(image, { seed: 0, epoch: 0, index: 0, copy: 0 }, data, 0);
      return softmaxOf(await logits(data, [1, 3, view.height, view.width]))
        .map((probability, i) => ({ label: classes[i], probability }))
        .sort((a, b) => b.probability - a.probability)
        .slice(0, topk);
    },
  };
}

/** A logit of -∞ rules a class out; NaN and ∞ say nothing, and would count as an answer. */
export function checkAnswer(logits: Float32Array, at?: string): Float32Array {
  const wrong = logits.find((x) => !(x < Number.POSITIVE_INFINITY));
  if (wrong === undefined) return logits;
  throw new OrielError("non-finite", {
    message: `the model answers with a logit of ${wrong}`,
    at,
    help: "its weights are damaged, or too large for the type that it computes in",
  });
}

/**
 * Opens what `oriel export` writes, whatever it takes and gives, in Node and in a page alike: what it says of itself, and what it says of
 * pictures.  The runtime stays the caller's.
 */
export async function openExported(
  runtime: Runtime,
  bytes: Uint8Array<ArrayBuffer>,
  { at, ...options }: CompileOptions & { at?: string } = {},
): Promise<Predictor> {
  const { input, output, ...description } = readModelMetadata(bytes, at);
  const program = await runtime.compile(bytes, options);
  const run: Logits = async (data, shape) => {
    const image: HostTensor =
      input === "uint8" ? pixelsOf(data, shape, description) : { dtype: "float32", shape, data };
    const found = await program.run({ image }, { transfer: true });
    if (!found[output])
      throw new OrielError("foreign", {
        message: `the model says that it gives ${output}, but it gives ${Object.keys(found).join(", ")}`,
        at,
      });
    const values = found[output].data as Float32Array;
    // A softmax of logarithms gives the probabilities back.
    return output === "logits" ? values : values.map((p) => Math.log(Math.max(p, 1e-30)));
  };
  return predictorOf(description, { runtime, run, close: () => program.release(), at });
}

/** The bytes that normalised values came from.  [N, 3, H, W] -> [N, H, W, 3] */
function pixelsOf(
  image: Float32Array,
  [n, , height, width]: readonly number[],
  { preprocessing }: ModelDescription,
): HostTensor {
  const { mean, std } = preprocessing;
  const area = height * width;
  const data = new Uint8Array(image.length);
  for (let i = 0; i < n; i++)
    for (let c = 0; c < 3; c++)
      for (let p = 0; p < area; p++)
        data[(i * area + p) * 3 + c] = Math.round((image[(i * 3 + c) * area + p] * std[c] + mean[c]) * 255);
  return { dtype: "uint8", shape: [n, height, width, 3], data };
}
