/** A module of one's own, trained: it learns to tell lying stripes from standing ones. */
import {
  adamw,
  chain,
  clipNorm,
  crossEntropy,
  initialState,
  initialWeights,
  Module,
  numberOf,
  StepProgram,
  type Tensor,
  trainStep,
} from "oriel";
import { Conv2d, LayerNorm, Linear } from "oriel/nn";
import { openNode } from "oriel/node";
import { relu } from "oriel/ops";

/** Two convolutions, a mean over the picture, a linear classifier.  [N, 3, 16, 16] -> [N, 2] */
class Stripes extends Module {
  conv1 = new Conv2d(3, 8, { kernel: 3, padding: 1 });
  conv2 = new Conv2d(8, 16, { kernel: 3, stride: 2, padding: 1 });
  norm = new LayerNorm(16);
  head = new Linear(16, 2);
  /** A task returns its loss, and whatever else is worth knowing. */
  forward({ image, target }: { image: Tensor; target: Tensor }) {
    const x = relu(this.conv2.forward(relu(this.conv1.forward(image)))); // [N, 16, 8, 8]
    const pooled = this.norm.forward(x.mean([2, 3])); // [N, 16]
    return { loss: crossEntropy(this.head.forward(pooled), target) };
  }
}

const batch = 32;
const task = new Stripes();
// Forward, backward, clipping and update in one graph: (state, batch, lr, step, seed) -> (next state, loss).
const train = trainStep(task, chain(clipNorm(1), adamw({ weightDecay: 0.01 })), {
  batch: { image: { dtype: "float32", shape: [batch, 3, 16, 16] }, target: { dtype: "int32", shape: [batch] } },
});

const runtime = await openNode();
const program = await StepProgram.open(runtime, train, initialState(train, initialWeights(task, 0)));
for (let step = 1; step <= 60; step++) {
  const target = Int32Array.from({ length: batch }, () => Math.round(Math.random()));
  const image = new Float32Array(batch * 3 * 16 * 16).map((_, i) => {
    const [n, y, x] = [Math.floor(i / 768), Math.floor((i % 256) / 16), i % 16];
    return Math.sin((target[n] === 0 ? y : x) + n) + 0.3 * Math.random();
  });
  const pictures = { dtype: "float32", shape: [batch, 3, 16, 16], data: image } as const;
  const classes = { dtype: "int32", shape: [batch], data: target } as const;
  const { loss } = await program.run({ image: pictures, target: classes }, { lr: 0.01 });
  if (step % 10 === 0) console.log(`step ${step}  loss ${numberOf(loss!).toFixed(4)}`);
}
await runtime.close();
