import { readFile } from "node:fs/promises";
import { OrielError, UsageError } from "../../base/errors.ts";
import { decodeNode, type Image } from "../../data/index.ts";
import type { Likely } from "../export/exported.ts";
import { openPredictor, type PredictorOptions } from "./predictor.ts";

export interface PredictOptions extends Omit<PredictorOptions, "pictures"> {
  /** Labels to give for each picture; 5 unless given. */
  topk?: number;
  /** Told of a picture that cannot be read, which is then left out; without it the first one ends the work. */
  onBroken?: (image: string, error: Error) => void;
}

export interface Prediction {
  image: string;
  /** The likeliest first; probabilities sum to 1 over all labels. */
  top: Likely[];
}

/** Pictures that are read and looked at side by side. */
const together = 8;

/** What a checkpoint or an exported .onnx says of some pictures, in their order. */
export async function predict(
  source: string,
  images: readonly string[],
  options: PredictOptions = {},
): Promise<Prediction[]> {
  if (!Array.isArray(images)) throw new UsageError({ message: "the pictures are no list", help: "give [path, …]" });
  const { topk = 5, onBroken, ...rest } = options;
  const predictor = await openPredictor(source, { ...rest, pictures: images.length });
  const look = async (image: string): Promise<Prediction | Error> => {
    const picture = await readPicture(image).catch((error: Error) => error);
    return picture instanceof Error ? picture : { image, top: await predictor.predict(picture, { topk }) };
  };
  try {
    const predictions: Prediction[] = [];
    for (let i = 0; i < images.length; i += together) {
      const some = images.slice(i, i + together);
      for (const [at, seen] of (await Promise.all(some.map(look))).entries()) {
        if (!(seen instanceof Error)) predictions.push(seen);
        else if (onBroken) onBroken(some[at], seen);
        else throw seen;
      }
    }
    return predictions;
  } finally {
    await predictor.close();
  }
}

async function readPicture(path: string): Promise<Image> {
  const bytes = await readFile(path).catch((cause) => {
    const known: Record<string, string> = {
      ENOENT: "there is no such picture",
      EISDIR: "this is a folder: give the pictures in it",
    };
    const message = known[cause.code] ?? `the picture cannot be read: ${cause.message}`;
    throw new OrielError("picture", { message, at: path, cause });
  });
  return decodeNode(bytes, path);
}
