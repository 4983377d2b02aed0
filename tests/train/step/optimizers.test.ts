import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Graph } from "../../../src/graph/graph.ts";
import { input, type Tensor } from "../../../src/graph/tensor.ts";
import "../../../src/ops/methods.ts";
import { adamw, clipNorm, decaysByDefault, lamb, type Rule, sgd } from "../../../src/optim/optimizer.ts";
import { constantRate, cosine, layerDecay, oneCycle, polynomial, stepped } from "../../../src/optim/schedule.ts";
import { openNode } from "../../../src/runtime/node.ts";
import type { HostTensor, Runtime } from "../../../src/runtime/runtime.ts";

let runtime: Runtime;
before(async () => {
  runtime = await openNode({ threads: 1 });
});
after(() => runtime.close());

const steps = 6;
const rates = [0.1, 0.1, 0.05, 0.02, 0.02, 0.01];
const start = [0.5, -1.25, 2, 0.003];
const gradAt = (t: number): number[] => start.map((_, i) => Math.sin(3 * t + i) * (i === 3 ? 1e-4 : 1) + 0.1 * i);

/** Runs a rule on the engine for some steps.  The parameter is [2, 2], so that it decays. */
async function drawn(rule: Rule, path = "fc.weight", count = steps): Promise<number[]> {
  const [param, grad, lr, step] = [input([2, 2]), input([2, 2]), input([]), input([])];
  const slots: Record<string, Tensor> = Object.fromEntries(rule.slots.map((name) => [name, input([2, 2])]));
  const updated = rule.begin({ lr, step })({ path, shape: [2, 2], param, grad, slots });
  const named: [string, Tensor][] = [
    ["param", param],
    ["grad", grad],
    ["lr", lr],
    ["step", step],
    ...Object.entries(slots),
  ];
  const program = await runtime.compile(
    new Graph(named, [
      ["param'", updated.param],
      ...Object.entries(updated.slots).map(([k, v]): [string, Tensor] => [`${k}'`, v]),
    ]),
  );
  const host = (values: number[], shape: number[] = [2, 2]): HostTensor => ({
    dtype: "float32",
    shape,
    data: Float32Array.from(values),
  });
  let state: Record<string, HostTensor> = { param: host(start) };
  for (const slot of rule.slots) state[slot] = host([0, 0, 0, 0]);
  for (let t = 0; t < count; t++) {
    const feeds = { ...state, grad: host(gradAt(t)), lr: host([rates[t]], []), step: host([t + 1], []) };
    const used = Object.fromEntries(Object.entries(feeds).filter(([name]) => named.some(([n]) => n === name)));
    const out = await program.run(used);
    state = Object.fromEntries(Object.keys(state).map((name) => [name, out[`${name}'`] as HostTensor]));
  }
  return Array.from(state.param.data as Float32Array);
}

function close(found: number[], expected: number[]): void {
  for (const [i, value] of found.entries())
    assert.ok(
      Math.abs(value - expected[i]) <= 2e-6 * Math.max(1, Math.abs(expected[i])),
      `${found} instead of ${expected}`,
    );
}

test("AdamW takes the steps of a plain loop in float64, a layer's own rate in its decay too", async () => {
  const [b1, b2, eps, decay] = [0.9, 0.99, 1e-6, 0.4];
  const p = [...start];
  const m = [0, 0, 0, 0];
  const v = [0, 0, 0, 0];
  for (let t = 0; t < steps; t++)
    gradAt(t).forEach((g, i) => {
      const rate = 0.25 * rates[t];
      p[i] -= rate * decay * p[i];
      m[i] = b1 * m[i] + (1 - b1) * g;
      v[i] = b2 * v[i] + (1 - b2) * g * g;
      p[i] -= (rate * (m[i] / (1 - b1 ** (t + 1)))) / (Math.sqrt(v[i] / (1 - b2 ** (t + 1))) + eps);
    });
  close(await drawn(adamw({ betas: [b1, b2], eps, weightDecay: decay, lrScale: () => 0.25 })), p);
});

test("AdamW's first step is the learning rate, to the last digits", async () => {
  const moved = start[3] - (await drawn(adamw(), "fc.weight", 1))[3];
  assert.ok(Math.abs(moved - rates[0]) < 5e-8, `${moved} instead of ${rates[0]}`);
});

test("AdamW does not decay a bias or a position table", async () => {
  const without = await drawn(adamw());
  close(await drawn(adamw({ weightDecay: 0.5 }), "layers.0.relative_position_bias_table"), without);
  const rule = adamw({ weightDecay: 0.5, decays: (_, shape) => shape.length > 1 });
  assert.ok(Math.abs((await drawn(rule))[2] - without[2]) > 0.05);
});

for (const nesterov of [false, true])
  test(`SGD with momentum${nesterov ? ", Nesterov's" : ""} takes the steps of a plain loop`, async () => {
    const [momentum, decay] = [0.9, 0.01];
    const p = [...start];
    const u = [0, 0, 0, 0];
    for (let t = 0; t < steps; t++)
      gradAt(t).forEach((g0, i) => {
        const g = g0 + decay * p[i];
        u[i] = momentum * u[i] + g;
        p[i] -= rates[t] * (nesterov ? g + momentum * u[i] : u[i]);
      });
    close(await drawn(sgd({ momentum, nesterov, weightDecay: decay })), p);
  });

test("LAMB takes the steps of a plain loop in float64", async () => {
  const [b1, b2, eps, decay] = [0.9, 0.999, 1e-6, 0.02];
  let p = [...start];
  const m = [0, 0, 0, 0];
  const v = [0, 0, 0, 0];
  const length = (x: number[]): number => Math.hypot(...x);
  for (let t = 0; t < steps; t++) {
    const direction = gradAt(t).map((g, i) => {
      m[i] = b1 * m[i] + (1 - b1) * g;
      v[i] = b2 * v[i] + (1 - b2) * g * g;
      return m[i] / (1 - b1 ** (t + 1)) / (Math.sqrt(v[i] / (1 - b2 ** (t + 1))) + eps) + decay * p[i];
    });
    const trust = length(p) / length(direction);
    p = p.map((x, i) => x - rates[t] * trust * direction[i]);
  }
  close(await drawn(lamb({ betas: [b1, b2], eps, weightDecay: decay })), p);
});

test("clipping scales all gradients together, and only those that are too long", async () => {
  const [a, b] = [input([2]), input([1])];
  const clipped = async (most: number): Promise<number[]> => {
    const { grads, metrics } = clipNorm(most)(
      new Map([
        ["a", a],
        ["b", b],
      ]),
    );
    const program = await runtime.compile(
      new Graph(
        [
          ["a", a],
          ["b", b],
        ],
        [
          ["x", grads.get("a")!],
          ["y", grads.get("b")!],
          ["norm", metrics!.gradNorm],
        ],
      ),
    );
    const host = (values: number[]): HostTensor => ({
      dtype: "float32",
      shape: [values.length],
      data: Float32Array.from(values),
    });
    const { x, y, norm } = (await program.run({ a: host([3, 4]), b: host([12]) })) as Record<string, HostTensor>;
    return [...x.data, ...y.data, ...norm.data].map(Number);
  };
  close(await clipped(1.3), [0.3, 0.4, 1.2, 13]);
  close(await clipped(20), [3, 4, 12, 13]);
});

test("tables, tokens and what makes position biases do not decay; kernels called so do", () => {
  // timm 1.0.31: no_weight_decay() of Swin V2, MaxViT, TinyViT, VOLO; UniFormer's official skip list names no convolution.
  const keeps: readonly [string, number[]][] = [
    ["layers.0.blocks.0.attn.cpb_mlp.0.weight", [512, 2]],
    ["layers.0.blocks.0.attn.logit_scale", [3, 1, 1]],
    ["stages.0.blocks.0.attn_grid.attn.rel_pos.mlp.fc1.weight", [512, 2]],
    ["stages.0.blocks.0.attn_grid.attn.rel_pos.relative_position_bias_table", [2, 13, 13]],
    ["stages.1.blocks.0.attn.attention_biases", [4, 49]],
    ["pos_embed", [1, 14, 14, 384]],
    ["decoder_pos_embed", [1, 197, 512]],
    ["pos_embed3", [1, 14, 14, 320]],
    ["head.bias", [1000]],
  ];
  const decays: readonly [string, number[]][] = [
    ["blocks1.0.pos_embed.weight", [64, 1, 3, 3]],
    ["stages.0.blocks.0.attn_grid.mlp.fc1.weight", [256, 64]],
    ["head.weight", [1000, 64]],
  ];
  for (const [path, shape] of keeps) assert.equal(decaysByDefault(path, shape), false, path);
  for (const [path, shape] of decays) assert.equal(decaysByDefault(path, shape), true, path);
});

test("numbers that no rule or schedule can have are refused by name", () => {
  const drawing = (rule: Rule) => () => rule.begin({ lr: input([]), step: input([]) });
  const run = { lr: 0.1, steps: 10 };
  const wrong: readonly [() => unknown, RegExp][] = [
    [() => sgd({ momentum: 1.5 }), /^momentum is 1.5; it must be from 0 to below 1$/],
    [() => adamw({ betas: [0.9, 1] }), /^beta2 is 1;/],
    [() => lamb({ betas: [-1, 0.9] }), /^beta1 is -1;/],
    [() => adamw({ eps: Number.NaN }), /^eps is NaN; it must be at least 0$/],
    [drawing(sgd({ weightDecay: -1 })), /^weightDecay is -1; it must be at least 0$/],
    [() => cosine({ ...run, lr: 0 }), /^lr is 0; it must be above 0$/],
    [() => oneCycle({ ...run, lr: -1 }), /^lr is -1;/],
    [() => polynomial({ ...run, steps: 0 }), /^steps is 0;/],
    [() => constantRate({ ...run, warmup: -3 }), /^warmup is -3; it must be at least 0$/],
    [() => cosine({ ...run, warmup: 10 }), /^a warm-up of 10 steps leaves nothing of 10\n/],
    [() => cosine({ ...run, minLr: 1 }), /^minLr is 1; it must be from 0 to lr, which is 0.1$/],
    [() => stepped({ ...run, at: [30, 60] }), /^at is 30; it must be a fraction of the run/],
    [() => polynomial({ ...run, power: -1 }), /^power is -1;/],
    [() => oneCycle({ ...run, rise: 2 }), /^rise is 2;/],
    [() => layerDecay(2, 3, () => 0), /^decay is 2;/],
  ];
  for (const [make, message] of wrong) assert.throws(make, { name: "UsageError", message });
});
