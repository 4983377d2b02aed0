import { z } from "zod";
import { convert } from "../train/index.ts";
import { arg, defineCommand } from "./command.ts";
import { bytes } from "./out.ts";
import { Progress } from "./progress.ts";

export default defineCommand({
  name: "convert",
  summary: "Write weights in another format, every bit as it was",
  details:
    "What is read is known by its content: torch of both kinds, safetensors, whole or in parts, ONNX; a folder or a name on " +
    "the hub will do.  What is written is known by its name: .safetensors, torch (.pth, .pt, .th, .bin), .onnx.  Of an ONNX " +
    "model its initialisers are taken under their names; to write one, --model says whose weights these are.",
  args: { source: arg("the weights to read"), file: arg("the file to write") },
  imports: true,
  flags: z.object({ model: z.string().optional().describe("for .onnx: the model that the weights are for") }),
  short: { model: "m" },
  examples: [
    ["oriel convert resnet20.th resnet20.safetensors", "the same names and bits, in a file that holds nothing else"],
    ["oriel convert detector.onnx detector.pth", "an ONNX model's weights, for torch.load"],
    ["oriel convert resnet20.th resnet20.onnx --model resnet20_cifar", "a model that any ONNX Runtime can run"],
  ],
  async run({ source, file, model }, out) {
    const progress = new Progress();
    const made = await convert(source, file, { model, onEvent: progress.on }).finally(() => progress.clear());
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
