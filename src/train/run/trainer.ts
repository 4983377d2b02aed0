import { OrielError } from "../../base/errors.ts";
import { type Batch, type Loader, noneReadable } from "../../data/index.ts";
import type { Graph } from "../../graph/graph.ts";
import type { Schedule } from "../../optim/schedule.ts";
import { numberOf, type Program, type Runtime } from "../../runtime/runtime.ts";
import { isWeight, loadCheckpoint, type Progress, saveCheckpoint } from "../checkpoint/checkpoint.ts";
import { inferenceGraph } from "../checkpoint/model.ts";
import { inPieces } from "../evaluate/pieces.ts";
import { runEvaluation } from "../evaluate/run-evaluation.ts";
import type { Evaluation } from "../evaluate/tally.ts";
import type { Logits } from "../export/exported.ts";
import { DeviceState } from "../step/device-state.ts";
import { allFinite, firstNonFinite, nonFinite } from "../step/non-finite.ts";
import { packInputs } from "../step/packs.ts";
import { type AnyStep, type CompiledStep, graphsOf, withFrozen } from "../step/split-step.ts";
import { compileStep, StepProgram, seedOf } from "../step/step-program.ts";
import { scheduleOf, stepSeed } from "./defaults.ts";
import type { OnEvent, Outcome } from "./events.ts";
import { hostBatch } from "./loaders.ts";
import type { Prepared } from "./prepare.ts";
import type { RunFolder } from "./run-folder.ts";
import type { Start } from "./start.ts";

interface Parts {
  prepared: Prepared;
  folder: RunFolder;
  runtime: Runtime;
  emit: OnEvent;
  signal?: AbortSignal;
}

/** Runs the steps of a run.  The state stays on the device; a step gives back its metrics alone. */
export class Trainer {
  readonly progress: Progress;
  readonly #parts: Parts;
  readonly #loader: Loader;
  readonly #valLoader: Loader;
  readonly #schedule: Schedule;
  readonly #steps: number;
  readonly #step: StepProgram;
  readonly #infer: Program;
  #best?: Evaluation;

  private constructor(parts: Parts, { progress }: Start, step: StepProgram, infer: Program) {
    const { prepared } = parts;
    const { loaders } = prepared;
    this.#parts = parts;
    this.progress = { ...progress };
    this.#loader = loaders.train;
    this.#valLoader = loaders.val;
    this.#schedule = scheduleOf(prepared.config, loaders.train.steps);
    this.#steps = prepared.config.epochs * loaders.train.steps;
    this.#step = step;
    this.#infer = infer;
  }

  /** `begin` fetches or draws the weights to start with. */
  static async open(parts: Parts, begin: () => Promise<Start>): Promise<Trainer> {
    const { prepared, folder, runtime, emit } = parts;
    const { config, step, loaders } = prepared;
    const steps = config.epochs * loaders.train.steps;
    // The engine's thread compiles while this one begins, but for frozen weights, which are part of the graph.
    const compileTrain = (from: AnyStep): Promise<CompiledStep> =>
      compiling("train", graphsOf(from), () => compileStep(runtime, from), emit);
    const early = step.frozen.length === 0 ? compileTrain(step) : undefined;
    early?.catch(() => {}); // told below
    const start = await begin();
    await folder.writeConfig(config);
    await folder.openMetrics({ step: start.progress.step, steps });
    // Drawn now, since drawing holds up the caller's thread, which is to be free while steps run.
    const judged = packInputs(inferenceGraph(prepared.model, config.imageSize), step.packs);
    const [program, infer] = await Promise.all([
      early ?? compileTrain(withFrozen(step, start.tensors)),
      compiling("evaluate", [judged], () => runtime.compile(judged), emit),
    ]);
    const state = await DeviceState.upload(runtime, start.tensors, { packs: step.packs, transfer: true });
    const trainer = new Trainer(parts, start, new StepProgram(step, program, state), infer);
    const { batch } = config;
    emit({
      type: "begin",
      epochs: config.epochs,
      stepsPerEpoch: loaders.train.steps,
      steps,
      step: start.progress.step,
      batch,
      folder: folder.path,
    });
    return trainer;
  }

  /** From where the run stands to its end, or to where it is interrupted. */
  async run(): Promise<Outcome> {
    const { prepared, signal } = this.#parts;
    while (this.progress.epoch < prepared.config.epochs) {
      if (this.#outOfPatience()) return "stopped";
      const epoch = await this.#trainEpoch();
      const evaluation = epoch && (await this.#savedFirst(this.#evaluate(this.progress.epoch)));
      if (!epoch || !evaluation || signal?.aborted) {
        if (epoch && evaluation) await this.#endEpoch(epoch, evaluation);
        else await this.#save("last");
        return "interrupted";
      }
      await this.#endEpoch(epoch, evaluation);
    }
    return "finished";
  }

  /** The steps of an epoch that are left; undefined where it was interrupted. */
  async #trainEpoch(): Promise<Pace | undefined> {
    const { prepared, signal } = this.#parts;
    const { saveEvery } = prepared.config;
    const { progress } = this;
    const pace: Pace = { began: performance.now(), seconds: 0, steps: 0 };
    if (signal?.aborted) return undefined;
    const batches = this.#loader.batches({ epoch: progress.epoch, startStep: progress.stepInEpoch });
    try {
      let upcoming = batches.next();
      for (;;) {
        const { value: batch, done } = await this.#savedFirst(upcoming);
        if (done || !batch) {
          if (progress.stepInEpoch === 0) throw noneReadable("learn from", "look at what was left out, above");
          pace.seconds = (performance.now() - pace.began) / 1000;
          return pace;
        }
        upcoming = batches.next(); // made while the step runs
        upcoming.catch(() => {}); // told when its turn comes
        await this.#runStep(batch);
        pace.steps++;
        if (signal?.aborted) return undefined;
        if (saveEvery && progress.step % saveEvery === 0 && progress.stepInEpoch < this.#loader.steps)
          await this.#save("last");
      }
    } finally {
      await batches.return();
    }
  }

  /** Pictures that fail do not cost the steps before them: the run is saved as it stands, so that it can be resumed. */
  async #savedFirst<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      if (this.progress.step > 0) await this.#save("last").catch(() => {}); // what failed first is told
      throw error;
    }
  }

  async #runStep(batch: Batch): Promise<void> {
    const { emit } = this.#parts;
    const { progress } = this;
    const began = performance.now();
    const lr = this.#schedule(progress.step);
    const controls = { lr, step: progress.step + 1, seed: this.#seed() };
    const results = await this.#step.compute(hostBatch(batch), controls, { transfer: true });
    const [loss, accuracy] = [numberOf(results.loss), numberOf(results.accuracy)];
    const gradNorm = results.gradNorm && numberOf(results.gradNorm);
    if (!Number.isFinite(loss) || (gradNorm !== undefined && !Number.isFinite(gradNorm)))
      await this.#explain(batch, { loss, lr, results });
    // Only now may the memory of the weights before be used again.
    this.#step.advance(results);
    progress.step++;
    progress.stepInEpoch++;
    progress.lossInEpoch += loss;
    progress.accuracyInEpoch += accuracy;
    const { epoch, stepInEpoch, step } = progress;
    const seconds = (performance.now() - began) / 1000;
    emit({
      type: "step",
      epoch,
      stepInEpoch,
      stepsPerEpoch: this.#loader.steps,
      step,
      steps: this.#steps,
      loss,
      accuracy,
      gradNorm,
      lr,
      seconds,
    });
  }

  /** Keys the drop-path masks of a step. */
  #seed(): number {
    return stepSeed(this.#parts.prepared.config.seed, this.progress.step);
  }

  async #explain(
    { epoch, step }: Batch,
    { loss, lr, results }: { loss: number; lr: number; results: Awaited<ReturnType<Program["run"]>> },
  ): Promise<never> {
    const { prepared, runtime } = this.#parts;
    const weights = await this.#step.state.read((name) => isWeight(name) && !name.startsWith("ema."));
    this.#step.advance(results);
    const after = await this.#step.state.read((name) =>
      prepared.step.state.some((s) => s.name === name && s.kind === "parameter"),
    );
    const again = await this.#loader.batches({ epoch, startStep: step }).next(); // the first one's memory went to the engine
    const where = await firstNonFinite({
      task: prepared.task,
      runtime,
      weights,
      batch: hostBatch(again.value as Batch),
      seed: seedOf(this.#seed()),
      after,
    });
    throw nonFinite({ step: this.progress.step + 1, lr, loss, where, kept: this.#kept() });
  }

  #kept(): string | undefined {
    const { folder } = this.#parts;
    return folder.has("last") ? folder.file("last") : undefined;
  }

  async #evaluate(epoch: number): Promise<Evaluation | undefined> {
    const { emit, signal } = this.#parts;
    return runEvaluation(this.#logits(this.#step.state), this.#valLoader, {
      signal,
      onProgress: (done, total) => emit({ type: "evaluate", epoch, done, total }),
    });
  }

  /** The model with weights that lie on the device, moving averages where there are some. */
  #logits(state: DeviceState): Logits {
    const infer = this.#infer;
    const weights = state.feeds(
      infer.inputs.map(({ name }) => name).filter((name) => name !== "image"),
      (name) => `ema.${name}`,
    );
    const run: Logits = async (data, shape) => {
      const { logits } = await infer.run({ ...weights, image: { dtype: "float32", shape, data } }, { transfer: true });
      return logits.data as Float32Array;
    };
    return (data, shape) => inPieces(this.#parts.runtime, data, shape, run);
  }

  async #endEpoch(pace: Pace, evaluation: Evaluation): Promise<void> {
    const { prepared, emit } = this.#parts;
    const { progress } = this;
    const { total, top1, top5, loss: valLoss } = evaluation;
    emit({
      type: "evaluate",
      epoch: progress.epoch,
      done: total,
      total: this.#valLoader.dataset.length,
      result: { total, correct: evaluation.correct, top1, top5, loss: valLoss },
    });
    const loss = progress.lossInEpoch / progress.stepInEpoch;
    const accuracy = progress.accuracyInEpoch / progress.stepInEpoch;
    Object.assign(progress, { epoch: progress.epoch + 1, stepInEpoch: 0, lossInEpoch: 0, accuracyInEpoch: 0 });
    const { best: before } = progress;
    const best = !before || top1 > before.top1 || (top1 === before.top1 && valLoss < before.loss);
    if (best) {
      progress.best = { top1, loss: valLoss, epoch: progress.epoch };
      this.#best = evaluation;
    }
    await (best ? this.#save("best", "last") : this.#save("last"));
    const seconds = (performance.now() - pace.began) / 1000;
    emit({
      type: "epoch",
      epoch: progress.epoch,
      epochs: prepared.config.epochs,
      step: progress.step,
      loss,
      accuracy,
      top1,
      top5,
      valLoss,
      best,
      imagesPerSecond: (pace.steps * prepared.config.batch) / pace.seconds,
      seconds,
    });
  }

  #outOfPatience(): boolean {
    const { patience } = this.#parts.prepared.config;
    const { best, epoch } = this.progress;
    return patience !== undefined && best !== undefined && epoch - best.epoch >= patience;
  }

  /** `last` holds all it takes to go on, `best` the weights alone. */
  async #save(...files: ("best" | "last")[]): Promise<void> {
    const { prepared, folder, emit } = this.#parts;
    const { config, description, pictures } = prepared;
    const { epoch, step } = this.progress;
    const lr = this.#schedule(step - 1);
    const kept = this.#kept();
    const tensors = await this.#step.state.read(undefined, (name, { data }) => {
      if (!allFinite(data)) throw nonFinite({ step, lr, where: `the parameter ${name}`, kept });
    });
    const metadata = { ...description, config, pictures, progress: this.progress };
    for (const what of files) {
      const saved = what === "last" ? tensors : new Map([...tensors].filter(([name]) => isWeight(name)));
      await saveCheckpoint(folder.file(what), saved, metadata);
      emit({ type: "save", what, file: folder.file(what), epoch, step });
    }
  }

  /** What the best weights get right, where this attempt has found them. */
  get best(): Evaluation | undefined {
    return this.#best;
  }

  /** The same; judged again where an earlier attempt had found them. */
  async bestEvaluation(): Promise<Evaluation> {
    if (this.#best) return this.#best;
    const { folder, runtime, prepared } = this.#parts;
    const { tensors } = await loadCheckpoint(folder.file("best"));
    const state = await DeviceState.upload(runtime, tensors, { packs: prepared.step.packs });
    const found = await runEvaluation(this.#logits(state), this.#valLoader);
    state.dispose();
    if (!found) throw new OrielError("train", "the evaluation was interrupted");
    return found;
  }
}

/** How fast an epoch's steps went, those of this process. */
interface Pace {
  began: number;
  seconds: number;
  steps: number;
}

/** Tells how long a program took to compile. */
async function compiling<T>(
  program: "train" | "evaluate",
  graphs: readonly Graph[],
  work: () => Promise<T>,
  emit: OnEvent,
): Promise<T> {
  const began = performance.now();
  const compiled = await work();
  const nodes = graphs.reduce((sum, graph) => sum + graph.nodes.length, 0);
  emit({ type: "compile", program, nodes, seconds: (performance.now() - began) / 1000 });
  return compiled;
}
