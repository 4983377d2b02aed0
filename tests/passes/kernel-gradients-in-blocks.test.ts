import assert from "node:assert/strict";
import { test } from "node:test";
import { gradients } from "../../src/autodiff/gradients.ts";
import { Graph } from "../../src/graph/graph.ts";
import { input } from "../../src/graph/tensor.ts";
import { conv } from "../../src/ops/index.ts";
import { kernelGradientsInBlocks } from "../../src/passes/index.ts";
import { difference, plainAndBlocked, randomFeeds } from "../support/check.ts";

interface Case {
  x: readonly number[];
  w: readonly number[];
  stride?: number | readonly number[];
  padding?: number | readonly number[];
  dilation?: number;
  groups?: number;
}

/** The gradient of a convolution's kernel. */
function drawn({ x, w, ...options }: Case): Graph {
  const [map, kernel] = [input(x), input(w)];
  const y = conv(map, kernel, undefined, options);
  const dy = input(y.shape);
  const [dw] = gradients(y, [kernel], { seed: dy });
  return new Graph(Object.entries({ x: map, dy }), Object.entries({ dw }));
}

const cases: Record<string, Case> = {
  "one group of images": { x: [8, 24, 9, 10], w: [32, 24, 3, 3], padding: 1 },
  "several groups": { x: [32, 16, 6, 6], w: [16, 16, 3, 3], padding: 1 },
  "a stride, and pixels that it steps over at the end": {
    x: [8, 20, 12, 11],
    w: [16, 20, 3, 3],
    stride: 2,
    padding: 1,
  },
  "a kernel, strides and padding of two sizes": {
    x: [8, 9, 13, 16],
    w: [16, 9, 5, 2],
    stride: [1, 3],
    padding: [2, 0, 1, 1],
  },
  "pictures, in a stem": { x: [8, 3, 32, 32], w: [16, 3, 7, 7], stride: 4, padding: 2 },
  "large maps, in parts": { x: [8, 5, 112, 100], w: [16, 5, 3, 5], padding: [1, 2] },
  "large maps and several groups, in parts": { x: [16, 3, 128, 128], w: [16, 3, 7, 7], padding: 3, stride: 2 },
  "a dilation": { x: [16, 12, 11, 12], w: [48, 12, 3, 3], padding: 2, dilation: 2 },
};

for (const [what, each] of Object.entries(cases))
  test(`a kernel's gradient in blocks, ${what}`, { skip: process.arch !== "x64" }, async () => {
    const graph = drawn(each);
    const [wanted, got] = await plainAndBlocked(graph, randomFeeds(graph));
    assert.ok(difference(got.dw, wanted.dw) < 1e-5);
  });

test("kernel gradients that blocks do not suit stay products", () => {
  const names = (graph: Graph): string[] => kernelGradientsInBlocks(graph, 16).nodes.map(({ op }) => op.name);
  const stays = (each: Case): void => assert.ok(names(drawn(each)).includes("ConvKernelGradient"));
  stays({ x: [24, 24, 9, 9], w: [32, 24, 3, 3], padding: 1 }); // images that do not fill groups
  stays({ x: [8, 24, 9, 9], w: [24, 24, 3, 3], padding: 1 }); // channels that do not fill blocks
  stays({ x: [8, 64, 28, 28], w: [64, 64, 3, 3], padding: 1 }); // medium maps of many channels
  assert.ok(
    !names(drawn({ x: [8, 64, 28, 28], w: [64, 64, 3, 3], padding: 1, stride: 2 })).includes("ConvKernelGradient"),
  );
});

test("places beyond a kernel, where strides step over padding, are not computed only to be cut off", () => {
  const halved = { padding: 1, stride: 2 };
  for (const each of [
    { x: [8, 64, 28, 28], w: [64, 64, 3, 3], ...halved },
    { x: [8, 3, 32, 32], w: [16, 3, 3, 3], ...halved },
    { x: [8, 16, 28, 28], w: [16, 1, 3, 3], groups: 16, ...halved },
  ]) {
    const { nodes } = kernelGradientsInBlocks(drawn(each), 16);
    assert.ok(nodes.some(({ op }) => op.name === "Conv"));
    assert.ok(!nodes.some(({ op }) => op.name === "Slice"));
  }
});

test("large maps come in parts that divide their rows, medium ones whole", () => {
  const groups = (each: Case): number =>
    kernelGradientsInBlocks(drawn(each), 16).nodes.find(({ op }) => op.name === "Conv")!.attrs.group;
  const halved = { padding: 1, stride: 2 };
  assert.equal(groups({ x: [8, 16, 224, 224], w: [16, 16, 3, 3], ...halved }), 8);
  assert.equal(groups({ x: [8, 16, 112, 112], w: [16, 16, 3, 3], ...halved }), 1);
  assert.equal(groups({ x: [8, 16, 226, 226], w: [16, 16, 3, 3], ...halved }), 1); // 113 rows
});
