import "../../../src/ops/methods.ts";
import assert from "node:assert/strict";
import { test } from "node:test";
import { Graph } from "../../../src/graph/graph.ts";
import { OpenDim } from "../../../src/graph/shape.ts";
import { input } from "../../../src/graph/tensor.ts";
import { type NodeOptions, openNode } from "../../../src/runtime/node.ts";
import { inPieces, pieceSizes } from "../../../src/train/evaluate/pieces.ts";
import { withStreams } from "../../../src/train/evaluate/predictor.ts";

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

test("a batch goes whole through one stream, and in even pieces of few pictures through several", () => {
  assert.deepEqual(pieceSizes({ streams: 1 }, [42, 3, 224, 224]), [42]);
  assert.deepEqual(pieceSizes({ streams: 2 }, [8, 3, 224, 224]), [4, 4]);
  assert.deepEqual(pieceSizes({ streams: 2 }, [128, 3, 32, 32]), [64, 64]);
  assert.deepEqual(pieceSizes({ streams: 2 }, [1, 3, 384, 384]), [1]);
  assert.deepEqual(pieceSizes({ streams: 4 }, [3, 3, 224, 224]), [1, 1, 1]);
  for (const n of [2, 7, 42, 43]) {
    const sizes = pieceSizes({ streams: 2 }, [n, 3, 224, 224]);
    assert.equal(sum(sizes), n);
    assert.equal(sizes.length % 2, 0);
    assert.ok(Math.max(...sizes) <= 4 && Math.max(...sizes) - Math.min(...sizes) <= 1, `${sizes}`);
  }
});

test("the results of pieces come in the order of the pictures, whichever ends first", async () => {
  const shape = [9, 1, 1, 200_000];
  const data = new Float32Array(9 * 200_000);
  for (let i = 0; i < 9; i++) data[i * 200_000] = i;
  let running = 0;
  let most = 0;
  const found = await inPieces({ streams: 2 }, data, shape, async (piece, [n]) => {
    most = Math.max(most, ++running);
    await new Promise((resolve) => setTimeout(resolve, 12 - piece[0]));
    running--;
    return Float32Array.from({ length: 2 * n }, (_, i) => piece[(i >> 1) * 200_000] + (i % 2) / 2);
  });
  assert.deepEqual([...found], Array.from({ length: 9 }, (_, i) => [i, i + 0.5]).flat());
  assert.equal(most, 3);
  await assert.rejects(
    inPieces({ streams: 2 }, data, shape, async ([first]) => {
      if (first === 4) throw new Error("the fourth");
      return new Float32Array(1);
    }),
    /the fourth/,
  );
});

test("two streams give what one does", async () => {
  const x = input([new OpenDim("N"), 3, 8, 8]);
  const graph = new Graph([["x", x]], [["y", x.sum([2, 3]).exp()]]);
  const shape = [5, 3, 8, 8];
  const data = Float32Array.from({ length: 5 * 3 * 64 }, (_, i) => Math.sin(i));
  const answers: number[][] = [];
  for (const streams of [1, 2]) {
    const runtime = await openNode({ streams });
    assert.equal(runtime.streams, streams);
    const program = await runtime.compile(graph);
    const found = await inPieces(runtime, data, shape, async (data, shape) => {
      const { y } = await program.run({ x: { dtype: "float32", shape, data } });
      return y.data as Float32Array;
    });
    answers.push([...found]);
    await runtime.close();
  }
  assert.deepEqual(answers[1], answers[0]);
});

test("streams are for many pictures on the processor, and as many as asked for", async () => {
  const streams = (pictures: number, weights: number, options: NodeOptions) =>
    withStreams(pictures, weights, options).streams;
  assert.equal(streams(1000, 1e8, { threads: 2 }), 2);
  assert.equal(streams(1000, 1e8, { threads: 16 }), 4);
  assert.equal(streams(1000, 5e8, { threads: 16 }), 2);
  assert.equal(streams(1000, 5e9, { threads: 16 }), 1);
  assert.equal(streams(1, 1e8, { threads: 2 }), 1);
  assert.equal(streams(1000, 1e8, { threads: 2, device: "webgpu" }), 1);
  assert.equal(streams(1000, 5e9, { threads: 2, streams: 2 }), 2);
  await assert.rejects(openNode({ streams: 0 }), /streams is 0/);
  await assert.rejects(openNode({ device: "webgpu", streams: 2 }), /WebGPU has one stream/);
});
