import { stat } from "node:fs/promises";
import { z } from "zod";
import { UsageError } from "../base/errors.ts";
import { exportModel, exportTrainStep } from "../train/index.ts";
import { arg, defineCommand } from "./command.ts";
import { bytes } from "./out.ts";

export default defineCommand({
  name: "export",
  summary: "Write a model, or its whole training step, as an ONNX file",
  details:
    "The model takes any number of pictures; how they are prepared, its labels and its licence are in the file's metadata.\n" +
    "With --train-step the file is one step of training, for any ONNX Runtime in any language; its state lies beside it\n" +
    "(.safetensors), and what to feed it (.json).",
  args: {
    checkpoint: arg("a checkpoint; with --train-step also a run's config.json, for its beginning"),
    file: arg("the file to write, .onnx"),
  },
  flags: z.object({
    trainStep: z.boolean().default(false).describe("export the training step instead of the model"),
    batches: z.int().min(0).default(0).describe("with --train-step: write this many of the next batches too"),
    input: z
      .enum(["float32", "uint8"])
      .default("float32")
      .describe("pictures normalised by the caller [N, 3, H, W], or their bytes [N, H, W, 3]"),
    target: z
      .enum(["onnx", "webgpu"])
      .default("onnx")
      .describe("operators to use: the standard's, or also those that ONNX Runtime has on WebGPU"),
    licence: z.string().optional().describe("who may use the weights for what, such as MIT"),
  }),
  examples: [
    ["oriel export runs/cswin_tiny_224/best.safetensors model.onnx", "a model that any ONNX Runtime can run"],
    ["oriel export best.safetensors model.onnx --input uint8", "normalising by itself: give it the pixels"],
    ["oriel export runs/micro/config.json step.onnx --train-step", "training, as a file"],
  ],
  async run({ checkpoint, file, trainStep, batches, ...options }, out) {
    if (!file.toLowerCase().endsWith(".onnx"))
      throw new UsageError({ message: `the file to write is ${file}`, help: "give it a name that ends in .onnx" });
    if (!trainStep && batches > 0) throw new UsageError("--batches goes with --train-step");
    if (trainStep) {
      const { model, files, state, metrics } = await exportTrainStep(checkpoint, file, { batches });
      out.result({ model, files, metrics }, () =>
        [
          `wrote a training step of ${model}: ${Object.values(files).join(", ")}, ${files.step.replace(/onnx$/i, "json")}`,
          `${state.length} tensors of state go in as X and come out as next.X, beside ${metrics.join(", ")}`,
        ].join("\n"),
      );
      return;
    }
    const { model, classes, input } = await exportModel(checkpoint, file, options);
    const { size } = await stat(file);
    out.result({ model, file, bytes: size, classes: classes.length, input }, () =>
      [
        `wrote ${file}, ${bytes(size)}: ${model} for ${classes.length} classes`,
        `try it: oriel predict ${file} <images…>`,
      ].join("\n"),
    );
  },
});
