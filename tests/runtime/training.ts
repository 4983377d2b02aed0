import { findModel } from "../../src/backbones/index.ts";
import { Random } from "../../src/base/philox.ts";
import type { DType } from "../../src/graph/dtype.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { crossEntropy } from "../../src/nn/losses.ts";
import { initialWeights, Module } from "../../src/nn/module.ts";
import { adamw, chain, clipNorm } from "../../src/optim/optimizer.ts";
import { type DeviceTensor, type HostTensor, numberOf, type Runtime } from "../../src/runtime/runtime.ts";
import { Classifier } from "../../src/tasks/classify.ts";
import { DeviceState } from "../../src/train/step/device-state.ts";
import { heldNames, initialState, nextName } from "../../src/train/step/state.ts";
import { trainStep } from "../../src/train/step/step.ts";
import type { Task } from "../../src/train/step/task.ts";

const [batch, size, classes] = [2, 32, 10];

class Learner extends Module implements Task {
  readonly model: Classifier;
  constructor(model: Classifier) {
    super();
    this.model = model;
  }
  forward({ image, label }: Readonly<Record<string, Tensor>>): { loss: Tensor } {
    return { loss: crossEntropy(this.model.forward(image), label, { smoothing: 0.1 }) };
  }
}

/** The losses of the first steps of training on made-up pictures: the same on every device, but for rounding. */
export async function trainingLosses(
  runtime: Runtime,
  name: string,
  { steps, strict = false, donate = true }: { steps: number; strict?: boolean; donate?: boolean },
): Promise<number[]> {
  const backbone = (await findModel(name)).create({ dropPath: 0.1 });
  const learner = new Learner(new Classifier(backbone, classes));
  const step = trainStep(learner, chain(clipNorm(1), adamw({ weightDecay: 0.05 })), {
    batch: { image: { dtype: "float32", shape: [batch, 3, size, size] }, label: { dtype: "int32", shape: [batch] } },
    pack: true,
  });
  const program = await runtime.compile(step.graph, { strict });
  const names = heldNames(step);
  const began = await DeviceState.upload(runtime, initialState(step, initialWeights(learner, 7)), {
    packs: step.packs,
  });
  let state: DeviceTensor[] = began.tensors(names);
  const keep = names.map(nextName);
  const losses: number[] = [];
  for (let i = 1; i <= steps; i++) {
    const feeds = { ...picture(i), ...Object.fromEntries(names.map((name, k) => [name, state[k]])) };
    const results = await program.run(feeds, { outputs: ["loss", ...keep], keep, donate: donate ? state : [] });
    if (!donate) runtime.dispose(state);
    state = keep.map((name) => results[name] as DeviceTensor);
    losses.push(numberOf(results.loss));
  }
  runtime.dispose(state);
  await program.release();
  return losses;
}

/** What a step is given besides its state. */
function picture(step: number): Record<string, HostTensor> {
  const random = new Random(11, 0, step, "pictures");
  const image = Float32Array.from({ length: batch * 3 * size * size }, () => random.normal());
  const one = (dtype: DType, data: HostTensor["data"]): HostTensor => ({ dtype, shape: [], data });
  return {
    image: { dtype: "float32", shape: [batch, 3, size, size], data: image },
    label: {
      dtype: "int32",
      shape: [batch],
      data: Int32Array.from({ length: batch }, (_, i) => (step + 3 * i) % classes),
    },
    lr: one("float32", Float32Array.of(1e-3)),
    step: one("float32", Float32Array.of(step)),
    seed: one("uint32", Uint32Array.of(100 + step)),
  };
}
