import { Graph, rewrite } from "../graph/graph.ts";
import { bindShape, staticSize } from "../graph/shape.ts";
import { gemm } from "../ops/linalg.ts";

/** Fewer values than these, of eight images where their number is open, are filled as fast as all threads are woken. */
const [least, images] = [65_536, 8];

/**
 * Biases of large products added behind them: the engine first fills a result with its bias, which one thread does, and then adds the
 * product to it, where `Add` takes all threads and the same memory ([6272, 192] times [192, 192], two threads: 1.87 ms, apart 1.63).
 * For processors with threads to share (`docs/notes/0004-speed.md`).
 */
export function biasesApart(graph: Graph): Graph {
  const outputs = rewrite(graph.outputs, ({ op, attrs, outputs: [y] }, [a, b, bias]) => {
    const { beta = 1, ...product } = attrs;
    if (op.name !== "Gemm" || op.domain !== "" || !bias || beta !== 1) return undefined;
    return staticSize(bindShape(y.shape, images)) < least ? undefined : [gemm(a!, b!, undefined, product).add(bias)];
  });
  return new Graph(graph.inputs, outputs);
}
