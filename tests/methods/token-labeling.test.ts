import assert from "node:assert/strict";
import { after, test } from "node:test";
import { findModel } from "../../src/backbones/index.ts";
import type { MixPatches, TokenLabelled, Tokens } from "../../src/backbones/token-labels.ts";
import { UsageError } from "../../src/base/errors.ts";
import { Graph } from "../../src/graph/graph.ts";
import { input, type Tensor } from "../../src/graph/tensor.ts";
import { TokenLabeling, type TokenLabelingOptions } from "../../src/methods/index.ts";
import { initialWeights, Module, weightsOf } from "../../src/nn/module.ts";
import { Rng } from "../../src/nn/rng.ts";
import { trace } from "../../src/nn/trace.ts";
import { averagePool } from "../../src/ops/pool.ts";
import { adamw, chain } from "../../src/optim/optimizer.ts";
import { openNode } from "../../src/runtime/node.ts";
import type { HostTensor } from "../../src/runtime/runtime.ts";
import { Classifier } from "../../src/tasks/classify.ts";
import { nextName } from "../../src/train/step/state.ts";
import { trainStep } from "../../src/train/step/step.ts";
import { refused } from "../support/webgpu.ts";

const runtime = await openNode({ threads: 1 });
after(() => runtime.close());

const floats = (shape: readonly number[], data: Iterable<number>): HostTensor => ({
  dtype: "float32",
  shape,
  data: Float32Array.from(data),
});
const whole = (dtype: "int32" | "uint32", values: readonly number[], shape: readonly number[]): HostTensor => ({
  dtype,
  shape,
  data: dtype === "int32" ? Int32Array.from(values) : Uint32Array.from(values),
});

/** Pictures of two channels that say themselves what they show; patches of the last map are 2 × 2 of the first. */
class Plain extends Module implements TokenLabelled {
  readonly channels = [2, 2];
  readonly strides = [1, 2];
  readonly dim = 2;
  readonly headName = "head";
  readonly otherHeads = ["aux_head"] as const;
  forward(image: Tensor): Tensor[] {
    return [image, averagePool(image, { kernel: 2 })];
  }
  embed(image: Tensor): Tensor {
    return this.tokens(image).whole;
  }
  tokens(image: Tensor, mix: MixPatches = (patches) => patches): Tokens {
    const map = averagePool(mix(image), { kernel: 2 });
    return { whole: map.mean([2, 3]), patches: map.permute(0, 2, 3, 1) };
  }
}

/** Compiles the loss of labelling two pictures of 8 × 8; its heads read the channels, `sure` times over. */
async function losses(options: TokenLabelingOptions, tokens: boolean) {
  const task = new TokenLabeling(new Classifier(new Plain(), 2), options);
  const names: [string, Tensor][] = [
    ["image", input([2, 2, 8, 8])],
    ["target", input([2], "int32")],
    ...(tokens ? [["tokens", input([2, 4, 4, 2])] as [string, Tensor]] : []),
  ];
  const seed = input([], "uint32");
  const { result } = trace(task, { training: true, rng: new Rng(seed) }, () => task.forward(Object.fromEntries(names)));
  const weights = weightsOf(task).map((w): [string, Tensor] => [w.path, w.tensor]);
  const used = options.mix === false ? [] : [["seed", seed] as [string, Tensor]];
  const graph = new Graph([...names, ...used, ...weights], [["loss", result.loss]]);
  assert.deepEqual(refused(graph.nodes), []);
  const program = await runtime.compile(graph);
  return {
    program,
    async loss(feeds: Record<string, HostTensor>, sure: number): Promise<number> {
      const head = { weight: floats([2, 2], [sure, 0, 0, sure]), bias: floats([2], [0, 0]) };
      const heads = Object.fromEntries(
        ["head", "aux_head"].flatMap((name) => [
          [`${name}.weight`, head.weight],
          [`${name}.bias`, head.bias],
        ]),
      );
      const { loss } = (await program.run({ ...feeds, ...heads })) as Record<string, HostTensor>;
      return Number(loss.data[0]);
    },
  };
}

/** Two pictures, of class 0 and of class 1 throughout. */
const image = floats(
  [2, 2, 8, 8],
  Array.from({ length: 256 }, (_, i) => (Math.floor(i / 64) % 3 === 0 ? 1 : 0)),
);
const target = whole("int32", [0, 1], [2]);

test("the loss is that of the image and, half as much, that of its patches", async () => {
  const { program, loss } = await losses({ mix: false }, true);
  // The patches of the first picture are labelled falsely.
  const tokens = floats(
    [2, 4, 4, 2],
    Array.from({ length: 64 }, (_, i) => i % 2),
  );
  const right = Math.log(1 + Math.exp(-3));
  const wrong = Math.log(1 + Math.exp(3));
  assert.ok(Math.abs((await loss({ image, target, tokens }, 3)) - (right + 0.25 * (right + wrong))) < 1e-6);
  await program.release();
});

test("a mixed image has a mixed label, and every patch keeps its own", async () => {
  const { program, loss } = await losses({}, false);
  const sure = 40; // patches that are labelled by their own image cost nothing
  const expected = (share: number): number => {
    const [a, b] = [sure * (1 - share), sure * share];
    const sum = Math.max(a, b) + Math.log1p(Math.exp(-Math.abs(a - b)));
    return sum - (1 - share) * a - share * b;
  };
  const shares = new Set<number>();
  for (let seed = 0; seed < 12; seed++) {
    const value = await loss({ image, target, seed: whole("uint32", [seed], []) }, sure);
    const places = Array.from({ length: 9 }, (_, k) => k); // the loss of k patches of 16 is that of 16 - k
    const nearest = places.reduce((a, b) =>
      Math.abs(expected(b / 16) - value) < Math.abs(expected(a / 16) - value) ? b : a,
    );
    assert.ok(Math.abs(expected(nearest / 16) - value) < 1e-4, `seed ${seed}: ${value}`);
    shares.add(nearest);
  }
  assert.ok(shares.size > 3, `boxes of ${[...shares]} patches`);
  await program.release();
});

test("VOLO learns from labels of its patches", async () => {
  const backbone = (await findModel("volo_micro_32")).create();
  const task = new TokenLabeling(new Classifier(backbone, 3));
  const size = 4;
  const { graph, state } = trainStep(task, chain(adamw()), {
    batch: {
      image: { dtype: "float32", shape: [size, 3, 32, 32] },
      target: { dtype: "int32", shape: [size] },
      tokens: { dtype: "float32", shape: [size, 8, 8, 3] },
    },
  });
  const labels = Array.from({ length: size }, (_, i) => i % 3);
  const data = {
    image: floats(
      [size, 3, 32, 32],
      Array.from({ length: size * 3072 }, (_, i) => Math.sin(i + labels[Math.floor(i / 3072)] * i)),
    ),
    target: whole("int32", labels, [size]),
    tokens: floats(
      [size, 8, 8, 3],
      Array.from({ length: size * 192 }, (_, i) => (i % 3 === labels[Math.floor(i / 192)] ? 1 : 0)),
    ),
  };
  const initial = initialWeights(task, 1);
  const values = new Map(
    state.map(({ name, kind, path, shape }) => [
      name,
      kind === "slot" ? new Float32Array(shape.reduce((a, b) => a * b, 1)) : initial.get(path)!,
    ]),
  );
  const program = await runtime.compile(graph);
  const seen: number[] = [];
  for (let step = 0; step < 8; step++) {
    const fed = Object.fromEntries(state.map(({ name, shape }) => [name, floats(shape, values.get(name)!)]));
    const given = { lr: floats([], [0.003]), step: floats([], [step + 1]), seed: whole("uint32", [step], []) };
    const out = (await program.run({ ...fed, ...data, ...given })) as Record<string, HostTensor>;
    seen.push(Number(out.loss.data[0]));
    for (const { name } of state) values.set(name, out[nextName(name)].data as Float32Array<ArrayBuffer>);
  }
  await program.release();
  assert.ok(seen[7] < 0.8 * seen[0], `losses ${seen}`);
});

test("a model without labels for patches is refused", async () => {
  for (const name of ["vit_tiny_patch16_224", "uniformer_micro_32"]) {
    const model = new Classifier((await findModel(name)).create(), 10);
    assert.throws(
      () => new TokenLabeling(model),
      (error) => error instanceof UsageError && /volo/.test(error.message),
    );
  }
});
