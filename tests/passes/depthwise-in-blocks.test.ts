import assert from "node:assert/strict";
import { test } from "node:test";
import { gradients } from "../../src/autodiff/gradients.ts";
import { Graph } from "../../src/graph/graph.ts";
import { OpenDim, type Shape } from "../../src/graph/shape.ts";
import { constant, input, type Tensor } from "../../src/graph/tensor.ts";
import { conv } from "../../src/ops/index.ts";
import { depthwiseInBlocks, simplify } from "../../src/passes/index.ts";
import { randn } from "../support/arrays.ts";
import { as, difference, runGraph } from "../support/check.ts";

interface Case {
  batch: number;
  channels: number;
  size: readonly [number, number];
  kernel: number;
  stride?: number;
  dilation?: number;
  /** Whether channels come and go last. */
  last?: boolean;
  /** In how many maps, one after the other, the channels of one image come and go last: those of attention's heads. */
  heads?: number;
}

/** A depthwise convolution with its three gradients. */
function drawn({ batch, channels, size, kernel, stride = 1, dilation = 1, last = false, heads = 1 }: Case) {
  const x = input(last ? [batch * heads, ...size, channels / heads] : [batch, channels, ...size]);
  const w = input([channels, 1, kernel, kernel]);
  const bias = input([channels]);
  const padding = (dilation * (kernel - 1)) / 2;
  const options = { stride, dilation, padding, groups: channels };
  const images = last ? x.permute(0, 3, 1, 2).reshape([batch, channels, ...size]) : x;
  const map = conv(images, w, bias, options);
  const y = last ? map.reshape([batch * heads, channels / heads, ...map.shape.slice(2)]).permute(0, 2, 3, 1) : map;
  const seed = input(y.shape);
  const [dx, dw, db] = gradients(y, [x, w, bias], { seed });
  return simplify(new Graph(Object.entries({ x, w, bias, seed }), Object.entries({ y, dx, dw, db })));
}

/** Depthwise convolutions that are left as the engine has them. */
const left = (graph: Graph): number =>
  graph.nodes.filter(({ op, attrs }) => op.name.startsWith("Conv") && op.domain === "" && attrs.group > 1).length;

const cases: Readonly<Record<string, Case>> = {
  "as many channels as fill blocks": { batch: 2, channels: 32, size: [9, 7], kernel: 7 },
  "channels last": { batch: 2, channels: 16, size: [8, 8], kernel: 7, last: true },
  "channels of two heads last": { batch: 3, channels: 32, size: [8, 2], kernel: 3, last: true, heads: 2 },
  "two images fill blocks": { batch: 2, channels: 24, size: [7, 7], kernel: 5 },
  "stride 2": { batch: 2, channels: 16, size: [9, 8], kernel: 3, stride: 2 },
  "stride 2, two images": { batch: 2, channels: 24, size: [10, 14], kernel: 5, stride: 2 },
  "stride 3, dilated": { batch: 1, channels: 16, size: [13, 10], kernel: 3, stride: 3, dilation: 2 },
  "dilated, four images": { batch: 4, channels: 4, size: [9, 9], kernel: 3, dilation: 2 },
};

for (const [what, one] of Object.entries(cases))
  test(`depthwise convolutions in blocks: ${what}`, { skip: process.arch !== "x64" }, async () => {
    const graph = drawn(one);
    assert.equal(left(graph), 3);
    const blocked = depthwiseInBlocks(graph);
    assert.equal(left(blocked), 0);
    const feeds = Object.fromEntries(
      [...graph.inputs].map(([name, { shape }]) => [name, as(randn(shape as number[]), "float32")]),
    );
    const wanted = await runGraph(graph, feeds, { optimize: "extended" });
    const got = await runGraph(graph, feeds);
    for (const name of Object.keys(wanted)) assert.ok(difference(got[name], wanted[name]) < 1e-5, name);
    const transposes = (g: Graph) => g.nodes.filter((node) => node.op.name === "Transpose").length;
    if (one.last) assert.equal(transposes(blocked), 0);
  });

test("what cannot be in blocks, and what the engine brings there itself, stays", () => {
  assert.equal(left(depthwiseInBlocks(drawn({ batch: 3, channels: 20, size: [8, 8], kernel: 3 }))), 3);
  const draw = (w: Tensor, map: Tensor): number =>
    left(depthwiseInBlocks(new Graph([], [["y", conv(map, w, undefined, { groups: 16 })]])));
  const known = constant(new Float32Array(144), [16, 1, 3, 3], "float32");
  assert.equal(draw(known, input([2, 16, 8, 8])), 1);
  assert.equal(draw(input([16, 1, 3, 3]), input([new OpenDim("N"), 16, 8, 8])), 0);
  // An axis that is no channel may be open.
  const open = input([2, new OpenDim("N"), 4, 4]).permute(0, 2, 3, 1);
  assert.equal(depthwiseInBlocks(new Graph([], [["y", open]])).outputs.get("y"), open);
  // Rows of heads, seen as images, the engine would transpose.
  const heads = input([4, 8, 8, 16]).permute(0, 3, 1, 2).reshape([2, 32, 8, 8]);
  const wide = constant(new Float32Array(288), [32, 1, 3, 3], "float32");
  const y = conv(heads, wide, undefined, { groups: 32 });
  assert.equal(left(depthwiseInBlocks(new Graph([], [["y", y]]))), 0);
});

test("sums of five axes, and of several that are open, stay", async () => {
  const map = (shape: Shape): Tensor => input(shape).permute(0, 3, 1, 2);
  const stay = (y: Tensor): void => assert.equal(depthwiseInBlocks(new Graph([], [["y", y]])).outputs.get("y"), y);
  stay(map([2, 3, 5, 16]).reshape([2, 8, 3, 5, 2]).sum([0, 2, 3]));
  stay(map([new OpenDim("N"), new OpenDim("H"), 5, 16]).sum([0, 2, 3]));
});
