import assert from "node:assert/strict";
import { test } from "node:test";
import { gradients } from "../../src/autodiff/gradients.ts";
import { parameterCount } from "../../src/backbones/cost.ts";
import { listModels, type ModelEntry } from "../../src/backbones/index.ts";
import { Graph } from "../../src/graph/graph.ts";
import { writeOnnx } from "../../src/graph/onnx/write.ts";
import { OpenDim } from "../../src/graph/shape.ts";
import { constant, input, type Tensor } from "../../src/graph/tensor.ts";
import { bindWeights } from "../../src/nn/bind.ts";
import { initialWeights, type Module, parametersOf, weightsOf } from "../../src/nn/module.ts";
import { importOnnx } from "../../src/nn/onnx-module.ts";
import { trace } from "../../src/nn/trace.ts";
import { Classifier } from "../../src/tasks/classify.ts";
import { inferenceGraph } from "../../src/train/checkpoint/model.ts";
import { goldenWeight } from "../golden-check.ts";
import { randn } from "../support/arrays.ts";
import { as, difference, runGraph } from "../support/check.ts";

/** The smallest model of each family, on the smallest pictures that it takes. */
const smallest = new Map<string, { entry: ModelEntry; size: number }>();
for (const entry of await listModels()) {
  const size = parameterCount(entry.create());
  const before = smallest.get(entry.family);
  if (!before || size < before.size) smallest.set(entry.family, { entry, size });
}
/** Gradients are compared where that takes seconds; larger models are compared by their answers. */
const cheap = 1e6;

/** Logits for two pictures, and of each parameter's gradient the norm and its product with a fixed tensor. */
function answers(model: Module, forward: (image: Tensor) => Tensor, side: number): Graph {
  const image = input([2, 3, side, side]);
  const { result } = trace(model, {}, () => {
    const logits = forward(image);
    const parameters = parametersOf(model).filter(({ tensor }) => tensor.dtype === "float32");
    const grads = gradients(
      logits.square().mean(),
      parameters.map((p) => p.tensor),
      { unreached: "zeros" },
    );
    return parameters
      .flatMap(({ path, tensor }, i): [string, Tensor][] => {
        const probe = constant(goldenWeight(path, tensor.shape as number[]), tensor.shape as number[], "float32");
        return [
          [`norm ${path}`, grads[i].square().sum()],
          [`probe ${path}`, grads[i].mul(probe).sum()],
        ];
      })
      .concat([["logits", logits]]);
  });
  return new Graph([["image", image], ...weightsOf(model).map((w): [string, Tensor] => [w.path, w.tensor])], result);
}

for (const { entry, size } of smallest.values())
  test(`${entry.name}: written, read again, the same answers${size < cheap ? " and gradients" : ""}`, async () => {
    const side = Math.max(...entry.create().strides);
    const model = new Classifier(entry.create({ imageSize: side }), 7);
    const values = initialWeights(model, 5);
    const graph = bindWeights(inferenceGraph(model, side), model, values);
    const again = importOnnx(writeOnnx(graph));
    const theirs = again.graph();
    assert.deepEqual(theirs.outputs.get("logits")!.shape, [new OpenDim("N"), 7]);
    const names = new Set(weightsOf(again).map((w) => w.path));
    // What inference does not read is not written.
    const read = new Set(inferenceGraph(model, side).nodes.flatMap((node) => node.outputs));
    for (const { path, tensor } of weightsOf(model)) if (read.has(tensor)) assert.ok(names.has(path), path);

    const image = as(randn([2, 3, side, side]), "float32");
    const first = initialWeights(again, 0);
    if (size >= cheap) {
      const [{ logits: wanted }, { logits: got }] = [
        await runGraph(graph, { image }),
        await runGraph(bindWeights(theirs, again, first), { image }),
      ];
      assert.ok(difference(got, wanted) <= 1e-4);
      return;
    }
    const own = await runGraph(
      bindWeights(
        answers(model, (x) => model.forward(x), side),
        model,
        values,
      ),
      { image },
    );
    const found = await runGraph(
      bindWeights(
        answers(again, (x) => again.forward(x)[0], side),
        again,
        first,
      ),
      { image },
    );
    assert.ok(difference(found.logits, own.logits) <= 1e-4);
    const compared = Object.keys(found).filter((name) => name.startsWith("probe ") && name in own);
    assert.ok(compared.length > (0.8 * Object.keys(own).length) / 2, `${compared.length} gradients`);
    for (const name of compared) {
      const [a, b] = [found, own].map((answer) => Number(answer[name].data[0]));
      const scale = Math.sqrt(Number(own[name.replace("probe", "norm")].data[0]));
      assert.ok(Math.abs(a - b) <= 1e-3 * Math.max(Math.abs(b), scale, 1e-7), `${name}: ${a} and ${b}`);
    }
  });
