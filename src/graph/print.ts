import type { Graph } from "./graph.ts";
import { constantData, constantOp, leaf, type Node, type Tensor } from "./tensor.ts";

/**
 * A graph as text, one line a node: name, type, op, what it reads, and the path of the module that drew it.
 *
 *     %12 float32 [N, 197, 192]  Add(%10, %11)  blocks.0
 */
export function printGraph(graph: Graph): string {
  const names = new Map<Tensor, string>();
  for (const [name, tensor] of graph.inputs) names.set(tensor, name);
  let next = 0;
  const nameOf = (x: Tensor | undefined): string => {
    if (!x) return "-";
    const known = names.get(x);
    if (known) return known;
    const data = constantData(x);
    const name = data && data.length === 1 ? String(data[0]) : data ? `${x.dtype}[${x.shape}]` : `%${next++}`;
    names.set(x, name);
    return name;
  };
  const lines = [...graph.inputs].map(([name, tensor]) => `input ${name}: ${tensor}`);
  for (const node of graph.nodes) if (node.op !== leaf && node.op !== constantOp) lines.push(line(node, nameOf));
  for (const [name, tensor] of graph.outputs) lines.push(`output ${name}: ${nameOf(tensor)} ${tensor}`);
  return lines.join("\n");
}

function line(node: Node, nameOf: (x: Tensor | undefined) => string): string {
  const inputs = node.inputs.map(nameOf).join(", ");
  const outputs = node.outputs.map((y) => `${nameOf(y)} ${y}`).join(", ");
  const attrs = Object.entries(node.attrs as Record<string, unknown>)
    .filter(([, value]) => value !== undefined && typeof value !== "function")
    .map(([key, value]) => `${key}=${show(value)}`);
  const call = [inputs, ...attrs].filter(Boolean).join(", ");
  return `${outputs}  ${node.op.name}(${call})${node.scope ? `  ${node.scope}` : ""}`;
}

function show(value: unknown): string {
  if (ArrayBuffer.isView(value)) return `<${(value as Int32Array).length} numbers>`;
  return Array.isArray(value) ? `[${value.join(", ")}]` : String(value);
}
