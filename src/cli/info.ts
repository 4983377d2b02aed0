import { z } from "zod";
import { findModel, type ModelEntry, type NameMap, type Preprocessing } from "../backbones/index.ts";
import { UsageError } from "../base/errors.ts";
import { staticSize } from "../graph/shape.ts";
import { cost } from "../passes/cost.ts";
import { Classifier } from "../tasks/classify.ts";
import { trainSchema } from "../train/run/config.ts";
import { namesIn } from "../weights/index.ts";
import { openWeights } from "../weights/open-node.ts";
import { arg, defineCommand } from "./command.ts";
import { drawClassifier } from "./draw.ts";
import { describeFile, infoOf, meansFile } from "./info/file.ts";
import { layersOf, memoryOf } from "./info/layers.ts";
import { bytes, count, styled, table } from "./out.ts";
import { Progress } from "./progress.ts";

export default defineCommand({
  name: "info",
  summary: "One model, layer by layer, or a file of weights: names, shapes, dtypes, metadata",
  details:
    "A model: layers with shapes, parameters, multiply-adds, activation memory.  A file, a folder, an address or a name on the " +
    "model hub: what it holds, of any format, without reading the weights.",
  args: { model: arg("a model that `oriel models` lists, or a .safetensors, torch or .onnx file") },
  imports: true,
  flags: z.object({
    imageSize: trainSchema.shape.imageSize.describe("side of the images; the model's own"),
    classes: z.int().min(1).optional().describe("classes of the classifier; as published, or 1000"),
    names: z
      .enum(["timm", "official", "transformers"])
      .optional()
      .describe("list the weights instead, as published checkpoints name them"),
    depth: z.int().min(1).default(2).describe("how deep to look into modules"),
    key: z.string().optional().describe("the part of a file to look at: state_dict_ema, backbone"),
  }),
  examples: [
    ["oriel info cswin_tiny_224", "stage by stage, block by block"],
    ["oriel info vit_base_patch16_224 --names transformers", "what Hugging Face's library calls the weights"],
    ["oriel info resnet50 --image-size 320 --depth 1", "what another image size costs"],
    ["oriel info model.safetensors", "the tensors in a file, and what it says of itself"],
    ["oriel info timm/resnet50.a1_in1k", "the same of weights on the model hub"],
  ],
  async run({ model, imageSize, classes: wanted, depth, names: convention, key }, out) {
    if (meansFile(model)) {
      const progress = new Progress();
      const file = await openWeights(model, { key, onEvent: progress.on });
      progress.clear();
      const info = infoOf(file);
      await file.close();
      out.result(info, () => describeFile(info));
      return;
    }
    const entry = await findModel(model);
    const size = imageSize ?? entry.preprocessing.imageSize;
    const classes = wanted ?? (entry.classes || 1000);
    if (convention) {
      const weights = namesIn(new Classifier(entry.create({ imageSize: size }), classes), mapOf(entry, convention));
      out.result({ name: entry.name, names: convention, weights }, () =>
        table(
          ["weight", "shape"],
          weights.map(({ name, shape }) => [name, `[${shape.join(", ")}]`]),
        ),
      );
      return;
    }
    const { graph, weights } = drawClassifier(entry, { imageSize: size, classes });
    const layers = layersOf(graph, weights, depth);
    const memory = memoryOf(graph);
    const params = weights.reduce(
      (sum, { tensor, kind }) => sum + (kind === "parameter" ? staticSize(tensor.shape) : 0),
      0,
    );
    const { macs } = cost(graph);
    const { name, paper, aliases, preprocessing } = entry;
    out.result({ name, aliases, paper, params, macs, imageSize: size, memory, preprocessing, layers }, () =>
      [
        `${styled("bold", name)}${aliases.length > 0 ? ` (also ${aliases.join(", ")})` : ""}`,
        ...(paper ? [paper] : []),
        `${count(params)} parameters, ${count(macs)} multiply-adds for one image of ${size}×${size}`,
        `activations of one image: at most ${bytes(memory.peak)} at once to predict, ${bytes(memory.total)} in all to train`,
        `pictures: ${viewOf(preprocessing, size)}`,
        "",
        table(
          ["layer", "output", "params", "multiply-adds", "activations"],
          layers.map((layer) => [
            `${"  ".repeat(layer.depth)}${layer.name}`,
            `[${layer.shape.join(", ")}]`,
            layer.params > 0 ? count(layer.params) : "",
            layer.macs > 0 ? count(layer.macs) : "",
            bytes(layer.activationBytes),
          ]),
        ),
      ].join("\n"),
    );
  },
});

/** Our paths are timm's, or the official repository's where timm has no such model; these often agree, and then there is no map. */
function mapOf({ name, names }: ModelEntry, convention: "timm" | "official" | "transformers"): NameMap | undefined {
  if (convention === "transformers" && !names.transformers)
    throw new UsageError({
      message: `no names of Hugging Face's transformers are known for ${name}`,
      help: "--names timm lists those of published checkpoints",
    });
  return names[convention];
}

/** How a picture becomes the square that a model reads. */
function viewOf({ cropPct, cropMode, interpolation }: Preprocessing, size: number): string {
  if (cropMode === "squash") return `resized to ${size}×${size}, whatever their shape, ${interpolation}`;
  return `shorter side to ${Math.floor(size / cropPct)}, ${interpolation}, centre ${size}×${size}`;
}
