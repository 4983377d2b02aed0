import { dataOf } from "../graph/dtype.ts";
import { Graph, rewrite } from "../graph/graph.ts";
import { lower } from "../graph/onnx/write.ts";
import { isOpen, type Shape } from "../graph/shape.ts";
import { constant, type Node, type Tensor } from "../graph/tensor.ts";
import { cast, less } from "../ops/compare.ts";
import { defineOp } from "../ops/define.ts";
import { sizeInBytes, views } from "./memory.ts";

/** Results of fewer bytes stay as they are: they lie in a cache wherever they are put. */
const least = 1 << 18;

/** The first of some numbers, as many as are asked for, here all of them.  x: [R], from, count: int64 [1] -> [R] */
const first = defineOp({
  onnx: "Slice",
  inputs: ["x", "from", "count"],
  infer: ({ x }) => ({ dtype: x.dtype, shape: x.shape }),
  vjp: "none",
  form: () => ({}),
});

/** A reshape to what another tensor says.  x, shape: int64 [rank of `to`] -> `to` */
const reshapeBy = defineOp<["x", "shape"], { to: Shape }>({
  onnx: "Reshape",
  inputs: ["x", "shape"],
  infer: ({ x }, { to }) => ({ dtype: x.dtype, shape: to }),
  vjp: "none",
  form: () => ({}),
});

const whole = (...values: number[]): Tensor => constant(dataOf("int64", values), [values.length], "int64");

/**
 * Reshapes whose shapes the engine learns only while it runs.  What it knows beforehand it plans: a result goes where another of just
 * that shape was, long ago, and that place has left the cache; otherwise it takes what became free last (`docs/notes/0004-speed.md`).
 * Whether a number that the graph is fed is less than itself no engine finds out beforehand: such a zero is added to how many axes a
 * shape has, so that the engine looks for no place at all.  Results are the same up to rounding.  For processors.
 */
export function unplannedMemory(given: Graph): Graph {
  const graph = lower(given); // which draws reshapes, too
  const number = fedNumber(graph);
  if (!number) return given;
  const zero = cast(less(number, number), { to: "int64" });
  const made = new Map<string, Tensor>();
  const late = (shape: readonly number[]): Tensor => {
    const hidden = made.get(`${shape}`) ?? first(whole(...shape), whole(0), whole(shape.length).add(zero));
    made.set(`${shape}`, hidden);
    return hidden;
  };
  const kept = knownViews(graph);
  const outputs = rewrite(graph.outputs, (node, [x]) => {
    const [y] = node.outputs;
    if (node.op.name !== "Reshape" || kept.has(node) || y.shape.some(isOpen) || sizeInBytes(y) < least)
      return undefined;
    return [reshapeBy(x!, late(y.shape as number[]), { to: y.shape })];
  });
  return new Graph(graph.inputs, outputs);
}

/** A single number that the graph is fed, as a training step is; else the first of an input, which then cannot be written over. */
function fedNumber({ inputs }: Graph): Tensor | undefined {
  const floats = [...inputs.values()].filter(
    ({ shape, dtype }) => (dtype === "float32" || dtype === "float64") && shape.every((d) => !isOpen(d) && d > 0),
  );
  return floats.find(({ rank }) => rank === 0) ?? floats[0]?.reshape([-1]).slice(0, 0, 1);
}

/**
 * Views whose shapes are to be known: those through which the graph's outputs come, since these have declared shapes, and the maps of a
 * convolution that adds, since it writes over one map where both are of one shape.  Of views that follow one another all: where a
 * reshape is followed by one of known shape the engine joins the two, taking both shapes for constants, and then refuses the model.
 */
function knownViews({ nodes, outputs }: Graph): Set<Node> {
  const maps = nodes.flatMap(({ op, inputs: [x, , , z] }) => (op.name === "FusedConv" && z ? [x!, z] : []));
  const found = new Set<Node>();
  for (const y of [...outputs.values(), ...maps])
    for (let { node } = y; views.has(node.op.name) && !found.has(node); node = node.inputs[0]!.node) found.add(node);
  return found;
}
