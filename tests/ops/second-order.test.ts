import { test } from "node:test";
import { gradients } from "../../src/autodiff/gradients.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { averagePool, conv, gelu, layerNorm, maxPool, resize, softmax, tanh } from "../../src/ops/index.ts";
import { apart, randn } from "../support/arrays.ts";
import { float32 } from "../support/cases.ts";
import { type CheckOptions, checkGrad, type Drawing } from "../support/check.ts";

/** Gradients of gradients: the products with a seed, with respect to each input in turn, differentiated again. */
function second(name: string, draw: Drawing, shapes: readonly number[][], options: CheckOptions = {}): void {
  shapes.forEach((_, i) => {
    test(`${name}: gradient of input ${i}, differentiated`, async () => {
      // A seed that depends on the result makes the second derivative of the last op matter too.
      const gradient = (...xs: Tensor[]): Tensor => {
        const y = draw(...xs);
        return gradients(y, [xs[i]], { seed: y.mul(y) })[0];
      };
      await checkGrad(gradient, shapes.map(name === "maxPool" ? apart : randn), options);
    });
  });
}
const steep = { dtype: "float32", tolerance: 1e-3, step: 1e-2 } as const;

second("exp", (x) => x.exp(), [[3]]);
second("mul", (a, b) => a.mul(b), [[2, 3], [3]]);
second("div", (a, b) => a.div(b.mul(b).add(1)), [[2, 3], [3]]);
second("matmul", (a, b) => a.matmul(b), [
  [2, 2, 3],
  [3, 4],
]);
second("tanh", tanh, [[4]]);
second("softmax", (x) => softmax(x), [[2, 4]]);
second("softmax as weights", (x, v) => softmax(x).matmul(v), [
  [2, 4],
  [4, 2],
]);
second("logSumExp", (x) => x.logSumExp([1], true), [[2, 4]]);
second("gelu", gelu, [[5]], steep);
// Its statistics are float32 even where x is float64, which a difference of two results sees.
second("layerNorm", (x, scale, bias) => layerNorm(x, scale, bias, 1e-2), [[3, 4], [4], [4]], steep);
second(
  "conv",
  (x, w) => conv(x, w, undefined, { padding: 1 }),
  [
    [1, 2, 4, 4],
    [2, 2, 3, 3],
  ],
  steep,
);
second(
  "conv with a stride",
  (x, w) => conv(x, w, undefined, { stride: 2, padding: 1 }),
  [
    [1, 2, 5, 5],
    [2, 2, 3, 3],
  ],
  steep,
);
second(
  "depthwise conv",
  (x, w) => conv(x, w, undefined, { groups: 2, padding: 1 }),
  [
    [1, 2, 4, 4],
    [2, 1, 3, 3],
  ],
  steep,
);
second(
  "conv in groups, two results for each channel, with a stride",
  (x, w) => conv(x, w, undefined, { groups: 2, stride: 2, padding: 1 }),
  [
    [1, 2, 5, 5],
    [4, 1, 3, 3],
  ],
  steep,
);
second(
  "patches",
  (x, w) => conv(x, w, undefined, { stride: 2 }),
  [
    [1, 2, 4, 4],
    [3, 2, 2, 2],
  ],
  steep,
);
second(
  "conv dilated as far as its stride",
  (x, w) => conv(x, w, undefined, { stride: 2, dilation: 2 }),
  [
    [1, 2, 5, 5],
    [2, 2, 2, 2],
  ],
  steep,
);
second("averagePool", (x) => averagePool(x, { kernel: 2 }), [[1, 1, 4, 4]], float32);
second("maxPool", (x) => maxPool(x, { kernel: 2 }), [[1, 1, 4, 4]], { ...float32, step: 3e-3 });
second("resize", (x) => resize(x, { size: [3, 5] }), [[1, 1, 2, 3]], float32);
second("slices and pads", (x) => x.slice(0, 1, 6, 2).pad(0, 1, 0, { mode: "edge" }), [[7]]);
