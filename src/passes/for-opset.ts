import { Graph, rewrite } from "../graph/graph.ts";
import type { Opset } from "../graph/onnx/write.ts";
import { tanh } from "../ops/elementwise.ts";

/** The graph without operators that are younger than a version of ONNX's operator set. */
export function forOpset(graph: Graph, opset: Opset): Graph {
  if (opset >= 20) return graph;
  const outputs = rewrite(graph.outputs, (node, [x]) => {
    if (node.op.name !== "Gelu" || node.op.domain !== "") return undefined;
    if (x && node.attrs.approximate === "tanh") {
      const u = x.add(x.mul(x).mul(x).mul(0.044715)).mul(Math.sqrt(2 / Math.PI));
      return [tanh(u).add(1).mul(x).mul(0.5)];
    }
    return x && [x.mul(0.5).mul(x.mul(Math.SQRT1_2).erf().add(1))];
  });
  return new Graph(graph.inputs, outputs);
}
