import assert from "node:assert/strict";
import { test } from "node:test";
import { gradients } from "../../src/autodiff/gradients.ts";
import { Random } from "../../src/base/philox.ts";
import { Graph, sortNodes } from "../../src/graph/graph.ts";
import { isGraph, readModel } from "../../src/graph/onnx/model.ts";
import { writeOnnx } from "../../src/graph/onnx/write.ts";
import { printGraph } from "../../src/graph/print.ts";
import { type Dim, OpenDim } from "../../src/graph/shape.ts";
import { type Body, constant, input, type Node, scalar, type Tensor } from "../../src/graph/tensor.ts";
import {
  batchNormTraining,
  columnSums,
  conv,
  gelu,
  greater,
  hardSwish,
  layerNorm,
  linear,
  relu,
  softmax,
  tanh,
  where,
} from "../../src/ops/index.ts";
import { inTiles, productsInBlocks } from "../../src/passes/index.ts";
import type { HostTensor } from "../../src/runtime/runtime.ts";
import { numbers, randn } from "../support/arrays.ts";
import { as, difference, randomFeeds, runGraph, runtime, withoutWideBlocks } from "../support/check.ts";
import { openStep } from "./step.ts";

const weights = (...shape: number[]): Tensor => constant(as(randn(shape), "float32").data, shape, "float32");
const scans = (graph: Graph): Node[] => graph.nodes.filter(({ op }) => op.name === "Scan");

/** For each chain its tiles and, in order, what it runs in each. */
const chains = (graph: Graph): [tiles: Dim, operations: string][] =>
  scans(graph).map(({ inputs: [x], attrs }) => {
    const nodes = sortNodes((attrs.body as Body).outputs).filter(({ inputs }) => inputs.length > 0);
    return [x!.shape[0], nodes.map(({ op }) => op.name).join(" ")];
  });

/** Runs what `draw` draws as it is and in tiles of 1 kB: nothing may change.  What runs in tiles, as `chains` has it. */
async function inSmallTiles(
  shapes: readonly (readonly number[])[],
  draw: (...xs: Tensor[]) => Record<string, Tensor>,
  dtype: "float32" | "float64" = "float32",
): Promise<[Dim, string][]> {
  const xs = shapes.map((shape) => input(shape, dtype));
  const named = xs.map((x, i): [string, Tensor] => [`x${i}`, x]);
  const graph = new Graph(named, Object.entries(draw(...xs)));
  const tiled = inTiles(graph, 1000);
  const feeds = Object.fromEntries(Object.entries(randomFeeds(graph)).map(([name, x]) => [name, as(x, dtype)]));
  const [wanted, got] = [await runGraph(graph, feeds), await runGraph(tiled, feeds)];
  const tolerance = dtype === "float64" ? 1e-9 : 1e-6;
  for (const name of graph.outputs.keys()) assert.ok(difference(got[name], wanted[name]) < tolerance, name);
  return chains(tiled);
}

const pair = (...shape: number[]): number[][] => [shape, shape];

/** Something that no chain goes through. */
const apart = (x: Tensor): Tensor => columnSums(x).add(1);
const grad = (y: Tensor, x: Tensor[], seed: Tensor): Tensor[] => gradients(y, x, { seed });

test("the gradient of GELU is one chain", async () => {
  const found = await inSmallTiles(pair(64, 32), (x, dy) => ({ out: apart(grad(gelu(x), [x], dy)[0]) }));
  assert.deepEqual(found, [[8, "Mul Mul Sub Exp Mul Erf HardSigmoid Add Mul"]]);
});

test("norms, softmax and their gradients: rows stay whole", async () => {
  const norm = await inSmallTiles([[4, 16, 24], [24], [24], [4, 16, 24]], (x, scale, bias, dy) => {
    const y = layerNorm(x.add(1), scale, bias, 1e-5);
    const [dx, dScale, dBias] = grad(y, [x, scale, bias], dy);
    return { y: y.reshape([8, 8, 24]), dx: dx.mul(2), dScale, dBias };
  });
  assert.deepEqual(norm, [
    [4, "Add LayerNormalization LayerNormalization Mul Mul MatMul Reshape Sub Reshape MatMul Reshape Mul Sub Mul"],
  ]);
  const attention = await inSmallTiles(pair(2, 8, 16, 16), (x, dy) => ({ out: apart(grad(softmax(x), [x], dy)[0]) }));
  assert.deepEqual(attention, [[2, "Softmax Mul ReduceSum Mul Sub"]]);
});

test("batch norm between activations, with what is different for each map", async () => {
  const found = await inSmallTiles([[8, 6, 16, 16], [6], [6], [8, 6, 16, 16]], (x, scale, bias, dy) => {
    const { y, mean } = batchNormTraining(relu(x), scale, bias, 1e-5);
    const z = hardSwish(y);
    const [dx, dScale] = grad(z, [x, scale], dy);
    return { y: z.mul(2), dx: dx.add(1), dScale, mean };
  });
  assert.ok(found.length > 1);
  assert.ok(
    found.some(([, names]) => names.includes("ReduceSum") && names.includes("HardSigmoid")),
    String(found),
  );
});

test("what broadcasts along the rows is taken whole, what has them by the tile", async () => {
  const shapes = [[64, 32], [32], [64, 1], [1, 32], [64, 32], []];
  const found = await inSmallTiles(shapes, (x, row, column, line, mask, number) => ({
    out: apart(where(greater(mask, scalar(0)), x.add(row).mul(column), line.mul(number)).sub(number)),
  }));
  assert.deepEqual(found, [[8, "Greater Add Mul Where Sub"]]);
});

test("rows under another shape; what leaves is written once", async () => {
  const found = await inSmallTiles(
    [
      [6, 16, 20],
      [96, 20],
    ],
    (x, z) => {
      const rows = relu(x).reshape([96, 20]).add(z);
      const back = rows.reshape([6, 16, 20]).exp();
      return { out: apart(back), other: apart(rows.reshape([48, 40])), same: apart(rows.reshape([6, 320])) };
    },
  );
  assert.deepEqual(
    found.map(([tiles]) => tiles),
    [6],
  );
  assert.equal(
    found[0][1]
      .split(" ")
      .filter((name) => name !== "Reshape")
      .join(" "),
    "Relu Add Exp",
  );
});

test("a chain ends where something outside reads it, and begins anew behind", async () => {
  // z needs y, and what is computed from all rows of y.
  const found = await inSmallTiles([[64, 32]], (x) => {
    const y = relu(x).mul(2);
    const centre = apart(y);
    const z = y.sub(centre).exp();
    return { out: apart(z), centre };
  });
  assert.deepEqual(found, [
    [8, "Relu Mul"],
    [8, "Sub Exp"],
  ]);
  // The factor that is read whole is of the same chain.
  const whole = await inSmallTiles([[64, 64]], (x) => {
    const y = relu(x).mul(2);
    return {
      out: apart(
        y
          .matmul(y.sum([1], true))
          .add(y)
          .exp(),
      ),
    };
  });
  assert.deepEqual(whole, [
    [16, "Relu Mul ReduceSum"],
    [16, "MatMul Add Exp"],
  ]);
});

test("small maps, rows that do not divide, results of the graph and images that are no rows stay as they are", async () => {
  const twice = (x: Tensor): Tensor => relu(x).mul(2);
  assert.deepEqual(await inSmallTiles([[8, 16]], (x) => ({ out: apart(twice(x)) })), []);
  assert.deepEqual(await inSmallTiles([[67, 32]], (x) => ({ out: apart(twice(x)) })), []);
  assert.deepEqual(await inSmallTiles([[64, 32]], (x) => ({ out: twice(x) })), []);
  const x = input([new OpenDim("N"), 32]);
  assert.deepEqual(scans(inTiles(new Graph([["x", x]], [["y", twice(x).sum([0])]]), 8)), []);
});

test("of as many images as there may be, each is cut into so many tiles", async () => {
  const x = input([new OpenDim("N"), 64, 8]);
  const y = relu(x.reshape([-1, 8]))
    .mul(2)
    .exp();
  const graph = new Graph([["x", x]], [["y", apart(y)]]);
  const tiled = inTiles(graph, 300);
  assert.deepEqual(chains(tiled), [[new OpenDim("N", 8), "Relu Mul Exp"]]);
  for (const images of [1, 3]) {
    const feeds = { x: as(randn([images, 64, 8]), "float32") };
    assert.ok(difference((await runGraph(tiled, feeds)).y, (await runGraph(graph, feeds)).y) < 1e-6);
  }
});

test("an MLP whose weights stay, in blocks: all of it for some rows after others", {
  skip: await withoutWideBlocks(),
}, async () => {
  const x = input([new OpenDim("N"), 28, 28, 16]);
  const inner = linear(x, weights(64, 16), weights(64));
  const graph = new Graph([["x", x]], [["y", x.add(linear(gelu(inner), weights(16, 64)))]]);
  const tiled = inTiles(productsInBlocks(graph, 16), 60_000);
  assert.deepEqual(chains(tiled), [[new OpenDim("N", 4), "Conv Gelu Conv ReorderOutput"]]);
  const feeds = { x: as(randn([3, 28, 28, 16]), "float32") };
  const wanted = await runGraph(graph, feeds, { optimize: "extended" });
  assert.ok(difference((await runGraph(tiled, feeds)).y, wanted.y) < 1e-5);
});

test("what the engine has in blocks by itself stays there", () => {
  const x = input([64, 16, 8, 8]);
  const draw = (w: Tensor): Graph => {
    const y = conv(x, w);
    return new Graph(Object.entries({ x, w }), [["y", conv(relu(y.add(conv(x, w))).mul(y), w)]]);
  };
  assert.deepEqual(scans(inTiles(draw(weights(16, 16, 1, 1)), 1000)), []);
  // Weights that change are in no blocks.
  assert.equal(scans(inTiles(draw(input([16, 16, 1, 1])), 1000)).length, 1);
});

test("whatever is drawn from rows, sums, shapes and products gives the same in tiles", async () => {
  let total = 0;
  for (let seed = 0; seed < 40; seed++) {
    const random = new Random(seed, "graph");
    const pick = <T>(list: readonly T[]): T => list[random.below(list.length)];
    const found = await inSmallTiles(
      [[48, 40], [48, 40], [40], [48, 1]],
      (...xs) => {
        const drawn = [...xs];
        const last = (): Tensor => pick(drawn.slice(-4));
        const whole = (x: Tensor): Tensor => (x.rank === 3 ? x.reshape([48, 40]) : x).add(xs[0]);
        const steps: (() => Tensor)[] = [
          () =>
            whole(last())
              .mul(whole(pick(drawn)))
              .mul(0.3),
          () => tanh(last()),
          () => relu(last()),
          () => softmax(whole(last())),
          () => whole(last()).sum([1], true),
          () => whole(last()).reshape([8, 6, 40]),
          () => columnSums(whole(last())).mul(0.1),
          () => whole(last()).matmul(xs[2].reshape([40, 1])),
          () => layerNorm(whole(last()), xs[2], undefined, 1e-3),
        ];
        for (let i = 0; i < 16; i++) drawn.push(pick(steps)());
        const results = drawn.slice(-3).map((x, i): [string, Tensor] => [`y${i}`, x]);
        return { ...Object.fromEntries(results), all: columnSums(whole(last())) };
      },
      "float64",
    );
    total += found.length;
  }
  assert.ok(total > 30, `${total} chains`);
});

for (const model of ["swin_micro_32", "cswin_micro_32", "resnet20_cifar", "mobilenetv3_small_050"])
  test(`a step of ${model} has the same loss and gradients in tiles`, async () => {
    const { graph, feeds } = await openStep(model, { batch: 4 });
    const tiled = inTiles(graph, 4000);
    assert.ok(scans(tiled).length > 4, `${scans(tiled).length} chains`);
    const [wanted, got] = [await runGraph(graph, feeds), await runGraph(tiled, feeds)];
    assert.ok(difference(got.loss, wanted.loss) < 1e-6);
    // All at once: some, a key's bias, are zero but for rounding.
    const moments = [...graph.outputs.keys()].filter((name) => name.startsWith("next.optimizer.m."));
    assert.ok(moments.length > 20);
    const joined = (results: Record<string, HostTensor>): HostTensor => {
      const data = Float32Array.from(moments.flatMap((name) => numbers(results[name])));
      return { dtype: "float32", shape: [data.length], data };
    };
    assert.ok(difference(joined(got), joined(wanted)) < 1e-5);
  });

test("behind a transpose, tiles of one image get its axis within", async () => {
  const shape = [4, 8, 6, 5];
  const x = input(shape);
  const y = columnSums(
    relu(x.permute(0, 3, 1, 2))
      .mul(3)
      .add(1),
  );
  const graph = new Graph([["x", x]], [["y", y]]);
  const tiled = inTiles(graph, 768);
  assert.deepEqual(chains(tiled), [[4, "Reshape Relu Mul Add"]]);
  assert.deepEqual(scans(tiled)[0].inputs[0]!.shape, [4, 5, 8, 6]);
  const feeds = randomFeeds(graph);
  assert.ok(difference((await runGraph(tiled, feeds)).y, (await runGraph(graph, feeds)).y) < 1e-6);
});

test("the runtime does so with maps that leave the cache, and a profile tells what runs within", async () => {
  const [x, dy] = [input([1024, 1024]), input([1024, 1024])];
  const graph = new Graph(Object.entries({ x, dy }), [["out", apart(grad(gelu(x), [x], dy)[0])]]);
  const feeds = randomFeeds(graph);
  const program = await runtime.compile(graph, { profile: true });
  const results = [await program.run(feeds), await program.run(feeds)] as Record<string, HostTensor>[];
  const times = await program.profile();
  await program.release();
  const wanted = await runGraph(graph, feeds, { optimize: "extended" });
  assert.ok(difference(results[1].out, wanted.out) < 1e-6);
  assert.ok(!times.some(({ op }) => op === "Scan"));
  const erf = times.find(({ op }) => op === "Erf")!;
  assert.ok(erf.calls >= 7, `${erf.calls} calls`); // of eight, in two runs, the first is left out
});

test("a file has the body within its node, and text shows what it takes", () => {
  const [x, row] = [input([64, 32]), input([32])];
  const y = columnSums(relu(x).mul(row).add(1));
  const graph = inTiles(new Graph(Object.entries({ x, row }), [["y", y]]), 1000);
  const { nodes } = readModel(writeOnnx(graph)).graph;
  const node = nodes.find(({ op }) => op === "Scan")!;
  const body = node.attributes.get("body")!;
  assert.ok(isGraph(body));
  assert.equal(node.inputs.length, 1);
  assert.deepEqual(
    body.nodes.map(({ op }) => op),
    ["Relu", "Mul", "Add"],
  );
  assert.ok(body.nodes[1].inputs.includes("row"));
  assert.match(printGraph(graph), /Scan\(.*body=\(float32 \[8, 32\]\) -> \(float32 \[8, 32\]\)/);
});
