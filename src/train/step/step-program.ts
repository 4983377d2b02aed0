import { closingOnError } from "../../base/close.ts";
import { UsageError } from "../../base/errors.ts";
import { checkNumbers } from "../../base/options.ts";
import type { CompileOptions, Feeds, HostTensor, OpTime, Runtime, Value } from "../../runtime/runtime.ts";
import { DeviceState } from "./device-state.ts";
import { type AnyStep, type CompiledStep, compileSplit, isSplit, withFrozen } from "./split-step.ts";
import { heldNames, nextName, type StepState, spentNames, type Tensors } from "./state.ts";

/** What a step is told beside its batch. */
export interface StepControls {
  /** The learning rate. */
  lr: number;
  /** Its number, from 1; by default it follows the one before. */
  step?: number;
  /** Keys the step's random masks; by default the step's number. */
  seed?: number;
}

/**
 * A training step on a device: its program, and its state, which stays there.
 *
 *     const program = await StepProgram.open(runtime, step, initialState(step, initialWeights(task, 0)));
 *     const { loss } = await program.run({ image, target }, { lr: 1e-3 });
 */
export class StepProgram {
  /** Weights by their paths, and what the optimizer keeps; after a step those that follow. */
  readonly state: DeviceState;
  readonly #program: CompiledStep;
  readonly #metrics: readonly string[];
  readonly #names: readonly string[];
  readonly #next: readonly string[];
  readonly #spent: readonly string[];
  #taken = 0;
  /** Whether there are results that were not taken yet. */
  #phase: "idle" | "under way" | "computed" = "idle";

  constructor(step: StepState, program: CompiledStep, state: DeviceState) {
    this.state = state;
    this.#program = program;
    this.#metrics = step.metrics;
    this.#names = heldNames(step);
    this.#next = this.#names.map(nextName);
    this.#spent = spentNames(step);
  }

  /** Compiles a step and uploads its state: `initialState`, or the tensors of a checkpoint.  Frozen parameters need values there too. */
  static async open(
    runtime: Runtime,
    step: AnyStep,
    state: Tensors,
    options: CompileOptions = {},
  ): Promise<StepProgram> {
    const program = await compileStep(runtime, withFrozen(step, state), options);
    const close = (): Promise<void> => program.release();
    const uploaded = await closingOnError([{ close }], () => DeviceState.upload(runtime, state, { packs: step.packs }));
    return new StepProgram(step, program, uploaded);
  }

  /** Takes a step; -> the loss and the task's other metrics.  With `transfer` the batch is handed over, and is empty afterwards. */
  async run(batch: Feeds, controls: StepControls, options: { transfer?: boolean } = {}): Promise<Metrics> {
    const results = await this.compute(batch, controls, options);
    this.advance(results);
    return Object.fromEntries(this.#metrics.map((name) => [name, results[name] as HostTensor]));
  }

  /**
   * A step's results, while the weights are still those before it, for whoever may have to look at them; `advance` takes the step.  What
   * the optimizer keeps is written over: where a step is not taken, another program begins with the state that was read before.
   */
  async compute(
    batch: Feeds,
    { lr, step = this.#taken + 1, seed = step }: StepControls,
    { transfer = false } = {},
  ): Promise<Record<string, Value>> {
    if (this.#phase === "under way") throw new UsageError({ message: "a step is under way", help: "await it first" });
    if (this.#phase === "computed")
      throw new UsageError({
        message: "the step before was computed, but not taken",
        help: "call `advance` with its results first; what the optimizer keeps is that of the next step already",
      });
    checkNumbers({ lr, step, seed }, Number.isFinite, "a finite number");
    const controls = { lr: float(lr), step: float(step), seed: seedOf(seed) };
    // No spread: of so many names each makes a hidden class, which lies about until all garbage is collected.
    const feeds: Feeds = Object.assign(this.state.feeds(this.#names), batch, controls);
    const donate = this.state.tensors(this.#spent);
    this.#phase = "under way";
    try {
      const results = await this.#program.run(feeds, { keep: this.#next, donate, transfer });
      this.#taken = step;
      this.#phase = "computed";
      return results;
    } finally {
      if (this.#phase === "under way") this.#phase = "idle";
    }
  }

  /** Puts the state that a step made in the place of that before it. */
  advance(results: Readonly<Record<string, Value>>): void {
    this.state.advance(results);
    this.#phase = "idle";
  }

  /** Where the time went, where it was opened with `profile`. */
  profile(): Promise<OpTime[]> {
    return this.#program.profile();
  }

  /** Gives the memory of both back. */
  async release(): Promise<void> {
    this.state.dispose();
    await this.#program.release();
  }
}

/** A step's program: of a step that is split, on a runtime of as many streams as it has parts. */
export function compileStep(runtime: Runtime, step: AnyStep, options?: CompileOptions): Promise<CompiledStep> {
  // Below what is frozen no gradients go, so there is a forward pass that the engine may join.
  const known = { training: step.frozen.length === 0, ...options };
  return isSplit(step) ? compileSplit(runtime, step, known) : runtime.compile(step.graph, known);
}

/** Loss and metrics by name. */
export type Metrics = Record<string, HostTensor>;

const float = (value: number): HostTensor => ({ dtype: "float32", shape: [], data: Float32Array.of(value) });

/** A step's seed as its graph reads it. */
export const seedOf = (seed: number): HostTensor => ({ dtype: "uint32", shape: [], data: Uint32Array.of(seed) });
