import { readFile } from "node:fs/promises";
import { OrielError, UsageError } from "../base/errors.ts";
import { decodeNode, type Image, prepare } from "../data/index.ts";
import { evaluateTransform } from "./model.ts";
import { openPredictor, type PredictorOptions } from "./predictor.ts";
import { softmaxOf } from "./tally.ts";

export interface PredictOptions extends PredictorOptions {
  /** Labels to give for each picture. */
  topk?: number;
  /** Told of a picture that cannot be read, which is then left out; without it the first one ends the work. */
  onBroken?: (image: string, error: Error) => void;
}

export interface Prediction {
  image: string;
  /** The likeliest first; probabilities sum to 1 over all labels. */
  top: { label: string; probability: number }[];
}

/** What a checkpoint or an exported .onnx says of some pictures, in their order. */
export async function predict(
  source: string,
  images: readonly string[],
  options: PredictOptions = {},
): Promise<Prediction[]> {
  if (!Array.isArray(images)) throw new UsageError({ message: "the pictures are no list", help: "give [path, …]" });
  const { topk = 5, onBroken, ...rest } = options;
  const predictor = await openPredictor(source, rest);
  try {
    const view = prepare(evaluateTransform(predictor.preprocessing));
    const predictions: Prediction[] = [];
    for (const image of images) {
      const picture = await readPicture(image).catch((error: Error) => {
        if (!onBroken) throw error;
        onBroken(image, error);
      });
      if (!picture) continue;
      const data = new Float32Array(3 * view.height * view.width);
      view.apply(picture, { seed: 0, epoch: 0, index: 0, copy: 0 }, data, 0);
      const logits = await predictor.logits(data, [1, 3, view.height, view.width]);
      predictions.push({ image, top: likeliest(logits, predictor.classes, topk) });
    }
    return predictions;
  } finally {
    await predictor.close();
  }
}

function likeliest(logits: Float32Array, classes: readonly string[], count: number): Prediction["top"] {
  return softmaxOf(logits)
    .map((probability, i) => ({ label: classes[i], probability }))
    .sort((a, b) => b.probability - a.probability)
    .slice(0, count);
}

async function readPicture(path: string): Promise<Image> {
  const bytes = await readFile(path).catch((cause) => {
    const message =
      cause.code === "ENOENT" ? "there is no such picture" : `the picture cannot be read: ${cause.message}`;
    throw new OrielError("picture", { message, at: path, cause });
  });
  return decodeNode(bytes, path);
}
