import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { listModels } from "../../../src/backbones/index.ts";
import { Graph } from "../../../src/graph/graph.ts";
import { lower } from "../../../src/graph/onnx/write.ts";
import { constant, type Tensor } from "../../../src/graph/tensor.ts";
import { zeros } from "../../../src/nn/init.ts";
import { BatchNorm2d, Linear } from "../../../src/nn/layers.ts";
import { crossEntropy } from "../../../src/nn/losses.ts";
import { initialWeights, Module, parametersOf } from "../../../src/nn/module.ts";
import { currentRng } from "../../../src/nn/trace.ts";
import { cast } from "../../../src/ops/compare.ts";
import { gelu } from "../../../src/ops/elementwise.ts";
import {
  adamw,
  chain,
  clipNorm,
  type GradientTransform,
  lamb,
  type Optimizer,
  type Rule,
  sgd,
} from "../../../src/optim/optimizer.ts";
import { refused } from "../../../src/passes/webgpu.ts";
import { openNode } from "../../../src/runtime/node.ts";
import { type HostTensor, numberOf, type Runtime } from "../../../src/runtime/runtime.ts";
import { accuracyOf, Classification, Classifier } from "../../../src/tasks/classify.ts";
import { layerDepths, layerRates } from "../../../src/train/step/layer-depth.ts";
import { splitStep } from "../../../src/train/step/split-step.ts";
import { initialState } from "../../../src/train/step/state.ts";
import { type StepOptions, trainStep } from "../../../src/train/step/step.ts";
import { StepProgram } from "../../../src/train/step/step-program.ts";

/** Two layers on the pixels of pictures of 2 × 2.  [N, 3, 2, 2] -> [N, 3] */
class Toy extends Module {
  first = new Linear(12, 5);
  second = new Linear(5, 3);
  forward(image: Tensor): Tensor {
    return this.second.forward(gelu(this.first.forward(image.reshape([-1, 12]))));
  }
}

let runtime: Runtime;
before(async () => {
  runtime = await openNode({ threads: 1 });
});
after(() => runtime.close());

const size = 8;
const batch: StepOptions["batch"] = {
  image: { dtype: "float32", shape: [size, 3, 2, 2] },
  target: { dtype: "int32", shape: [size] },
};
const pictures = Float32Array.from({ length: size * 12 }, (_, i) => Math.sin(i * i));
const labels = Int32Array.from({ length: size }, (_, i) => (i * i) % 3);
interface Ran {
  losses: number[];
  state: Map<string, Float32Array>;
}

/** Trains the toy for some steps.  -> its losses and the state at the end */
async function run(
  options: Partial<StepOptions> = {},
  {
    steps = 3,
    task = new Classification(new Toy()),
    optimizer = chain(adamw({ weightDecay: 0.01 })) as Optimizer | Rule,
    lr = 0.01,
  } = {},
): Promise<Ran> {
  const drawn = trainStep(task, optimizer, { batch, ...options });
  const program = await StepProgram.open(runtime, drawn, initialState(drawn, initialWeights(task, 3)));
  const losses: number[] = [];
  for (let i = 0; i < steps; i++) {
    const data = { image: { ...batch.image, data: pictures }, target: { ...batch.target, data: labels } };
    const { loss } = await program.run(data, { lr, seed: i });
    losses.push(numberOf(loss));
  }
  const state = new Map(Array.from(await program.state.read(), ([name, { data }]) => [name, data]));
  await program.release();
  return { losses, state };
}

const far = (a: Float32Array, b: Float32Array): number =>
  a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i])), 0);

test("a batch in parts makes the step of the whole", async () => {
  const whole = await run();
  for (const accumulate of [2, 4]) {
    const parts = await run({ accumulate });
    for (const [i, loss] of whole.losses.entries()) assert.ok(Math.abs(loss - parts.losses[i]) < 1e-6);
    for (const [name, values] of whole.state) assert.ok(far(values, parts.state.get(name)!) < 2e-5, name);
  }
});

test("parts take their share of yes and no, too", async () => {
  class Masked extends Module {
    fc = new Linear(12, 3);
    forward({ image, seen }: Record<string, Tensor>): { loss: Tensor } {
      const y = this.fc.forward(image.reshape([-1, 12]));
      return {
        loss: y
          .mul(cast(seen, { to: "float32" }))
          .square()
          .mean(),
      };
    }
  }
  const seen = { dtype: "bool", shape: [size, 1], data: Uint8Array.of(1, 0, 0, 1, 1, 1, 0, 1) } as const;
  const image = { ...batch.image, data: pictures };
  const states = await Promise.all(
    [1, 2].map(async (accumulate) => {
      const task = new Masked();
      const drawn = trainStep(task, sgd(), { batch: { image: batch.image, seen }, accumulate });
      const program = await StepProgram.open(runtime, drawn, initialState(drawn, initialWeights(task, 3)));
      await program.run({ image, seen }, { lr: 0.1 });
      const state = await program.state.read();
      await program.release();
      return state;
    }),
  );
  for (const [name, { data }] of states[0]) assert.ok(far(data, states[1].get(name)!.data) < 1e-6, name);
});

test("where a step cannot be opened, what was made of it is given back", async () => {
  const task = new Classification(new Toy());
  const drawn = trainStep(task, sgd(), { batch });
  const state = new Map(initialState(drawn, initialWeights(task, 3)));
  state.set([...state.keys()].at(-1)!, { dtype: "float32", shape: [9], data: new Float32Array(1) });
  let left = 0;
  const counting: Runtime = {
    ...runtime,
    compile: async (graph, options) => {
      const program = await runtime.compile(graph as Graph, options);
      left++;
      return { ...program, release: () => program.release().then(() => void left--) };
    },
    upload: async (tensor, options) => {
      const held = await runtime.upload(tensor, options);
      left++;
      return held;
    },
    dispose: (tensors, options) => {
      left -= tensors.length;
      runtime.dispose(tensors, options);
    },
  };
  await assert.rejects(StepProgram.open(counting, drawn, state));
  assert.equal(left, 0);
});

test("a step in parts stays on a WebGPU device", () => {
  const { graph } = trainStep(new Classification(new Toy()), chain(adamw()), { batch, accumulate: 2 });
  assert.deepEqual(refused(lower(graph).nodes), []);
});

const classWeights = constant(Float32Array.of(0.2, 1, 3), [3], "float32");

test("parts count by the weights of their classes, which may be 0 in one, or in all", async () => {
  // The labels are 0 and 1, in one part 1 alone.
  const zeros = [Float32Array.of(3, 0, 1), Float32Array.of(0, 0, 1)].map((data) => constant(data, [3], "float32"));
  for (const weights of [classWeights, ...zeros]) {
    const task = () => new Classification(new Toy(), { classWeights: weights });
    const [whole, parts] = [await run({}, { task: task() }), await run({ accumulate: 4 }, { task: task() })];
    for (const [i, loss] of whole.losses.entries()) assert.ok(Math.abs(loss - parts.losses[i]) < 1e-6);
    for (const [name, values] of whole.state) assert.ok(far(values, parts.state.get(name)!) < 2e-5, name);
  }
});

/** What a map of means over pictures is normalised by, twice: [N, 3, 2, 2] -> [N, 3] */
class Normed extends Module {
  norm = new BatchNorm2d(3);
  forward(image: Tensor): Tensor {
    return this.norm.forward(this.norm.forward(image)).mean([2, 3]);
  }
}

test("running statistics follow each use, and each part of a batch, one after the other", async () => {
  const path = "norm.running_mean";
  const means = (from: number, to: number): number[] =>
    [0, 1, 2].map((c) => {
      const rows = Array.from({ length: to - from }, (_, i) =>
        pictures.subarray((from + i) * 12 + c * 4, (from + i) * 12 + c * 4 + 4),
      );
      return rows.flatMap((row) => [...row]).reduce((a, b) => a + b) / (4 * rows.length);
    });
  const task = () => new Classification(new Normed());
  // The second use sees a batch whose mean is 0.
  const whole = await run({}, { steps: 1, task: task() });
  assert.ok(
    far(
      whole.state.get(path)!,
      Float32Array.from(means(0, 8), (m) => 0.9 * 0.1 * m),
    ) < 1e-6,
  );
  const parts = await run({ accumulate: 2 }, { steps: 1, task: task() });
  const [first, second] = [means(0, 4), means(4, 8)];
  const expected = first.map((m, c) => 0.9 * (0.9 * (0.9 * 0.1 * m) + 0.1 * second[c]));
  assert.ok(far(parts.state.get(path)!, Float32Array.from(expected)) < 1e-6);
});

/** Has a layer that nobody reads, and tells the loss of each picture. */
class Loose extends Module {
  model = new Toy();
  spare = new Linear(2, 2);
  forward({ image, target }: Readonly<Record<string, Tensor>>): { loss: Tensor; each: Tensor } {
    const logits = this.model.forward(image);
    return { loss: crossEntropy(logits, target), each: logits.square().sum([1]) };
  }
}

test("what the loss does not depend on stays as it is", () => {
  const { frozen, state } = trainStep(new Loose(), chain(adamw()), { batch });
  assert.deepEqual(
    frozen.map(({ path }) => path),
    ["spare.weight", "spare.bias"],
  );
  assert.ok(state.every(({ path }) => path.startsWith("model.")));
  const frozenToo = { batch, frozen: (path: string) => path.startsWith("model.") };
  assert.throws(() => trainStep(new Loose(), chain(adamw()), frozenToo), /depends on none of the 2 parameters/);
});

test("layers that are not found are told of", () => {
  class Hidden extends Module {
    #model = new Toy();
    forward({ image }: Readonly<Record<string, Tensor>>): { loss: Tensor } {
      return { loss: this.#model.forward(image).sum() };
    }
  }
  assert.throws(() => trainStep(new Hidden(), chain(adamw()), { batch }), /no parameters\n {2}help: .* public fields/);
});

test("a task without a loss is told of", () => {
  class Bare extends Loose {
    override forward(batch: Readonly<Record<string, Tensor>>): { loss: Tensor; each: Tensor } {
      return super.forward(batch).each as never;
    }
  }
  assert.throws(() => trainStep(new Bare(), chain(adamw()), { batch }), /gave no loss\n {2}help: return/);
});

test("names that only the batch or only the task knows are told of", () => {
  const { image, target } = batch;
  const step = (given: StepOptions["batch"], accumulate?: number) =>
    trainStep(new Classification(new Toy(), { classWeights }), chain(adamw()), { batch: given, accumulate });
  assert.throws(
    () => step({ picture: image, target }),
    /reads image, which the batch does not hold\n.*picture, target$/,
  );
  assert.throws(() => step({ image }, 2), /reads target, which the batch does not hold\n {2}help: it holds image$/);
  const spare = { image, target, tokns: image };
  assert.throws(() => step(spare), /holds tokns, which the task does not read\n {2}help: it reads image, target$/);
});

test("a rule alone is an optimizer", async () => {
  const [alone, chained] = await Promise.all([run({}, { optimizer: adamw() }), run({}, { optimizer: chain(adamw()) })]);
  assert.deepEqual(alone.losses, chained.losses);
});

test("what a task tells of each picture is joined over the parts", () => {
  const { graph } = trainStep(new Loose(), chain(adamw()), { batch, accumulate: 2 });
  assert.deepEqual(graph.outputs.get("each")?.shape, [size]);
  assert.throws(() => trainStep(new Loose(), chain(adamw()), { batch, accumulate: 0 }), /cut into 0 parts/);
});

test("a weight of another size is named", () => {
  const drawn = trainStep(new Classification(new Toy()), adamw(), { batch });
  const weights = initialWeights(new Classification(new Toy()), 3).set("first.bias", new Float32Array(6));
  assert.throws(
    () => initialState(drawn, weights),
    /1 weight of another size than the model's\n {2}first\.bias \[\d+\]: 6 values/,
  );
});

test("frozen parameters stay as they are, and the others learn", async () => {
  const initial = initialWeights(new Classification(new Toy()), 3);
  const { state, losses } = await run({ frozen: (path) => path.startsWith("first") });
  assert.equal(far(state.get("first.weight")!, initial.get("first.weight")!), 0);
  assert.equal(state.has("optimizer.m.first.weight"), false);
  assert.ok(far(state.get("second.weight")!, initial.get("second.weight")!) > 1e-3);
  assert.ok(losses[2] < losses[0]);

  const task = new Classification(new Toy());
  const drawn = trainStep(task, chain(adamw()), { batch, frozen: (path) => path.startsWith("first") });
  const values = initialState(drawn, initial);
  for (const { path } of drawn.frozen) values.delete(path);
  await assert.rejects(
    StepProgram.open(runtime, drawn, values),
    /2 frozen parameters have no values\n {2}first\.weight\n {2}first\.bias\n {2}help: give them beside the state/,
  );
});

/** A moving average of what a step makes of it, from the beginning on: it goes 9/11, 9/12, … of the way, and 1 - decay at the least. */
const averaged = (start: Float32Array, decay: number, ...after: Float32Array[]): Float32Array =>
  after.reduce((before, now, t) => before.map((x, i) => x + (now[i] - x) * Math.max(9 / (11 + t), 1 - decay)), start);

test("shares that are none are refused", () => {
  assert.throws(() => trainStep(new Loose(), chain(adamw()), { batch, ema: 1 }), /^UsageError: ema is 1; it must be/);
  const smoothed = new Classification(new Toy(), { smoothing: 2 });
  assert.throws(() => trainStep(smoothed, chain(adamw()), { batch }), /^UsageError: smoothing is 2; it must be/);
});

for (const decay of [0.9999, 0.2])
  test(`a moving average of decay ${decay} follows the parameters, the more closely the shorter the run`, async () => {
    const path = "second.weight";
    const before = initialWeights(new Classification(new Toy()), 3).get(path)!;
    const one = (await run({ ema: decay }, { steps: 1 })).state;
    const two = (await run({ ema: decay }, { steps: 2 })).state;
    const expected = averaged(before, decay, one.get(path)!, two.get(path)!);
    assert.ok(far(two.get(`ema.${path}`)!, expected) < 1e-6);
  });

test("the moving average follows running statistics, and nothing that stays as it is", async () => {
  const task = () => new Classification(new Normed());
  const path = "norm.running_var";
  const one = (await run({ ema: 0.9 }, { steps: 1, task: task() })).state;
  const two = (await run({ ema: 0.9 }, { steps: 2, task: task() })).state;
  const expected = averaged(Float32Array.of(1, 1, 1), 0.9, one.get(path)!, two.get(path)!);
  assert.ok(far(two.get(`ema.${path}`)!, expected) < 1e-6);
  assert.ok(far(two.get(path)!, expected) > 1e-3);
});

const perTensor: GradientTransform = (grads) => ({
  grads: new Map([...grads].map(([path, g]) => [path, g.div(g.square().sum().sqrt())])),
});

for (const [name, { options = {}, task = () => new Classification(new Toy()), optimizer, packs }] of Object.entries<{
  options?: Partial<StepOptions>;
  task?: () => Classification;
  optimizer: Optimizer | Rule;
  packs: string[];
}>({
  adamw: {
    options: { ema: 0.9 },
    optimizer: chain(clipNorm(0.5), adamw({ weightDecay: 0.1 })),
    packs: ["pack.first.weight", "pack.first.bias"],
  },
  "sgd, where each has a rate of its own": { optimizer: sgd({ lrScale: (path) => path.length }), packs: [] },
  "lamb, which looks at whole tensors": { optimizer: lamb({ weightDecay: 0.1 }), packs: [] },
  "gradients that are changed one by one": { optimizer: chain(perTensor, adamw()), packs: [] },
  "running statistics": {
    options: { ema: 0.9 },
    task: () => new Classification(new Normed()),
    optimizer: adamw(),
    packs: ["pack.norm.weight", "pack.norm.running_mean"],
  },
}))
  test(`a packed state learns as one that is not: ${name}`, async () => {
    const drawn = trainStep(task(), optimizer, { batch, ...options, pack: true });
    const made = drawn.packs.filter(({ kind }) => kind === "parameter" || kind === "buffer");
    assert.deepEqual(made.map(({ name }) => name).sort(), packs.sort());
    const whole = await run(options, { task: task(), optimizer });
    const packed = await run({ ...options, pack: true }, { task: task(), optimizer });
    assert.deepEqual(packed.losses, whole.losses);
    assert.deepEqual([...packed.state.keys()], [...whole.state.keys()]);
    for (const [name, values] of whole.state) assert.deepEqual(packed.state.get(name), values, name);
  });

/** The toy, with half of what it learns from left out, by picture. */
class Dropping extends Toy {
  override forward(image: Tensor): Tensor {
    const mask = currentRng().bernoulli(0.5, [image.shape[0] as number, 1, 1, 1]);
    return super.forward(image.mul(mask));
  }
}

for (const [name, task] of Object.entries({
  "the mean over pictures": () => new Classification(new Dropping()),
  "a mean by class weights": () => new Classification(new Dropping(), { classWeights }),
  "each class on its own": () => new Classification(new Dropping(), { classWeights, loss: "bce" }),
}))
  test(`parts side by side make the step of the whole: ${name}`, async () => {
    const optimizer = chain(clipNorm(0.5), adamw({ weightDecay: 0.1 }));
    const whole = await run({ ema: 0.9 }, { task: task(), optimizer });
    for (const parts of [2, 4]) {
      const streams = await openNode({ streams: 2, threads: 2 });
      const drawn = splitStep(task(), optimizer, { batch, ema: 0.9, pack: true, parts });
      const program = await StepProgram.open(streams, drawn, initialState(drawn, initialWeights(task(), 3)));
      for (const [i, loss] of whole.losses.entries()) {
        const data = { image: { ...batch.image, data: pictures }, target: { ...batch.target, data: labels } };
        const found = await program.run(data, { lr: 0.01, seed: i });
        assert.deepEqual(Object.keys(found), ["loss", "accuracy", "gradNorm"]);
        assert.ok(Math.abs(numberOf(found.loss) - loss) < 1e-6);
      }
      const state = await program.state.read();
      assert.deepEqual([...state.keys()], [...whole.state.keys()]);
      for (const [name, values] of whole.state) assert.ok(far(values, state.get(name)!.data) < 2e-5, name);
      await streams.close();
    }
  });

test("weights called as something of the step is are refused by name", () => {
  class Teacher extends Toy {
    ema = new Linear(4, 4);
    pack = new Linear(4, 4, { bias: false });
    seed = this.param([2], zeros);
  }
  const task = () => new Classification(new Teacher());
  for (const draw of [
    () => trainStep(task(), adamw(), { batch }),
    () => splitStep(task(), adamw(), { batch, parts: 2 }),
  ])
    assert.throws(
      draw,
      /^UsageError: 4 weights .*\n {2}ema\.weight\n {2}ema\.bias\n {2}pack\.weight\n {2}seed\n {2}help: give the module's field/,
    );
});

test("what cannot go in parts side by side is refused", async () => {
  const options = { batch, parts: 2 };
  assert.throws(
    () => splitStep(new Classification(new Normed()), adamw(), options),
    /learns statistics of whole batches/,
  );
  const task = new Classification(new Toy());
  assert.throws(() => splitStep(task, adamw(), { batch, parts: 3 }), /a batch of 8 does not divide into 3 parts/);
  const drawn = splitStep(task, adamw(), options);
  const program = await StepProgram.open(runtime, drawn, initialState(drawn, initialWeights(task, 3)));
  const image = await runtime.upload({ ...batch.image, data: pictures });
  const onDevice = program.run({ image, target: { ...batch.target, data: labels } }, { lr: 1 });
  await assert.rejects(onDevice, /a batch on the device cannot be cut into parts/);
  await program.release();
});

test("logits that are all alike are no right answers", async () => {
  const share = async (logits: number[][], target: Tensor): Promise<number> => {
    const drawn = constant(Float32Array.from(logits.flat()), [logits.length, 4], "float32");
    const program = await runtime.compile(new Graph([], [["accuracy", accuracyOf(drawn, target)]]));
    const { accuracy } = (await program.run({})) as Record<string, HostTensor>;
    await program.release();
    return Number(accuracy.data[0]);
  };
  const labels = constant(Int32Array.of(0, 3), [2], "int32");
  const alike = [0, 0, 0, 0];
  assert.equal(await share([alike, alike], labels), 0.25);
  assert.equal(await share([alike, [1, 2, 3, 4]], labels), 0.625);
  const mixed = constant(Float32Array.of(0.5, 0.5, 0, 0, 0, 0.3, 0.7, 0), [2, 4], "float32");
  assert.equal(
    await share(
      [
        [2, 2, 1, 0],
        [0, 1, 2, 0],
      ],
      mixed,
    ),
    1,
  );
});

test("a step that was computed is taken before the next one", async () => {
  const drawn = trainStep(new Classification(new Toy()), adamw(), { batch });
  const state = initialState(drawn, initialWeights(new Classification(new Toy()), 3));
  const program = await StepProgram.open(runtime, drawn, state);
  const data = { image: { ...batch.image, data: pictures }, target: { ...batch.target, data: labels } };
  const results = await program.compute(data, { lr: 0.01 });
  await assert.rejects(program.compute(data, { lr: 0.01 }), /computed, but not taken\n.*advance/);
  await assert.rejects(program.run(data, { lr: 0.01 }), /computed, but not taken/);
  program.advance(results);
  await assert.rejects(program.run(data, { lr: Number.NaN }), /lr is NaN; it must be a finite number/);
  const [{ loss }] = await Promise.all([
    program.run(data, { lr: 0.01 }),
    assert.rejects(program.run(data, { lr: 0.01 }), /a step is under way\n.*await it first/),
  ]);
  assert.ok(numberOf(loss) < numberOf(results.loss));
  assert.throws(
    () => numberOf({ dtype: "float32", shape: [2], data: Float32Array.of(1, 2) }),
    /\[2\] is no single number/,
  );
  await program.release();
});

test("layers below learn more slowly", async () => {
  const initial = initialWeights(new Classification(new Toy()), 3);
  const change = ({ state }: Ran, path: string): number => far(state.get(path)!, initial.get(path)!);
  const plain = chain(sgd({ momentum: 0 }));
  const scaled = chain(sgd({ momentum: 0, lrScale: (path) => (path.startsWith("first") ? 0.25 : 1) }));
  const a = await run({}, { steps: 1, optimizer: plain });
  const b = await run({}, { steps: 1, optimizer: scaled });
  assert.ok(Math.abs(change(b, "first.weight") / change(a, "first.weight") - 0.25) < 1e-3);
  assert.ok(Math.abs(change(b, "second.weight") / change(a, "second.weight") - 1) < 1e-3);
});

test("depths are counted in blocks, from the stem to the head", () => {
  const paths = [
    "patch_embed.proj.weight",
    "layers.0.blocks.0.attn.qkv.weight",
    "layers.0.blocks.1.attn.qkv.weight",
    "layers.1.downsample.reduction.weight",
    "layers.1.blocks.0.attn.qkv.weight",
    "norm.weight",
    "head.fc.weight",
  ];
  const { depthOf, depth } = layerDepths(paths);
  assert.deepEqual(paths.map(depthOf), [0, 1, 2, 3, 3, 4, 4]);
  assert.equal(depth, 4);
  const rates = layerRates(0.5, paths)!;
  assert.deepEqual(paths.map(rates), [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1 / 2, 1, 1]);
  assert.equal(layerRates(1, paths), undefined);
  const resnet = layerDepths([
    "conv1.weight",
    "layer1.0.conv1.weight",
    "layer1.1.conv1.weight",
    "layer2.0.conv1.weight",
    "fc.weight",
  ]);
  assert.equal(resnet.depth, 4);
  const vit = layerDepths([
    "cls_token",
    "pos_embed",
    "blocks.0.norm1.weight",
    "blocks.1.norm1.weight",
    "norm.weight",
    "head.weight",
  ]);
  assert.deepEqual(
    [vit.depthOf("pos_embed"), vit.depthOf("blocks.1.norm1.weight"), vit.depthOf("head.weight")],
    [0, 2, 3],
  );
  const cswin = layerDepths([
    "stage1_conv_embed.0.weight",
    "stage1.0.attns.0.get_v.weight",
    "merge1.conv.weight",
    "stage2.0.qkv.weight",
    "head.weight",
  ]);
  assert.deepEqual([cswin.depthOf("stage1.0.attns.0.get_v.weight"), cswin.depth], [1, 3]);
});

test("depths of every family: blocks however they are called, and each as many layers as the model has blocks", async () => {
  // timm 1.0.31, group_matcher, has as many where it has the family, but for maxvit and gcvit, which it cuts by stages, and poolformer,
  // of which it knows no layers.
  const layers = {
    swin_tiny_patch4_window7_224: 13,
    swinv2_tiny_window8_256: 13,
    davit_tiny: 7,
    maxvit_tiny_tf_224: 12,
    gcvit_xxtiny: 13,
    cswin_tiny_224: 26,
    vit_tiny_patch16_224: 13,
    resnet18: 9,
    mobilenetv2_100: 18,
    mobilenetv3_small_100: 13,
    mnasnet_100: 18,
    fbnetc_100: 22,
    spnasnet_100: 22,
    proxyless_mobile: 21,
    micronet_m0_224: 8,
    attnet_xxs_224: 11,
    ghostnet_100: 18,
    convnext_tiny: 19,
    poolformer_s12: 13,
    focalnet_tiny_srf: 13,
    smt_tiny_224: 14,
    spectformer_h_s_224: 18,
    iformer_small_224: 19,
    tiny_vit_5m_224: 13,
    cvt_13_224: 14,
    uniformer_small_224: 19,
    volo_d1_224: 22,
    mobile_former_26m: 10,
  };
  const models = await listModels();
  const families = new Set<string>();
  for (const [name, depth] of Object.entries(layers)) {
    const entry = models.find((m) => m.name === name)!;
    families.add(entry.family);
    const model = new Classifier(entry.create(), 10);
    const paths = parametersOf(model).map((w) => w.path);
    const told = layerDepths(paths);
    assert.equal(told.depth, depth, name);
    // Held by a task of one's own, a model has the same layers.
    const held = layerDepths(paths.map((path) => `net.model.${path}`));
    assert.deepEqual(
      paths.map((path) => held.depthOf(`net.model.${path}`)),
      paths.map(told.depthOf),
      name,
    );
  }
  assert.deepEqual(
    models.filter(({ family }) => !families.has(family)).map(({ name }) => name),
    [],
  );
  // What halves the map before a stage goes with the stage's first block, where all of it is listed first too.
  const listed = ["patch_embed1.proj.weight", "patch_embed2.proj.weight", "blocks1.0.a", "blocks1.1.a", "blocks2.0.a"];
  const { depthOf } = layerDepths(listed);
  assert.deepEqual(listed.map(depthOf), [0, 3, 1, 2, 3]);
  // Without blocks there is nothing to tell apart.
  assert.throws(() => layerRates(0.5, ["first.weight", "second.weight"]), /do not tell its layers apart/);
});

test("class weights make the loss a weighted mean, as in PyTorch", async () => {
  const weights = [0.2, 1, 3];
  const table = constant(Float32Array.from(weights), [3], "float32");
  const { losses } = await run({}, { steps: 1, task: new Classification(new Toy(), { classWeights: table }) });
  const single = Array.from(labels, (_, i) => lossOf(i));
  const total = single.reduce((sum, loss, i) => sum + weights[labels[i]] * loss, 0);
  const mass = labels.reduce((sum, label) => sum + weights[label], 0);
  assert.ok(Math.abs(losses[0] - total / mass) < 1e-5);
});

/** The loss of one picture, by plain arithmetic. */
function lossOf(i: number): number {
  const w = initialWeights(new Classification(new Toy()), 3);
  const x = pictures.subarray(i * 12, (i + 1) * 12);
  const linear = (name: string, v: ArrayLike<number>, outputs: number): number[] =>
    Array.from({ length: outputs }, (_, o) =>
      Array.from(v).reduce(
        (sum, value, k) => sum + value * w.get(`${name}.weight`)![o * v.length + k],
        w.get(`${name}.bias`)![o],
      ),
    );
  const hidden = linear("first", x, 5).map((h) => h * 0.5 * (1 + erf(h / Math.SQRT2)));
  const logits = linear("second", hidden, 3);
  return Math.log(logits.reduce((sum, l) => sum + Math.exp(l), 0)) - logits[labels[i]];
}

/** The series of the error function; good to 1e-12 for what comes up here. */
function erf(x: number): number {
  let term = x;
  let sum = x;
  for (let n = 1; n < 60; n++) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}
