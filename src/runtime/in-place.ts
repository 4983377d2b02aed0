import { type Graph, readersOf } from "../graph/graph.ts";
import { isOpen, sameShape } from "../graph/shape.ts";
import type { Node, Tensor } from "../graph/tensor.ts";

const elementwise = new Set(["Add", "Sub", "Mul", "Div"]);

/**
 * Outputs that may be written over an input, by name, as the moments of an optimizer: m' = β m + g.  All that reads the input must
 * be done, without a view of it left, before the output is written; so its readers are plain arithmetic whose results the writer
 * takes, and nobody else, for whom the engine might compute them anew.  The writer itself must not read it, since the engine may turn
 * it into something that writes before it reads.
 */
export function inPlace(graph: Graph): Record<string, string> {
  const readers = readersOf(graph.nodes);
  const writers = new Map<Node, string>();
  for (const [name, { node }] of graph.outputs) if (elementwise.has(node.op.name)) writers.set(node, name);
  const outputs = new Set(graph.outputs.values());

  const readOnce = (y: Tensor): boolean => readers.get(y)?.length === 1 && !outputs.has(y);

  const pairs: Record<string, string> = {};
  for (const [name, x] of graph.inputs) {
    const reading = readers.get(x) ?? [];
    if (outputs.has(x) || x.shape.some(isOpen) || !reading.every((node) => elementwise.has(node.op.name))) continue;
    const writer = (readers.get(reading[0]?.outputs[0]) ?? []).find((node) => {
      const [y] = node.outputs;
      const fits = writers.has(node) && y.dtype === x.dtype && sameShape(y.shape, x.shape);
      return fits && reading.every((r) => r !== node && node.inputs.includes(r.outputs[0]) && readOnce(r.outputs[0]));
    });
    if (!writer) continue;
    pairs[writers.get(writer) as string] = name;
    writers.delete(writer);
  }
  return pairs;
}
