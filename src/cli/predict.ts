import { stat } from "node:fs/promises";
import { z } from "zod";
import { OrielError, UsageError } from "../base/errors.ts";
import { onOneLine } from "../base/text.ts";
import { listFolder } from "../data/folder.ts";
import { predict } from "../train/index.ts";
import { arg, defineCommand, several, shared, streams } from "./command.ts";
import { percent, table } from "./out.ts";

export default defineCommand({
  name: "predict",
  summary: "What a model sees in pictures: the likeliest classes",
  args: {
    checkpoint: arg("a checkpoint or an exported .onnx"),
    images: several("pictures, or folders of them"),
  },
  imports: true,
  flags: z.object({
    topk: z.int().min(1).default(5).describe("classes to give for each picture"),
    model: z.string().optional().describe("the model that plain weights are for"),
    classes: z.array(z.string()).optional().describe("its classes, in order"),
    ...shared,
    streams,
  }),
  short: { topk: "k", model: "m" },
  examples: [
    ["oriel predict runs/cswin_tiny_224/best.safetensors holiday/*.jpg", "a line for each picture"],
    ["oriel predict model.onnx photo.jpg --json", "for machines: [{ image, top: [{ label, probability }] }]"],
  ],
  async run({ checkpoint, images, ...options }, out) {
    if (options.classes && !options.model) throw new UsageError("--classes goes with --model");
    let broken = 0;
    const onBroken = (image: string, error: Error): void => {
      broken++;
      out.note(`left out ${onOneLine(image)}: ${error instanceof OrielError ? error.facts.message : error.message}`);
    };
    const predictions = await predict(checkpoint, await pictures(images), { ...options, onBroken });
    if (predictions.length === 0)
      throw new OrielError(
        "picture",
        broken > 1
          ? `none of ${broken} pictures can be read`
          : broken === 1
            ? "the picture cannot be read"
            : "there are no pictures in these folders",
      );
    out.result(predictions, () =>
      table(
        ["picture", "most likely", "", "or"],
        predictions.map(({ image, top: [first, ...others] }) => [
          onOneLine(image),
          onOneLine(first.label),
          percent(first.probability),
          others.map(({ label, probability }) => `${onOneLine(label)} ${percent(probability)}`).join(", "),
        ]),
      ),
    );
    if (broken > 0)
      throw new OrielError("picture", `${broken} of ${broken + predictions.length} pictures were left out`);
  },
});

/** Pictures in the order given; a folder stands for those in it. */
async function pictures(paths: readonly string[]): Promise<string[]> {
  const found = await Promise.all(
    paths.map(async (path) => {
      if (!(await stat(path).catch(() => undefined))?.isDirectory()) return [path];
      const { paths: inside, name } = await listFolder(path);
      return inside.map((_, i) => name(i));
    }),
  );
  return found.flat();
}
