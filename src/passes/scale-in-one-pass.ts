import { countUses, Graph, rewrite } from "../graph/graph.ts";
import { isOpen, known, type Shape, sameShape, staticSize } from "../graph/shape.ts";
import type { Node, Tensor } from "../graph/tensor.ts";
import { scaledMap } from "../ops/contrib.ts";
import { valuesOf } from "./fold.ts";
import { storageOf, views } from "./memory.ts";

/** Places of a map from which the convolution is faster, with a sum behind it, with ReLU, and alone: each map costs a start. */
const leastPlaces = {
  oneThread: { sum: 128, relu: 1024, alone: Number.POSITIVE_INFINITY },
  threads: { sum: 128, relu: 192, alone: 192 },
};

/** x gain + shift + z, with a number of each for a map. */
interface Scaled {
  x: Tensor;
  gain: Tensor;
  shift: Tensor;
  z?: Tensor;
}

/**
 * Batch norms as training draws them, a gain and a shift for each map, as depthwise convolutions of single places: in one pass over
 * memory with the sum and the ReLU that follow and, since the engine's batch norm takes one thread, alone where there are more.  Then a
 * sum goes along where it can be written over the other map, which is else copied by one thread, too.  For processors
 * (`docs/notes/0004-speed.md`).
 */
export function scaleInOnePass(graph: Graph, threads: number): Graph {
  const uses = countUses(graph);
  const least = threads === 1 ? leastPlaces.oneThread : leastPlaces.threads;
  const found = new Map<Tensor, Scaled>();

  const outputs = rewrite(graph.outputs, (node, inputs) => {
    const [name, y] = [node.op.name, node.outputs[0]];
    /** What an input is made of, where nothing else reads it. */
    const made = (i: number): Scaled | undefined => {
      const before = node.inputs[i] as Tensor;
      return uses.get(before) === 1 ? found.get(before) : undefined;
    };
    const mayAdd = (z: Tensor): boolean => threads === 1 || isReadOnce(z, uses);
    if (isScaling(node)) {
      const [x, gain, shift] = inputs as Tensor[];
      const scaled = { x, gain, shift };
      found.set(y, scaled);
      if (areaOf(scaled) >= least.alone) return [drawn(scaled, { shape: y.shape, relu: false })];
    } else if (name === "Reshape" || name === "Identity") {
      const scaled = made(0);
      if (scaled) found.set(y, scaled);
    } else if (name === "Add" && sameShape(inputs[0]!.shape, inputs[1]!.shape)) {
      for (const [i, z] of [inputs[1], inputs[0]].entries()) {
        const scaled = made(i);
        if (!scaled || scaled.z || areaOf(scaled) < least.sum || !mayAdd(node.inputs[1 - i]!)) continue;
        const sum = { ...scaled, z };
        found.set(y, sum);
        return [drawn(sum, { shape: y.shape, relu: false })];
      }
    } else if (name === "Relu") {
      const scaled = made(0);
      if (scaled && (scaled.z || areaOf(scaled) >= least.relu)) return [drawn(scaled, { shape: y.shape, relu: true })];
    }
    return undefined;
  });
  return new Graph(graph.inputs, outputs);
}

function drawn({ x, gain, shift, z }: Scaled, { shape, relu }: { shape: Shape; relu: boolean }): Tensor {
  const maps = known(gain.shape[0]);
  const rows = (t: Tensor): Tensor => storageOf(t).reshape([1, maps, -1, 1]);
  return scaledMap(rows(x), storageOf(gain).reshape([maps, 1, 1, 1]), shift, z && rows(z), { relu }).reshape(shape);
}

/** Whether one operation alone reads a result, in whatever shape. */
const isReadOnce = (x: Tensor, uses: ReadonlyMap<Tensor, number>): boolean =>
  uses.get(x) === 1 && (views.has(x.node.op.name) ? isReadOnce(x.node.inputs[0]!, uses) : x.node.inputs.length > 0);

const areaOf = ({ x }: Scaled): number => staticSize(x.shape.slice(2));

/** A batch norm of one image with a mean of 0 and a variance of 1: nothing but a gain and a shift for each map. */
function isScaling({ op, attrs, inputs: [x, , , mean, variance] }: Node): boolean {
  if (op.name !== "BatchNormalization" || attrs.epsilon !== 0 || x!.shape[0] !== 1 || x!.shape.some(isOpen))
    return false;
  const all = (t: Tensor | undefined, value: number): boolean => valuesOf(t)?.every((v) => v === value) ?? false;
  return all(mean, 0) && all(variance, 1);
}
