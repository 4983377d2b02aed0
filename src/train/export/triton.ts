import { basename, join, resolve } from "node:path";
import { writeFileSafely } from "../../weights/write-file.ts";
import type { ModelMetadata } from "../checkpoint/model-metadata.ts";

/** Pictures that the server may gather for one run. */
const mostTogether = 64;

/**
 * What a Triton server wants beside a model: `config.pbtxt` and the labels.  The folder goes into the server's model repository as it is.
 * https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html
 */
export async function tritonFiles(folder: string, told: ModelMetadata): Promise<string[]> {
  const { classes, preprocessing, input, output } = told;
  const { imageSize } = preprocessing;
  const picture =
    input === "uint8"
      ? { type: "TYPE_UINT8", dims: [imageSize, imageSize, 3] }
      : { type: "TYPE_FP32", dims: [3, imageSize, imageSize] };
  const config = `name: "${basename(resolve(folder))}"
backend: "onnxruntime"
max_batch_size: ${mostTogether}
input [ { name: "image" data_type: ${picture.type} dims: [ ${picture.dims.join(", ")} ] } ]
output [ { name: "${output}" data_type: TYPE_FP32 dims: [ ${classes.length} ] label_filename: "labels.txt" } ]
dynamic_batching { }
`;
  const files = { "config.pbtxt": config, "labels.txt": `${classes.join("\n")}\n` };
  const paths: string[] = [];
  for (const [name, text] of Object.entries(files)) {
    const path = join(folder, name);
    await writeFileSafely(path, [new TextEncoder().encode(text)]);
    paths.push(path);
  }
  return paths;
}
