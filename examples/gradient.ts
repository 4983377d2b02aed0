/** The gradient of any graph is more graph: here, which pixels an answer depends on.  Simonyan et al. (2014), https://arxiv.org/abs/1312.6034. */
import { bindWeights, Classifier, findModel, Graph, gradients, initialWeights, input, trace, weightsOf } from "oriel";
import { openNode } from "oriel/node";
import { abs } from "oriel/ops";

const { create } = await findModel("cswin_micro_32");
const model = new Classifier(create(), 10);

const image = input([1, 3, 32, 32]);
const { result: logits } = trace(model, {}, () => model.forward(image)); // [1, 10]
const [dImage] = gradients(logits.max([1]).sum(), [image]); // [1, 3, 32, 32]
const saliency = abs(dImage).sum([0, 1]); // [32, 32]
const named = weightsOf(model).map(({ path, tensor }) => [path, tensor] as const);
const graph = new Graph([["image", image], ...named], [["saliency", saliency]]);

const runtime = await openNode();
const program = await runtime.compile(bindWeights(graph, model, initialWeights(model, 0)));
const data = Float32Array.from({ length: 3 * 32 * 32 }, (_, i) => Math.sin(i / 40)); // any picture
const result = await program.run({ image: { dtype: "float32", shape: [1, 3, 32, 32], data } });
await runtime.close();

const map = result.saliency!.data as Float32Array;
const most = Math.max(...map);
for (let y = 0; y < 32; y += 2)
  console.log([...map.subarray(32 * y, 32 * (y + 1))].map((g) => " .:-=+*#%@"[Math.floor((9.99 * g) / most)]).join(""));
