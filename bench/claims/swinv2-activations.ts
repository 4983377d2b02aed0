import { Swin } from "../../src/backbones/swin.ts";
import { SwinV2 } from "../../src/backbones/swinv2.ts";
import { Random } from "../../src/base/philox.ts";
import { Loader, openDataset } from "../../src/data/index.ts";
import { Graph } from "../../src/graph/graph.ts";
import { OpenDim, staticSize } from "../../src/graph/shape.ts";
import { input, type Tensor } from "../../src/graph/tensor.ts";
import { features } from "../../src/nn/features.ts";
import { normal, ones } from "../../src/nn/init.ts";
import { initialWeights, weightsOf } from "../../src/nn/module.ts";
import { adamw, chain, clipNorm, cosine } from "../../src/optim/index.ts";
import { openNode } from "../../src/runtime/node.ts";
import { type HostTensor, numberOf, type Program } from "../../src/runtime/runtime.ts";
import { Classification, Classifier } from "../../src/tasks/classify.ts";
import { hostBatch } from "../../src/train/run/loaders.ts";
import { DeviceState } from "../../src/train/step/device-state.ts";
import { initialState, type Tensors } from "../../src/train/step/state.ts";
import { type TrainStep, trainStep } from "../../src/train/step/step.ts";
import { StepProgram } from "../../src/train/step/step-program.ts";

// Swin V2's claim that its blocks keep activations flat with depth where Swin's let them grow (Liu et al. 2022, section 3.2, figure 2):
// the mean square of what each block returns for CIFAR-10 pictures, in nets as wide as the micro variants with twelve blocks in the last
// stage.  Random, each linear layer multiplying the deviation of its input by a gain of 1 or of 2, and trained briefly from the published
// start; three seeds.
//
//     node dist/bench/claims/swinv2-activations.js TRAIN VAL [steps] [seeds]

const [trainPath, valPath, steps = "250", seeds = "3"] = process.argv.slice(2);
if (!trainPath || !valPath) {
  console.error("usage: swinv2-activations.js <training pictures> <validation pictures> [steps] [seeds]");
  process.exit(2);
}
const [side, batch, shown] = [32, 64, 256];
const config = { patch: 2, dim: 32, depths: [2, 2, 12], heads: [1, 2, 4], window: 4 };
const blocks = config.depths.flatMap((depth, i) => Array.from({ length: depth }, (_, j) => `layers.${i}.blocks.${j}`));
const lastStage = blocks.filter((path) => path.startsWith(`layers.${config.depths.length - 1}.`));
const states = ["random, gain 1", "random, gain 2", "trained"] as const;

interface Net {
  name: string;
  model: Classifier;
  /** (pictures, weights) -> the mean square after each block */
  probe: Program;
  step: TrainStep;
  program: Program;
  /** For each state, what the probe found with each seed. */
  found: Map<string, number>[][];
}

const runtime = await openNode();
const [train, val] = [await openDataset(trainPath), await openDataset(valPath)];
try {
  const pictures = await somePictures();
  const nets = [
    await open("Swin", new Swin(config, { imageSize: side })),
    await open(
      "Swin V2",
      new SwinV2({ ...config, learned: config.depths.map(() => config.window) }, { imageSize: side }),
    ),
  ];
  for (let seed = 1; seed <= Number(seeds); seed++)
    for (const net of nets) {
      net.found[0].push(await measure(net, pictures, random(net.model, seed, 1)));
      net.found[1].push(await measure(net, pictures, random(net.model, seed, 2)));
      const { weights, loss } = await learn(net, seed);
      net.found[2].push(await measure(net, pictures, weights));
      console.log(`seed ${seed}  ${net.name.padEnd(7)}  loss of the last tenth of the training ${loss.toFixed(3)}`);
    }
  for (const k of states.keys()) report(nets, k);
} finally {
  await runtime.close();
  await Promise.all([train.close?.(), val.close?.()]);
}

async function open(name: string, backbone: Swin | SwinV2): Promise<Net> {
  const model = new Classifier(backbone, train.classes.length);
  const image = input([new OpenDim("N"), 3, side, side]);
  const squares = [...features(model, image, blocks)].map(([path, x]): [string, Tensor] => [path, x.square().mean()]);
  const named = weightsOf(model).map((w): [string, Tensor] => [w.path, w.tensor]);
  const probe = await runtime.compile(new Graph([["image", image], ...named], squares));
  const step = trainStep(new Classification(model), chain(clipNorm(1), adamw({ weightDecay: 0.05 })), {
    batch: {
      image: { dtype: "float32", shape: [batch, 3, side, side] },
      target: { dtype: "int32", shape: [batch] },
    },
  });
  return { name, model, probe, step, program: await runtime.compile(step.graph), found: states.map(() => []) };
}

/** The same pictures for every net. */
async function somePictures(): Promise<HostTensor> {
  await using loader = new Loader(val, {
    batchSize: shown,
    shuffle: true,
    transform: { kind: "evaluate", size: side },
  });
  for await (const { image, shape } of loader.batches({ epoch: 0 })) return { dtype: "float32", shape, data: image };
  throw new Error("there are no validation pictures");
}

async function measure({ probe }: Net, pictures: HostTensor, weights: Tensors): Promise<Map<string, number>> {
  const feeds = new Map<string, HostTensor>([["image", pictures]]);
  for (const [path, { shape, data }] of weights) feeds.set(path, { dtype: "float32", shape, data });
  const read = probe.inputs.map(({ name }) => [name, feeds.get(name) as HostTensor]);
  const squares = await probe.run(Object.fromEntries(read));
  return new Map(blocks.map((path) => [path, numberOf(squares[path])]));
}

/** The published start, but for the linear layers of blocks, and norms, which start at 0 in Swin V2. */
function random(model: Classifier, seed: number, gain: number): Tensors {
  const weights = new Map(start(model, seed));
  for (const [path, { shape }] of weights) {
    const stream = new Random(seed, "random", path);
    if (/\.(qkv|proj|fc1|fc2|reduction)\.weight$/.test(path))
      weights.set(path, { shape, data: normal(gain / Math.sqrt(staticSize(shape.slice(1))))(shape, stream) });
    if (/\.norm\d?\.weight$/.test(path)) weights.set(path, { shape, data: ones(shape, stream) });
  }
  return weights;
}

function start(model: Classifier, seed: number): Tensors {
  const values = initialWeights(model, seed);
  return new Map(
    weightsOf(model).map(({ path, tensor }) => [path, { shape: tensor.shape as number[], data: values.get(path)! }]),
  );
}

/** Trains with AdamW, and crops and flips of the pictures. */
async function learn({ model, step, program }: Net, seed: number): Promise<{ weights: Tensors; loss: number }> {
  const count = Number(steps);
  const rate = cosine({ lr: 1e-3, steps: count, warmup: Math.floor(count / 10) });
  const began = initialWeights(model, seed);
  const training = new StepProgram(step, program, await DeviceState.upload(runtime, initialState(step, began)));
  await using loader = new Loader(train, {
    batchSize: batch,
    seed,
    transform: { kind: "train", size: side, padding: 4, hflip: 0.5 },
  });
  const losses: number[] = [];
  for (let epoch = 0; losses.length < count; epoch++)
    for await (const pictures of loader.batches({ epoch })) {
      if (losses.length === count) break;
      const controls = { lr: rate(losses.length), seed: losses.length };
      losses.push(numberOf((await training.run(hostBatch(pictures), controls)).loss));
    }
  const weights = await training.state.read((name) => began.has(name));
  training.state.dispose();
  return { weights, loss: mean(losses.slice(-Math.ceil(count / 10))) };
}

function report(nets: readonly Net[], k: number): void {
  console.log(`\n${states[k]}: mean square after each block, the mean of the seeds`);
  console.log(`block              ${nets.map(({ name }) => name.padStart(10)).join("")}`);
  for (const path of blocks) {
    const row = nets.map(({ found }) => mean(found[k].map((squares) => squares.get(path)!)));
    console.log(`${path.padEnd(19)}${row.map((x) => x.toPrecision(3).padStart(10)).join("")}`);
  }
  for (const { name, found } of nets) {
    const growth = found[k].map(
      (squares) => squares.get(lastStage[lastStage.length - 1])! / squares.get(lastStage[0])!,
    );
    const each = growth.map((x) => x.toPrecision(3)).join("  ");
    console.log(`${name.padEnd(7)}  last block ÷ first block of the last stage, for each seed: ${each}`);
  }
}

function mean(xs: readonly number[]): number {
  return xs.reduce((a, b) => a + b, 0) / xs.length;
}
