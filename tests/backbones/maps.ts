import assert from "node:assert/strict";
import type { Backbone } from "../../src/backbones/index.ts";
import { Graph } from "../../src/graph/graph.ts";
import { staticSize } from "../../src/graph/shape.ts";
import { input, type Tensor } from "../../src/graph/tensor.ts";
import { type Module, weightsOf } from "../../src/nn/module.ts";
import { trace } from "../../src/nn/trace.ts";
import type { HostTensor, Runtime } from "../../src/runtime/runtime.ts";
import { fingerprint, goldenWeight, uniform } from "../golden-check.ts";

/** The maps of an image, weights and pixels made from names; `adjust` changes a weight. */
export const mapsOf = (runtime: Runtime, model: Backbone, shape: readonly number[], adjust?: Adjust) =>
  answersOf(runtime, model, shape, (image) => model.forward(image), adjust);

type Adjust = (path: string, value: number) => number;

/** The same of whatever `draw` makes of an image with the model. */
export async function answersOf(
  runtime: Runtime,
  model: Module,
  shape: readonly number[],
  draw: (image: Tensor) => Tensor[],
  adjust: Adjust = (_, value) => value,
): Promise<HostTensor[]> {
  const image = input(shape);
  const maps = trace(model, {}, () => draw(image)).result;
  const named = weightsOf(model).map((w): [string, Tensor] => [w.path, w.tensor]);
  const graph = new Graph(
    [["image", image], ...named],
    maps.map((map, i) => [`map${i}`, map]),
  );
  const feeds = Object.fromEntries(
    [...graph.inputs].map(([name, tensor]): [string, HostTensor] => {
      const shape = tensor.shape as number[];
      const data =
        name === "image"
          ? Float32Array.from(uniform("input", staticSize(shape)))
          : goldenWeight(name, shape).map((value) => adjust(name, value));
      return [name, { dtype: "float32", shape, data }];
    }),
  );
  const program = await runtime.compile(graph);
  const answers = await program.run(feeds);
  await program.release();
  return maps.map((_, i) => answers[`map${i}`] as HostTensor);
}

/** Compares maps with what a reference made of the same weights and pixels: shapes and fingerprints. */
export function assertMaps(maps: readonly HostTensor[], reference: readonly [number[], [number, number]][]): void {
  assert.equal(maps.length, reference.length);
  for (const [i, [shape, theirs]] of reference.entries()) {
    assert.deepEqual(maps[i].shape, shape);
    const ours = fingerprint(maps[i].data as Float32Array, `map${i}`);
    for (const k of [0, 1])
      assert.ok(Math.abs(ours[k] - theirs[k]) < 1e-5 * theirs[0], `${ours[k]}, theirs ${theirs[k]}`);
  }
}
