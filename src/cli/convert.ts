import { z } from "zod";
import { convert } from "../train/index.ts";
import { arg, defineCommand } from "./command.ts";
import { bytes } from "./out.ts";

export default defineCommand({
  name: "convert",
  summary: "Write weights in another format, every bit as it was",
  details:
    "The formats are known by the files: torch (.pth, .pt, .th, .bin), .safetensors and .onnx.  Of an ONNX model its\n" +
    "initialisers are written under their names; to write one, --model says whose weights these are.",
  args: { source: arg("the file to read"), file: arg("the file to write: .safetensors or .onnx") },
  flags: z.object({ model: z.string().optional().describe("for .onnx: the model that the weights are for") }),
  short: { model: "m" },
  examples: [
    ["oriel convert resnet20.th resnet20.safetensors", "the same names and bits, in a file that holds nothing else"],
    ["oriel convert detector.onnx detector.safetensors", "an ONNX model's weights"],
    ["oriel convert resnet20.th resnet20.onnx --model resnet20_cifar", "a model that any ONNX Runtime can run"],
  ],
  async run({ source, file, model }, out) {
    const made = await convert(source, file, { model });
    out.result(made, () => {
      const lines = [`wrote ${made.file}: ${made.tensors} tensors, ${bytes(made.bytes)} of ${made.from} as ${made.to}`];
      if (made.difference !== undefined)
        lines.push(
          `drew ${made.model} and ran both: the answers differ by ${made.difference.toExponential(1)} at most`,
        );
      else lines.push("names, types and bits are those of the source");
      return lines.join("\n");
    });
  },
});
