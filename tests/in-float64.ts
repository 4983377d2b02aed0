import { dataOf } from "../src/graph/dtype.ts";
import { Graph, rewrite } from "../src/graph/graph.ts";
import { lower } from "../src/graph/onnx/write.ts";
import { known, staticSize } from "../src/graph/shape.ts";
import { constant, constantData, constantOp, input, leaf, type Node, type Tensor } from "../src/graph/tensor.ts";
import { cast } from "../src/ops/compare.ts";
import { type ConvAttrs, convSize, kernelPlaces, readPlace, turnedPads } from "../src/ops/conv.ts";
import { clip } from "../src/ops/elementwise.ts";
import { concat, padAxes, placeAlong, stack } from "../src/ops/move.ts";

/**
 * The graph with every float32 as a float64, so that what differs from a float64 reference is how the graph is drawn, not rounding.
 * Operations that the engine has in float32 alone are drawn from others; one that it has no other form for is an error of the engine.
 */
export function inFloat64(graph: Graph): Graph {
  const inputs = new Map([...graph.inputs].map(([name, x]) => [name, wide(x)]));
  const replaced = new Map([...graph.inputs].map(([name, x]) => [x, inputs.get(name) as Tensor]));
  const outputs = rewrite(lower(graph).outputs, (node, xs, asItIs) => {
    if (node.op === leaf) return [replaced.get(node.outputs[0]) ?? node.outputs[0]];
    if (node.op === constantOp) return [wideConstant(node.outputs[0])];
    if (node.op.name === "Cast" && node.outputs[0].dtype === "float32") return [cast(xs[0]!, { to: "float64" })];
    return forms[node.op.name]?.(node, xs as Tensor[]) ?? asItIs();
  });
  return new Graph(inputs, outputs);
}

const wide = (x: Tensor): Tensor => (x.dtype === "float32" ? input(x.shape, "float64") : x);

function wideConstant(x: Tensor): Tensor {
  const data = constantData(x);
  return x.dtype === "float32" ? constant(dataOf("float64", data as Float32Array), x.shape as number[], "float64") : x;
}

/** What the engine's processor kernels compute in float32 alone, or with float32 inside, drawn from other operations. */
const forms: Readonly<Record<string, (node: Node, inputs: Tensor[]) => Tensor[]>> = {
  Conv: ({ attrs }, [x, w, bias]) => [conv(x, w, bias, attrs)],
  ConvTranspose: ({ attrs }, [x, w, bias]) => [convTranspose(x, w, bias, attrs)],
  AveragePool: ({ attrs: { countPadding, ...attrs } }, [x]) => {
    const channels = known(x.shape[1]);
    const over = (maps: Tensor): Tensor => {
      const windows = ones([channels, 1, ...attrs.kernel]);
      return conv(maps, windows, undefined, { ...attrs, dilations: attrs.kernel.map(() => 1), group: channels });
    };
    const counts = countPadding ? staticSize(attrs.kernel) : over(ones([1, ...x.shape.slice(1)] as number[]));
    return [over(x).div(counts)];
  },
  LayerNormalization: ({ attrs: { axis, epsilon } }, [x, scale, bias]) => {
    const axes = x.shape.slice(axis).map((_, i) => axis + i);
    const mean = x.mean(axes, true);
    const inverse = x.sub(mean).square().mean(axes, true).add(epsilon).sqrt().reciprocal();
    const y = x.sub(mean).mul(inverse).mul(scale);
    return [bias ? y.add(bias) : y, mean, inverse];
  },
  HardSigmoid: ({ attrs: { alpha, beta } }, [x]) => [hardSigmoid(x, alpha, beta)],
  HardSwish: (_, [x]) => [hardSigmoid(x, 1 / 6, 0.5).mul(x)],
};

const hardSigmoid = (x: Tensor, alpha: number, beta: number): Tensor =>
  clip(x.mul(alpha).add(beta), { min: 0, max: 1 });

const ones = (shape: number[]): Tensor => constant(new Float64Array(staticSize(shape)).fill(1), shape, "float64");

/** A convolution as products: of the kernels with what each of their places reads, or where results are fewer, of each result's window. */
function conv(x: Tensor, w: Tensor, bias: Tensor | undefined, attrs: ConvAttrs): Tensor {
  const { strides, dilations, pads, group } = attrs;
  const spatial = strides.length;
  const [batch, outC] = [known(x.shape[0]), known(w.shape[0])];
  const kernel = w.shape.slice(2).map((d) => known(d));
  const sizes = kernel.map((k, i) =>
    convSize(known(x.shape[i + 2]), k, strides[i], pads[i] + pads[i + spatial], dilations[i]),
  );
  const padded = padAxes(x, { before: [0, 0, ...pads.slice(0, spatial)], after: [0, 0, ...pads.slice(spatial)] });
  const [places, results] = [staticSize(kernel), staticSize(sizes)];
  const weights = w.reshape([group, outC / group, -1]); // [G, O / G, C / G · K]
  let y: Tensor;
  if (places <= results) {
    const read = kernelPlaces(kernel).map((place) =>
      readPlace(padded, place, { sizes, strides, dilations }).reshape([batch, group, -1, 1, results]),
    );
    y = weights.matmul(concat(read, 3).reshape([batch, group, -1, results]));
  } else {
    const windows = kernelPlaces(sizes).map((place) =>
      readPlace(padded, place, { sizes: kernel, strides: dilations, dilations: strides }).reshape([
        batch,
        group,
        1,
        -1,
      ]),
    );
    y = stack(
      windows.map((window) => window.matmul(weights.mT)),
      -1,
    );
  }
  const maps = y.reshape([batch, outC, ...sizes]);
  return bias ? maps.add(bias.reshape([outC, ...kernel.map(() => 1)])) : maps;
}

/** The adjoint of a convolution as a convolution: with zeros where a stride stepped over, and the kernel turned round. */
function convTranspose(
  x: Tensor,
  w: Tensor,
  bias: Tensor | undefined,
  { strides, dilations, pads, group, outputPadding }: ConvAttrs & { outputPadding: readonly number[] },
): Tensor {
  const [inC, outC, ...kernel] = w.shape.map((d) => known(d));
  const apart = kernel.reduce((maps, _, i) => {
    const axis = i + 2;
    return placeAlong(maps, axis, (known(x.shape[axis]) - 1) * strides[i] + 1, 0, strides[i]);
  }, x);
  const turned = kernel.reduce((v, _, i) => v.flip(i + 2), w);
  const swapped = turned
    .reshape([group, inC / group, outC, ...kernel])
    .swapAxes(1, 2)
    .reshape([group * outC, inC / group, ...kernel]);
  const around = turnedPads(kernel, { pads, dilations });
  const seen = around.map((p, i) => p + (outputPadding[i - kernel.length] ?? 0));
  return conv(apart, swapped, bias, { strides: kernel.map(() => 1), dilations, pads: seen, group });
}
