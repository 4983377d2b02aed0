/** The library in ten lines: a model is a function that draws a graph, and a runtime runs it. */
import { bindWeights, Classifier, findModel, inferenceGraph, initialWeights, printGraph } from "oriel";
import { openNode } from "oriel/node";

const { create } = await findModel("swin_micro_32");
const model = new Classifier(create(), 10); // shapes and names, no weights yet
const graph = inferenceGraph(model, 32); // (image, weights) -> logits, for any number of images
console.log(printGraph(graph).split("\n").slice(-4).join("\n"));

const runtime = await openNode();
const program = await runtime.compile(bindWeights(graph, model, initialWeights(model, 0)));
const image = { dtype: "float32", shape: [1, 3, 32, 32], data: new Float32Array(3 * 32 * 32).fill(0.5) } as const;
console.log((await program.run({ image })).logits);
await runtime.close();
