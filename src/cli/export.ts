import { stat } from "node:fs/promises";
import { z } from "zod";
import { UsageError } from "../base/errors.ts";
import { commandWord } from "../base/text.ts";
import { type Opset, opsets } from "../graph/index.ts";
import { exportChoices, exportModel, exportTrainStep } from "../train/index.ts";
import { arg, defineCommand } from "./command.ts";
import { flagName } from "./flags.ts";
import { bytes } from "./out.ts";

const flags = z.object({
  trainStep: z.boolean().default(false).describe("export the training step instead of the model"),
  batches: z.int().min(0).default(0).describe("with --train-step: write this many of the next batches too"),
  input: z
    .enum(exportChoices.input)
    .default("float32")
    .describe("pictures normalised by the caller [N, 3, H, W], or their bytes [N, H, W, 3]"),
  output: z.enum(exportChoices.output).default("logits").describe("what the model gives"),
  preprocess: z.boolean().default(false).describe("--input uint8 --output probabilities: all but the resizing inside"),
  target: z
    .enum(exportChoices.target)
    .default("onnx")
    .describe(
      "where it is to run: anywhere, on WebGPU with the engine's own operators, in Node, in a page, on a Triton server",
    ),
  opset: z
    .int()
    .optional()
    .describe(`version of ONNX's operators, ${opsets[0]} to ${opsets.at(-1)} (21)`),
  externalData: z.boolean().default(false).describe("write the weights to <file>.data; above 2 GB they always are"),
  licence: z.string().optional().describe("who may use the weights for what, such as MIT"),
  source: z.string().optional().describe("where the weights come from"),
});
const usual = flags.parse({});

export default defineCommand({
  name: "export",
  summary: "Write a model, or its whole training step, as an ONNX file",
  details:
    "The model takes any number of pictures; how they are prepared, its labels and its licence are in the file's metadata.\n" +
    "With --train-step the file is one step of training, for any ONNX Runtime in any language; its state lies beside it " +
    "(.safetensors), and what to feed it (.json).",
  args: {
    checkpoint: arg("a checkpoint; with --train-step a run's last.safetensors, or its config.json for its beginning"),
    file: arg("the file to write, .onnx; for Triton a folder"),
  },
  imports: true,
  flags,
  examples: [
    ["oriel export runs/cswin_tiny_224/best.safetensors model.onnx", "a model that any ONNX Runtime can run"],
    ["oriel export best.safetensors model.onnx --preprocess", "give it the pixels, it gives probabilities"],
    ["oriel export best.safetensors flowers --target triton", "a folder for the model repository of a Triton server"],
    ["oriel export runs/micro/config.json step.onnx --train-step", "training, as a file"],
  ],
  async run({ checkpoint, file, trainStep, batches, ...ofModel }, out) {
    const { preprocess, opset, ...options } = ofModel;
    const triton = options.target === "triton";
    if (!trainStep && batches > 0) throw new UsageError("--batches goes with --train-step");
    if (trainStep) {
      const idle = (Object.keys(ofModel) as (keyof typeof ofModel)[]).filter((key) => ofModel[key] !== usual[key]);
      if (idle.length > 0)
        throw new UsageError({
          message: `with --train-step there is no place for ${idle.map(flagName).join(", ")}`,
          help: "leave them out; they are for the model alone",
        });
      const { model, files, state, metrics } = await exportTrainStep(checkpoint, file, { batches });
      out.result({ model, files, metrics }, () =>
        [
          `wrote a training step of ${model}: ${Object.values(files).join(", ")}, ${files.step.replace(/onnx$/i, "json")}`,
          `${state.length} tensors of state go in as X and come out as next.X, beside ${metrics.join(", ")}`,
        ].join("\n"),
      );
      return;
    }
    if (opset !== undefined && !(opsets as readonly number[]).includes(opset))
      throw new UsageError({ message: `--opset is ${opset}`, help: `${opsets.join(", ")} can be written` });
    const both = preprocess ? ({ input: "uint8", output: "probabilities" } as const) : {};
    const made = await exportModel(checkpoint, file, { ...options, ...both, opset: opset as Opset | undefined });
    const { model, classes, input, output, files, difference } = made;
    const size = (await Promise.all(files.map((path) => stat(path)))).reduce((sum, { size }) => sum + size, 0);
    out.result({ model, file, files, bytes: size, classes: classes.length, input, output, difference }, () =>
      [
        `wrote ${files.join(", ")}, ${bytes(size)}: ${model} for ${classes.length} classes`,
        `ran it beside the checkpoint: the answers differ by ${difference.toExponential(1)} at most`,
        triton
          ? `put the folder ${file} into the server's model repository`
          : `try it: oriel predict ${commandWord(file)} <images…>`,
      ].join("\n"),
    );
  },
});
