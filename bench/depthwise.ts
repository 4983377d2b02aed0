import { availableParallelism } from "node:os";
import { gradients } from "../src/autodiff/gradients.ts";
import { Graph } from "../src/graph/graph.ts";
import { input, type Tensor } from "../src/graph/tensor.ts";
import { conv, convTranspose } from "../src/ops/conv.ts";
import { columnSums } from "../src/ops/linalg.ts";
import { openNode } from "../src/runtime/node.ts";
import type { DeviceTensor, Program } from "../src/runtime/runtime.ts";
import { median } from "./peers/table.ts";

// Forms of a depthwise convolution and of its gradients with weights that change, over the shapes of ConvNeXt, MobileNetV3 and CSWin.
// All forms of a shape are timed in turns; a figure is the median in milliseconds, and beside it the time relative to the fastest.
//
//     node dist/bench/depthwise.js [rounds] [which: a part of a shape's name]
//
// "blocks" is the form that `passes/depthwise-in-blocks.ts` draws of what stands first; the others are run as the engine takes them.

interface Shape {
  name: string;
  batch: number;
  channels: number;
  size: readonly [number, number];
  kernel: number;
  stride: number;
}

const shape = (model: string, channels: number, side: number, kernel: number, stride = 1, batch = 8): Shape => ({
  name: `${model} ${channels} × ${side}² k${kernel}${stride > 1 ? ` s${stride}` : ""}`,
  batch,
  channels,
  size: [side, side],
  kernel,
  stride,
});

const shapes: readonly Shape[] = [
  shape("convnext", 96, 56, 7),
  shape("convnext", 192, 28, 7),
  shape("convnext", 384, 14, 7),
  shape("convnext", 768, 7, 7),
  shape("mobilenet", 16, 112, 3),
  shape("mobilenet", 64, 112, 3, 2),
  shape("mobilenet", 72, 56, 3),
  shape("mobilenet", 72, 56, 5, 2),
  shape("mobilenet", 120, 28, 5),
  shape("mobilenet", 240, 28, 3, 2),
  shape("mobilenet", 184, 14, 3),
  shape("mobilenet", 672, 14, 5),
  shape("mobilenet", 672, 14, 5, 2),
  shape("mobilenet", 960, 7, 5),
  // Stripes: each is an image, and one side is short.
  { name: "cswin 64 × 56·1 k3", batch: 8 * 56, channels: 64, size: [56, 1], kernel: 3, stride: 1 },
  { name: "cswin 128 × 28·2 k3", batch: 8 * 14, channels: 128, size: [28, 2], kernel: 3, stride: 1 },
  { name: "cswin 256 × 14·7 k3", batch: 8 * 2, channels: 256, size: [14, 7], kernel: 3, stride: 1 },
  { name: "cswin 512 × 7² k3", batch: 8, channels: 512, size: [7, 7], kernel: 3, stride: 1 },
];

interface Form {
  part: "forward" | "input gradient" | "kernel gradient";
  name: string;
  blocks: boolean;
  inputs: Readonly<Record<string, Tensor>>;
  y: Tensor;
}

function formsOf({ batch, channels, size, kernel, stride }: Shape): Form[] {
  const x = input([batch, channels, ...size]);
  const w = input([channels, 1, kernel, kernel]);
  const padding = (kernel - 1) / 2;
  const options = { stride, padding, groups: channels };
  const y = conv(x, w, undefined, options);
  const dy = input(y.shape);
  const places = y.shape.slice(2).map(Number);
  const [dx, dw] = gradients(y, [x, w], { seed: dy });
  const both = (part: Form["part"], name: string, inputs: Form["inputs"], drawn: Tensor): Form[] => [
    { part, name, blocks: false, inputs, y: drawn },
    { part, name: "blocks", blocks: true, inputs, y: drawn },
  ];
  const one = (part: Form["part"], name: string, inputs: Form["inputs"], drawn: Tensor): Form => ({
    part,
    name,
    blocks: false,
    inputs,
    y: drawn,
  });
  const missing = size.map((s, i) => s + 2 * padding - ((places[i] - 1) * stride + kernel));
  const adjoint = convTranspose(dy, w, undefined, { ...options, outputPadding: missing });

  // dw with the images of a channel as the input channels of a group.
  const images = x.swapAxes(0, 1).reshape([1, channels * batch, ...size]);
  const grouped = conv(images, dy.swapAxes(0, 1), undefined, { dilation: stride, padding, groups: channels });
  // dw with a sum of products for each place of the kernel.
  const padded = x.pad(2, padding, padding).pad(3, padding, padding);
  const flat = dy.reshape([batch, channels, -1]);
  const taps = Array.from({ length: kernel * kernel }, (_, i) => {
    const seen = [Math.floor(i / kernel), i % kernel].reduce(
      (map, start, axis) => map.slice(axis + 2, start, start + (places[axis] - 1) * stride + 1, stride),
      padded,
    );
    return columnSums(flat.mul(seen.reshape(flat.shape)).sum([2])).unsqueeze(1);
  });
  return [
    ...both("forward", "Conv", { x, w }, y),
    ...both("input gradient", stride === 1 ? "flipped kernel" : "as drawn", { w, dy }, dx),
    ...(stride === 1 ? [one("input gradient", "ConvTranspose", { w, dy }, adjoint)] : []),
    ...both("kernel gradient", "images as groups", { x, dy }, dw),
    one("kernel gradient", "images as channels", { x, dy }, grouped),
    one("kernel gradient", "a sum for each place", { x, dy }, taps[0].concat(taps.slice(1), 1)),
  ];
}

const [rounds = "15", which = ""] = process.argv.slice(2);
const runtime = await openNode({ threads: Math.min(2, availableParallelism()) });

for (const one of shapes.filter(({ name }) => name.includes(which))) {
  console.log(`\n${one.name}, batch ${one.batch}`);
  const held = new Map<Tensor, DeviceTensor>();
  const running: { form: Form; program: Program; feeds: Record<string, DeviceTensor>; times: number[] }[] = [];
  for (const form of formsOf(one)) {
    // Only a sum comes back.
    const graph = new Graph(Object.entries(form.inputs), [["sum", form.y.sum()]]);
    const program = await runtime.compile(graph, { optimize: form.blocks ? "all" : "extended" });
    const feeds: Record<string, DeviceTensor> = {};
    for (const [name, tensor] of Object.entries(form.inputs)) {
      const dims = tensor.shape as number[];
      const data = Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i));
      if (!held.has(tensor)) held.set(tensor, await runtime.upload({ dtype: "float32", shape: dims, data }));
      feeds[name] = held.get(tensor)!;
    }
    await program.run(feeds);
    running.push({ form, program, feeds, times: [] });
  }
  for (let round = 0; round < Number(rounds); round++)
    for (const { program, feeds, times } of running) {
      const start = performance.now();
      await program.run(feeds);
      times.push(performance.now() - start);
    }
  for (const part of ["forward", "input gradient", "kernel gradient"]) {
    const rows = running.filter(({ form }) => form.part === part);
    const best = Math.min(...rows.map(({ times }) => median(times)));
    for (const { form, times } of rows)
      console.log(
        `  ${part.padEnd(16)} ${form.name.padEnd(21)} ${median(times).toFixed(2).padStart(8)} ms ${(median(times) / best).toFixed(2).padStart(7)} ×`,
      );
  }
  for (const { program } of running) await program.release();
  runtime.dispose([...held.values()]);
}
await runtime.close();
