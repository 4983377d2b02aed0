import { didYouMean, UsageError } from "../base/errors.ts";
import { Tensor } from "../graph/tensor.ts";
import { listening, type Module } from "./module.ts";
import { trace } from "./trace.ts";

/**
 * What modules inside a model return for an image, by path: `layers.1.blocks.0`, `stage3.4.attns.1`.  The tensors go into a graph
 * as named outputs, and nothing that they do not need is computed.  A module that returns several tensors gives `path.0`, `path.1`, …
 */
export function features(
  model: Module & { forward(image: Tensor): unknown },
  image: Tensor,
  paths: readonly string[],
): Map<string, Tensor> {
  const seen = new Map<string, Tensor>();
  listening(
    (path, result) => {
      const several = Array.isArray(result) ? result : undefined;
      if (result instanceof Tensor) seen.set(path, result);
      several?.forEach((y, i) => {
        if (y instanceof Tensor) seen.set(path ? `${path}.${i}` : String(i), y);
      });
    },
    () => trace(model, {}, () => model.forward(image)),
  );
  return new Map(
    paths.map((path) => {
      const found = seen.get(path);
      if (found) return [path, found];
      throw new UsageError({
        message: `no module at "${path}" returns a tensor`,
        help: didYouMean(path, seen.keys()),
      });
    }),
  );
}
