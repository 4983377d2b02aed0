import type { Graph } from "../../graph/graph.ts";
import { staticSize } from "../../graph/shape.ts";
import type { Node } from "../../graph/tensor.ts";
import type { Weight } from "../../nn/module.ts";
import { macsOf } from "../../passes/cost.ts";
import { sizeInBytes, storageOf, views } from "../../passes/memory.ts";

/** A module as the graph shows it, everything inside it included. */
export interface Layer {
  path: string;
  /** The last part of the path, and how many modules it lies in. */
  name: string;
  depth: number;
  /** Shape of what it draws last. */
  shape: readonly number[];
  params: number;
  macs: number;
  /** Bytes of everything that its operations write. */
  activationBytes: number;
}

/** The nodes that the image reaches: what is made of weights alone, such as a transposed matrix, is no activation. */
function activations(graph: Graph): Node[] {
  const image = graph.inputs.get("image")?.node;
  const reached = new Set<Node | undefined>([image]);
  return graph.nodes.filter((node) => {
    if (!node.inputs.some((x) => x && reached.has(x.node))) return false;
    reached.add(node);
    return true;
  });
}

const written = (node: Node): number =>
  views.has(node.op.name) ? 0 : node.outputs.reduce((sum, y) => sum + sizeInBytes(y), 0);

/** `layers.0.blocks.1.attn.qkv` -> ["layers.0", "blocks.1", "attn", "qkv"]: a number belongs to the list that it counts in. */
const partsOf = (path: string): string[] => path.match(/[^.]+(\.\d+)*/g) ?? [];

/** The modules down to a depth, in the order in which they draw. */
export function layersOf(graph: Graph, weights: readonly Weight[], depth: number): Layer[] {
  const layers = new Map<string, Layer>();
  const within = (path: string): Layer[] => {
    const parts = partsOf(path).slice(0, depth);
    return parts.map((name, i) => {
      const own = parts.slice(0, i + 1).join(".");
      let layer = layers.get(own);
      if (!layer) {
        layer = { path: own, name, depth: i, shape: [], params: 0, macs: 0, activationBytes: 0 };
        layers.set(own, layer);
      }
      return layer;
    });
  };
  for (const node of activations(graph)) {
    for (const layer of within(node.scope)) {
      layer.shape = node.outputs[0].shape as readonly number[];
      layer.macs += macsOf(node);
      layer.activationBytes += written(node);
    }
  }
  for (const { path, tensor, kind } of weights) {
    const module = path.slice(0, Math.max(0, path.lastIndexOf(".")));
    if (kind === "parameter") for (const layer of within(module)) layer.params += staticSize(tensor.shape);
  }
  return inTree([...layers.values()]);
}

/** Each module before those inside it, else in the order of their first operation. */
function inTree(layers: readonly Layer[]): Layer[] {
  const inside = (path: string, depth: number): Layer[] =>
    layers
      .filter((layer) => layer.depth === depth && (depth === 0 || layer.path.startsWith(`${path}.`)))
      .flatMap((layer) => [layer, ...inside(layer.path, depth + 1)]);
  return inside("", 0);
}

/** Bytes of activations: the most that lie in memory at once when each is freed after its last use, and all of them together. */
export function memoryOf(graph: Graph): { peak: number; total: number } {
  const nodes = activations(graph);
  const held = new Set(nodes);
  const lastUse = new Map<Node, Node>();
  for (const node of nodes) for (const x of node.inputs) if (x) lastUse.set(storageOf(x).node, node);
  const freed = new Map<Node, Node[]>();
  for (const [made, last] of lastUse) freed.set(last, [...(freed.get(last) ?? []), made]);
  let [live, peak, total] = [0, 0, 0];
  for (const node of nodes) {
    live += written(node);
    total += written(node);
    peak = Math.max(peak, live);
    for (const made of freed.get(node) ?? []) if (held.has(made)) live -= written(made);
  }
  return { peak, total };
}
