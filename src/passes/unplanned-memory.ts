import { dataOf, isFloat } from "../graph/dtype.ts";
import { Graph, rewrite } from "../graph/graph.ts";
import { isOpen, type Shape } from "../graph/shape.ts";
import { constant, type Tensor } from "../graph/tensor.ts";
import { cast, less } from "../ops/compare.ts";
import { defineOp } from "../ops/define.ts";
import { sizeInBytes } from "./memory.ts";

/** Results of fewer bytes stay as they are: they lie in a cache wherever they are put. */
const least = 1 << 18;

/** A reshape to what another tensor says.  x, shape: int64 [rank of `to`] -> `to` */
const reshapeBy = defineOp<["x", "shape"], { to: Shape }>({
  onnx: "Reshape",
  inputs: ["x", "shape"],
  infer: ({ x }, { to }) => ({ dtype: x.dtype, shape: to }),
  vjp: "none",
  form: () => ({}),
});

/**
 * Reshapes of a training step whose shapes the engine learns only while it runs.  What it knows beforehand it plans: a result goes
 * where another of just that shape was, long ago, and that place has left the cache; otherwise it takes what became free last
 * (`docs/notes/0004-speed.md`).  A step has a number among its inputs, and whether that is less than itself no engine finds out
 * beforehand: such a zero is added to each shape.  Results are the same.  For processors.
 */
export function unplannedMemory(graph: Graph): Graph {
  const number = [...graph.inputs.values()].find(({ shape, dtype }) => shape.length === 0 && isFloat(dtype));
  if (!number) return graph;
  const zero = cast(less(number, number), { to: "int64" });
  const made = new Map<string, Tensor>();
  const late = (shape: readonly number[]): Tensor => {
    const known = made.get(`${shape}`) ?? constant(dataOf("int64", shape), [shape.length], "int64").add(zero);
    made.set(`${shape}`, known);
    return known;
  };
  const outputs = rewrite(graph.outputs, ({ op, outputs: [y] }, [x]) => {
    if (op.name !== "Reshape" || y.shape.some(isOpen) || sizeInBytes(y) < least) return undefined;
    return [reshapeBy(x!, late(y.shape as number[]), { to: y.shape })];
  });
  return new Graph(graph.inputs, outputs);
}
