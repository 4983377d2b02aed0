import { readFile } from "node:fs/promises";
import { OrielError, UsageError } from "../base/errors.ts";
import { decodeNode, type Image } from "../data/index.ts";
import type { Likely } from "./exported.ts";
import { forPictures, openPredictor, type PredictorOptions } from "./predictor.ts";

export interface PredictOptions extends PredictorOptions {
  /** Labels to give for each picture. */
  topk?: number;
  /** Told of a picture that cannot be read, which is then left out; without it the first one ends the work. */
  onBroken?: (image: string, error: Error) => void;
}

export interface Prediction {
  image: string;
  /** The likeliest first; probabilities sum to 1 over all labels. */
  top: Likely[];
}

/** What a checkpoint or an exported .onnx says of some pictures, in their order. */
export async function predict(
  source: string,
  images: readonly string[],
  options: PredictOptions = {},
): Promise<Prediction[]> {
  if (!Array.isArray(images)) throw new UsageError({ message: "the pictures are no list", help: "give [path, …]" });
  const { topk = 5, onBroken, ...rest } = options;
  const node = forPictures(images.length, rest);
  const predictor = await openPredictor(source, { ...rest, ...node });
  const predictOne = async (image: string): Promise<Prediction[]> => {
    const picture = await readPicture(image).catch((error: Error) => {
      if (!onBroken) throw error;
      onBroken(image, error);
    });
    return picture ? [{ image, top: await predictor.predict(picture, { topk }) }] : [];
  };
  try {
    const predictions: Prediction[] = [];
    const together = 2 * node.streams; // so that pictures are read while others are looked at
    for (let i = 0; i < images.length; i += together) {
      const settled = await Promise.allSettled(images.slice(i, i + together).map(predictOne));
      for (const result of settled) {
        if (result.status === "rejected") throw result.reason;
        predictions.push(...result.value);
      }
    }
    return predictions;
  } finally {
    await predictor.close();
  }
}

async function readPicture(path: string): Promise<Image> {
  const bytes = await readFile(path).catch((cause) => {
    const message =
      cause.code === "ENOENT" ? "there is no such picture" : `the picture cannot be read: ${cause.message}`;
    throw new OrielError("picture", { message, at: path, cause });
  });
  return decodeNode(bytes, path);
}
