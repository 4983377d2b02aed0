import assert from "node:assert/strict";
import { test } from "node:test";
import { gradients } from "../../src/autodiff/gradients.ts";
import { createHeads } from "../../src/backbones/backbone.ts";
import { modelCost, parameterCount } from "../../src/backbones/cost.ts";
import type { Backbone, ModelEntry } from "../../src/backbones/index.ts";
import { UsageError } from "../../src/base/errors.ts";
import { Graph } from "../../src/graph/graph.ts";
import { OpenDim } from "../../src/graph/shape.ts";
import { constant, input, type Tensor } from "../../src/graph/tensor.ts";
import { crossEntropy } from "../../src/nn/losses.ts";
import { parametersOf, weightsOf } from "../../src/nn/module.ts";
import { Rng } from "../../src/nn/rng.ts";
import { trace } from "../../src/nn/trace.ts";
import type { HostTensor, Runtime } from "../../src/runtime/runtime.ts";
import { Classifier } from "../../src/tasks/classify.ts";
import { goldenWeight, uniform } from "../golden-check.ts";

type Size = readonly [number, number];

/** Models with fewer parameters than this, and the smallest of each family, also run; the others are only drawn. */
const cheap = 6e6;

/** Models that only ever widen or halve the map, so that no block has a shortcut and none can be dropped. */
const withoutShortcuts = new Set(["micronet_m0_224", "micronet_m1_224"]);

/** What every backbone keeps. */
export function backboneSuite(
  entry: ModelEntry,
  { runtime, isSmallest }: { runtime: () => Promise<Runtime>; isSmallest: boolean },
): void {
  const backbone = entry.create();
  const stride = Math.max(...backbone.strides);
  const small: Size = [2 * stride, 2 * stride];
  const { imageSize } = entry.preprocessing;

  const sizes: Size[] = [
    [imageSize, imageSize],
    [100, 75],
    [3 * stride, 5 * stride],
    [stride, stride],
  ];
  for (const size of sizes)
    test(`maps of an image of ${size.join(" × ")}`, () => {
      const model = entry.create({ imageSize: size });
      const maps = draw(model, input([2, 3, ...size]), (image) => model.forward(image));
      assert.equal(maps.length, model.channels.length);
      assert.equal(maps.length, model.strides.length);
      for (const [i, { shape }] of maps.entries()) {
        assert.deepEqual(shape.slice(0, 2), [2, model.channels[i]]);
        for (const [axis, pixels] of size.entries()) {
          const exact = pixels / model.strides[i];
          const got = shape[axis + 2] as number;
          assert.ok(got >= Math.floor(exact) && got <= Math.ceil(exact), `stage ${i}: ${got} for ${exact}`);
        }
      }
    });

  test("one vector for each image, and a classifier of any size on it", () => {
    const image = input([2, 3, ...small]);
    const own = entry.create({ imageSize: small });
    assert.deepEqual(draw(own, image, (x) => own.embed(x)).shape, [2, own.dim]);
    for (const classes of [10, 1000]) {
      const model = new Classifier(entry.create({ imageSize: small }), classes);
      assert.deepEqual(draw(model, image, (x) => model.forward(x)).shape, [2, classes]);
      const head = parametersOf(model).filter((w) => w.path.startsWith(`${own.headName}.`));
      assert.ok(head.every((w) => w.tensor.shape[0] === classes));
      if (own.createHead) continue;
      assert.deepEqual(
        head.map((w) => [w.path, w.tensor.shape]),
        [
          [`${own.headName}.weight`, [classes, own.dim]],
          [`${own.headName}.bias`, [classes]],
        ],
      );
    }
  });

  test("parameters have names of their own, and a cost", () => {
    const paths = weightsOf(backbone).map((w) => w.path);
    assert.equal(new Set(paths).size, paths.length);
    const { params, macs, activations } = modelCost(entry, { classes: 7 });
    const heads = createHeads(backbone, 7).reduce((sum, head) => sum + parameterCount(head), 0);
    assert.equal(params, parameterCount(backbone) + heads);
    assert.ok(macs > 0 && activations > 0 && macs > activations);
  });

  test("other channels", () => {
    const model = entry.create({ imageSize: small, inChannels: 5 });
    assert.equal(draw(model, input([1, 5, ...small]), (x) => model.embed(x)).shape[1], model.dim);
  });

  test("drops blocks while it trains only", () => {
    const model = entry.create({ imageSize: small, dropPath: 0.5 });
    const seed = input([], "uint32");
    const image = input([2, 3, ...small]);
    const at = (training: boolean, rng?: Rng) => trace(model, { training, rng }, () => model.embed(image)).result;
    const reads = (x: Tensor): boolean => new Graph([], [["x", x]]).nodes.includes(seed.node);
    assert.ok(!reads(at(false, new Rng(seed))));
    assert.equal(reads(at(true, new Rng(seed))), !withoutShortcuts.has(entry.name));
    const always = entry.create({ imageSize: small });
    assert.doesNotThrow(() => trace(always, { training: true }, () => always.embed(image)));
  });

  test("says what it needs", () => {
    const create = (options: Record<string, unknown>) => () => entry.create(options);
    if (stride > 1)
      assert.throws(create({ imageSize: stride - 1 }), usage(new RegExp(`${stride} × ${stride} or more`)));
    assert.throws(create({ imageSize: 0 }), usage(/imageSize/));
    assert.throws(create({ imageSize: 100.5 }), usage(/imageSize/));
    assert.throws(create({ imageSize: NaN }), usage(/it is NaN/));
    for (const sides of [[224], [224, 224, 3], []])
      assert.throws(create({ imageSize: sides }), usage(/\[height, width\]/));
    assert.throws(() => createHeads(backbone, 0), usage(/for 0 classes/));
    assert.throws(create({ inChannels: 0 }), usage(/inChannels/));
    assert.throws(create({ dropPath: 1 }), usage(/dropPath/));
    assert.throws(create({ droppath: 0.1 }), usage(/did you mean dropPath/));
    assert.throws(create({ colour: "red" }), usage(/no option "colour"/));
  });

  if (parameterCount(backbone) > cheap && !isSmallest) return;

  test("the loss reaches every parameter", () => {
    const model = new Classifier(entry.create({ imageSize: small, dropPath: 0.1 }), 10);
    const [image, targets, seed] = [input([2, 3, ...small]), input([2], "int32"), input([], "uint32")];
    const { result } = trace(model, { training: true, rng: new Rng(seed) }, () => {
      const parameters = parametersOf(model).map((w) => w.tensor);
      const found = gradients(crossEntropy(model.forward(image), targets), parameters);
      return { parameters, found };
    });
    assert.deepEqual(
      result.found.map((g) => g.shape),
      result.parameters.map((p) => p.shape),
    );
  });

  const others: Size[] = [
    [stride + 5, 2 * stride],
    [3 * stride, stride],
  ];
  for (const size of others)
    test(`runs on ${size.join(" × ")}, and the rows of a batch do not mix`, async () => {
      const model = new Classifier(entry.create({ imageSize: size }), 10);
      const image = input([new OpenDim("N"), 3, ...size]);
      const logits = draw(model, image, (x) => model.forward(x));
      const named = weightsOf(model).map((w): [string, Tensor] => [w.path, w.tensor]);
      const weights = new Map(
        named.map(([path, { shape }]) => [
          path,
          constant(goldenWeight(path, shape as number[]), shape as number[], "float32"),
        ]),
      );
      const program = await (await runtime()).compile(
        new Graph([["image", image], ...named], [["logits", logits]]).bind(weights),
      );
      const pixels = Float32Array.from(uniform("input", 3 * 3 * size[0] * size[1]));
      const each = pixels.length / 3;
      const run = async (batch: number, from: number): Promise<number[]> => {
        const data = pixels.slice(from * each, (from + batch) * each);
        const out = await program.run({ image: { dtype: "float32", shape: [batch, 3, ...size], data } });
        return [...((out.logits as HostTensor).data as Float32Array)];
      };
      const together = await run(3, 0);
      const alone = [...(await run(1, 0)), ...(await run(1, 1)), ...(await run(1, 2))];
      await program.release();
      const scale = Math.max(...together.map(Math.abs));
      assert.ok(scale > 0 && Number.isFinite(scale));
      for (const [i, x] of together.entries())
        assert.ok(Math.abs(x - alone[i]) <= 1e-4 * scale, `${x} and ${alone[i]}`);
    });
}

const usage =
  (pattern: RegExp) =>
  (error: unknown): boolean =>
    error instanceof UsageError && pattern.test(error.message);

function draw<T>(model: Backbone | Classifier, image: Tensor, forward: (image: Tensor) => T): T {
  return trace(model, {}, () => forward(image)).result;
}
