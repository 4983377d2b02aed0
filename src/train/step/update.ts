import { OrielError } from "../../base/errors.ts";
import { checkNumbers } from "../../base/options.ts";
import { input, type Tensor, withScope } from "../../graph/tensor.ts";
import type { Weight } from "../../nn/module.ts";
import {
  average,
  averageRate,
  chain,
  type GradientTransform,
  type Optimizer,
  type Rule,
} from "../../optim/optimizer.ts";
import { type Held, holding, type Pack, packable } from "./packs.ts";
import { emaName, nextName, type StateEntry, type StepState, slotName } from "./state.ts";
import type { StepOptions } from "./step.ts";

export interface Changed {
  weights: readonly Weight[];
  /** Of parameters, by path. */
  grads: ReadonlyMap<string, Tensor>;
  /** The next values of buffers. */
  updates: ReadonlyMap<Tensor, Tensor>;
}

/** The parameters that are not held back. */
export function trainedOf(weights: readonly Weight[], { frozen = () => false }: Pick<StepOptions, "frozen">): Weight[] {
  const parameters = weights.filter((w) => w.kind === "parameter");
  if (parameters.length === 0)
    throw new OrielError("train", {
      message: "the task has no parameters",
      help: "a module finds its layers in public fields and lists, not in #private fields or plain objects",
    });
  const trained = parameters.filter((w) => !frozen(w.path));
  if (trained.length === 0)
    throw new OrielError("train", { message: "every parameter is frozen", help: "freeze fewer of them" });
  return trained;
}

/** Parameters that no gradient reaches, or that are held back. */
export const frozenOf = ({ weights, grads }: Changed): Weight[] =>
  weights.filter(({ kind, path }) => kind === "parameter" && !grads.has(path));

export type Named = [name: string, tensor: Tensor];

interface Update extends Pick<StepState, "state" | "packs"> {
  /** The state, as the graph takes it and gives it. */
  inputs: Named[];
  outputs: Named[];
  /** The learning rate and the step's number. */
  controls: Named[];
  /** What transforms tell of the gradients. */
  metrics: Named[];
  /** What stands in for packed weights. */
  pieces: Map<Tensor, Tensor>;
}

/** From gradients to the next state. */
export function drawUpdate(
  { weights, grads: found, updates }: Changed,
  given: Optimizer | Rule,
  { ema, pack = false }: Pick<StepOptions, "ema" | "pack">,
): Update {
  const { transforms, rule } = "rule" in given ? given : chain(given);
  if (ema !== undefined) checkNumbers({ ema }, (decay) => decay > 0 && decay < 1, "above 0 and below 1");
  const [lr, step] = [input([]), input([])];
  const reached = weights.filter(({ path }) => found.has(path));
  const buffers = weights.filter(({ kind }) => kind === "buffer");
  const changing = buffers.filter(({ tensor }) => updates.has(tensor));
  const parameters = holding(reached, pack ? packable({ transforms, rule }) : undefined);
  const statistics = holding(changing, pack ? () => "statistics" : undefined);
  const still = holding(buffers.filter(({ tensor }) => !updates.has(tensor)));

  const first = new Map(parameters.map((held) => [held.name, held.join((w) => found.get(w.path) as Tensor)]));
  const { grads, metrics } = transformed(first, transforms);
  const carried = new Carried(ema === undefined ? undefined : averageRate(ema, step));
  const update = withScope("update", () => rule.begin({ lr, step }));
  for (const held of parameters) {
    const [{ path, tensor }] = held.weights;
    const slots = Object.fromEntries(rule.slots.map((slot) => [slot, input(held.tensor.shape)]));
    const grad = grads.get(held.name) as Tensor;
    const own = { path, shape: tensor.shape as number[], param: held.tensor, grad, slots };
    const updated = withScope(`update:${held.name}`, () => update(own));
    carried.keep(held, "parameter", held.tensor, updated.param);
    for (const slot of rule.slots)
      carried.keep(held, "slot", slots[slot], updated.slots[slot], (name) => slotName(slot, name));
    carried.keepAverage(held, updated.param);
  }
  for (const held of statistics) {
    const next = held.join(({ tensor }) => updates.get(tensor) as Tensor);
    carried.keep(held, "buffer", held.tensor, next);
    carried.keepAverage(held, next);
  }
  for (const held of still) carried.keep(held, "buffer", held.tensor, held.tensor);

  const order = new Map(weights.map(({ path }, i) => [path, i]));
  return {
    state: carried.state.sort((a, b) => order.get(a.path)! - order.get(b.path)!),
    packs: carried.packs,
    inputs: carried.inputs,
    outputs: carried.outputs,
    controls: [
      ["lr", lr],
      ["step", step],
    ],
    metrics,
    pieces: new Map([...parameters, ...statistics].flatMap((held) => held.pieces())),
  };
}

/** What transforms make of gradients, one after the other, and tell of them. */
function transformed(
  found: Map<string, Tensor>,
  transforms: readonly GradientTransform[],
): { grads: Map<string, Tensor>; metrics: Named[] } {
  let grads = found;
  const metrics: Named[] = [];
  for (const transform of transforms) {
    const made = withScope("clip", () => transform(grads));
    grads = made.grads;
    metrics.push(...Object.entries(made.metrics ?? {}));
  }
  return { grads, metrics };
}

/** What one step leaves for the next, each as an input and an output. */
class Carried {
  readonly state: StateEntry[] = [];
  readonly packs: Pack[] = [];
  readonly inputs: Named[] = [];
  readonly outputs: Named[] = [];
  /** Of the moving average, if there is one. */
  readonly #rate?: Tensor;

  constructor(rate?: Tensor) {
    this.#rate = rate;
  }

  keep(held: Held, kind: StateEntry["kind"], now: Tensor, next: Tensor, nameOf = (path: string): string => path): void {
    const name = nameOf(held.name);
    this.inputs.push([name, now]);
    this.outputs.push([nextName(name), next]);
    const entries = held.weights.map(({ path, tensor }) => {
      return { name: nameOf(path), kind, path, shape: tensor.shape as readonly number[] };
    });
    this.state.push(...entries);
    if (held.isPack) this.packs.push({ name, kind, entries });
  }

  keepAverage(held: Held, next: Tensor): void {
    if (!this.#rate) return;
    const before = input(next.shape);
    this.keep(held, "ema", before, average(before, next, this.#rate), emaName);
  }
}
