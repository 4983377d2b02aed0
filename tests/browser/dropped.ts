import { gradients } from "../../src/autodiff/gradients.ts";
import { Graph } from "../../src/graph/graph.ts";
import { input, type Tensor } from "../../src/graph/tensor.ts";
import { initialWeights, parametersOf } from "../../src/nn/module.ts";
import { importOnnx } from "../../src/nn/onnx-module.ts";
import { trace } from "../../src/nn/trace.ts";
import { type HostTensor, numberOf, type Runtime } from "../../src/runtime/runtime.ts";
import { openWeights } from "../../src/weights/open.ts";
import { blobSource } from "../../src/weights/source.ts";
import { toFloat32 } from "../../src/weights/stored.ts";

/** What became of a dropped file. */
export interface Dropped {
  tensors: number;
  /** The sum of one weight's values, and the share of the file that was read for it. */
  sum: number;
  read: number;
  /** Before each of a few steps down the gradient. */
  losses: number[];
}

/** What a page may do with a dropped ONNX model: look into it, read one weight by ranges, import it and let it learn. */
export async function learnFrom(runtime: Runtime, file: Blob, weight: string): Promise<Dropped> {
  const source = blobSource(file);
  let bytes = 0;
  const opened = await openWeights({
    ...source,
    size: source.size,
    read: (from, to) => {
      bytes += to - from;
      return source.read(from, to);
    },
  });
  const one = opened.tensors.get(weight);
  if (!one) throw new Error(`no ${weight} among ${[...opened.tensors.keys()].slice(0, 5)}`);
  const sum = toFloat32(await one.read()).reduce((a, b) => a + b, 0);
  const read = bytes / file.size;
  await opened.close();

  const model = importOnnx(new Uint8Array(await file.arrayBuffer()));
  const image = input([2, 3, 32, 32]);
  const { graph, names } = trace(model, {}, () => {
    const logits = [model.forward(image)].flat()[0];
    const loss = logits.square().mean();
    const parameters = parametersOf(model).filter(({ tensor }) => tensor.dtype === "float32");
    const slopes = gradients(
      loss,
      parameters.map(({ tensor }) => tensor),
    );
    const next = parameters.map(({ path, tensor }, i): [string, Tensor] => [
      `next.${path}`,
      tensor.sub(slopes[i].mul(0.05)),
    ]);
    const given = parameters.map(({ path, tensor }): [string, Tensor] => [path, tensor]);
    return {
      graph: new Graph([["image", image], ...given], [["loss", loss], ...next]),
      names: given.map(([path]) => path),
    };
  }).result;

  const program = await runtime.compile(graph);
  const start = initialWeights(model, 0);
  const shapes = new Map(parametersOf(model).map(({ path, tensor }) => [path, tensor.shape as number[]]));
  let weights = Object.fromEntries(
    names.map((path): [string, HostTensor] => [
      path,
      { dtype: "float32", shape: shapes.get(path)!, data: start.get(path)! },
    ]),
  );
  const pixels = Float32Array.from({ length: 2 * 3 * 32 * 32 }, (_, i) => Math.sin(i * 0.37));
  const losses: number[] = [];
  for (let step = 0; step < 4; step++) {
    const found = await program.run({ image: { dtype: "float32", shape: [2, 3, 32, 32], data: pixels }, ...weights });
    losses.push(numberOf(found.loss));
    weights = Object.fromEntries(names.map((path) => [path, found[`next.${path}`] as HostTensor]));
  }
  await program.release();
  return { tensors: opened.tensors.size, sum, read, losses };
}
