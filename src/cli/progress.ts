import { onOneLine, some } from "../base/text.ts";
import type { TrainEvent } from "../train/run/events.ts";
import { bytes, count, duration, percent, styled } from "./out.ts";
import { describeWeights, weightsWarning } from "./weights-table.ts";

/** Where progress goes, as far as it is used. */
interface Screen {
  isTTY?: boolean;
  columns?: number;
  write(text: string): unknown;
}

/** How often a line is drawn anew on a terminal, and written elsewhere, in seconds. */
const redrawSeconds = 0.1;
const repeatSeconds = 15;

/**
 * Draws the event stream of long work: on a terminal one line that changes in place, elsewhere plain lines that a log can keep.
 *
 *     epoch 3/15  ━━━━━━━━━━━━━╺───────  120/703  loss 1.234  accuracy 56.1 %  812 images/s  2 min 10 s left
 */
export class Progress {
  readonly #screen: Screen;
  readonly #now: () => number;
  #drawn = false;
  #last = Number.NEGATIVE_INFINITY;
  #run = { epochs: 1, batch: 1, firstStep: 0, started: 0 };
  /** Smoothed over steps, so that a figure can be read. */
  #shown = { loss: Number.NaN, accuracy: Number.NaN };
  #lastStep = { at: 0, step: 0, rate: Number.NaN };

  constructor(screen: Screen = process.stderr, now: () => number = () => performance.now() / 1000) {
    this.#screen = screen;
    this.#now = now;
  }

  /** Listens to one event; a function of its own, so that it can be handed over. */
  readonly on = (event: TrainEvent): void => {
    switch (event.type) {
      case "download": {
        const { from, file, done, total } = event;
        const of =
          total === undefined ? bytes(done) : `${bar(done / Math.max(1, total))}  ${bytes(done)} of ${bytes(total)}`;
        this.#change(`downloading ${from} ${file}  ${of}`, done === total);
        break;
      }
      case "load": {
        this.line(describeLoad(event));
        const warning = event.what === "weights" ? weightsWarning(event) : undefined;
        if (warning) this.line(this.#styled("yellow", `warning: ${warning}`));
        break;
      }
      case "resume": {
        const { folder, anew, changes } = event;
        if (anew) this.line(`the run in ${folder} has no checkpoint yet: it begins anew`);
        const show = (value: unknown): string => JSON.stringify(value) ?? "not given";
        const told = changes.map(({ key, was, is }) => `${key} was ${show(was)}, is ${show(is)}`);
        if (told.length > 0) this.line(`goes on with changes: ${told.join("; ")}`);
        break;
      }
      case "compile":
        this.line(
          `compiled the ${event.program === "train" ? "training step" : "model"}: ${event.nodes} nodes, ${duration(event.seconds)}`,
        );
        break;
      case "begin":
        this.#begin(event);
        break;
      case "step":
        this.#step(event);
        break;
      case "evaluate":
        this.#change(
          `evaluating  ${bar(event.done / Math.max(1, event.total))}  ${event.done}/${event.total} images`,
          event.done === event.total,
        );
        break;
      case "epoch": {
        const { epoch, epochs, loss, accuracy, top1, best, seconds, imagesPerSecond } = event;
        const better = best ? `  ${this.#styled("green", "best so far")}` : "";
        this.line(
          `epoch ${epoch}/${epochs}  loss ${figure(loss)}  accuracy ${percent(accuracy)}  validation ${percent(top1)}` +
            `  ${imagesPerSecond.toFixed(0)} images/s  ${duration(seconds)}${better}`,
        );
        break;
      }
      case "warning":
        this.line(this.#styled("yellow", `warning: ${event.message}`));
        break;
      case "skip":
        this.line(this.#styled("yellow", `left out ${onOneLine(event.picture)}: ${event.reason}`));
        break;
    }
  };

  /** A line that stays. */
  line(text: string): void {
    this.clear();
    this.#screen.write(`${text}\n`);
  }

  /** Takes the changing line away. */
  clear(): void {
    if (this.#drawn) this.#screen.write("\r\u001b[K");
    this.#drawn = false;
    this.#last = Number.NEGATIVE_INFINITY;
  }

  #begin({ epochs, batch, step, steps, stepsPerEpoch }: TrainEvent & { type: "begin" }): void {
    const now = this.#now();
    this.#run = { epochs, batch, firstStep: step, started: now };
    this.#lastStep = { at: now, step, rate: Number.NaN };
    this.line(
      step >= steps && step > 0
        ? `nothing is left to train: of ${some(epochs, "epoch")}, ${some(steps, "step")}, ${step} are done`
        : `training for ${some(epochs, "epoch")} of ${some(stepsPerEpoch, "step")}, ${some(batch, "image")} each${step > 0 ? `, from step ${step} of ${steps}` : ""}`,
    );
  }

  #step({ epoch, stepInEpoch, stepsPerEpoch, step, steps, loss, accuracy }: TrainEvent & { type: "step" }): void {
    const now = this.#now();
    const { epochs, batch, firstStep, started } = this.#run;
    this.#shown = { loss: smooth(this.#shown.loss, loss), accuracy: smooth(this.#shown.accuracy, accuracy) };
    const rate = (step - this.#lastStep.step) / Math.max(1e-6, now - this.#lastStep.at);
    this.#lastStep = { at: now, step, rate: smooth(this.#lastStep.rate, rate) };
    // Evaluations so far are in the mean, so those to come are in the estimate.
    const left = ((now - started) / Math.max(1, step - firstStep)) * (steps - step);
    this.#change(
      [
        `epoch ${epoch + 1}/${epochs}`,
        bar(stepInEpoch / stepsPerEpoch),
        `${stepInEpoch}/${stepsPerEpoch}`,
        `loss ${figure(this.#shown.loss)}`,
        `accuracy ${percent(this.#shown.accuracy)}`,
        `${(this.#lastStep.rate * batch).toFixed(0)} images/s`,
        `${duration(left)} left`,
      ].join("  "),
      false,
    );
  }

  /** A line that the next one replaces; where nothing can be replaced, a line now and then. */
  #change(text: string, last: boolean): void {
    const now = this.#now();
    if (!this.#screen.isTTY) {
      if (this.#last === Number.NEGATIVE_INFINITY) this.#last = now;
      if (now - this.#last < repeatSeconds || last) return;
      this.#last = now;
      this.#screen.write(`${text.replace(/ {2}[━╺─]+/, "")}\n`);
      return;
    }
    if (now - this.#last < redrawSeconds && !last) return;
    this.#last = now;
    this.#drawn = true;
    this.#screen.write(`\r${text.slice(0, (this.#screen.columns ?? 120) - 1)}\u001b[K`);
  }

  #styled(style: "green" | "yellow", text: string): string {
    return this.#screen.isTTY ? styled(style, text, process.stderr) : text;
  }
}

function describeLoad(event: TrainEvent & { type: "load" }): string {
  switch (event.what) {
    case "data":
      return `${event.train} pictures to learn from, ${event.val} to validate with, ${event.classes} classes`;
    case "model": {
      const { model, parameters, trained, imageSize } = event;
      const frozen = trained < parameters ? `, ${count(trained)} of them trained` : "";
      return `${model}: ${count(parameters)} parameters${frozen}, pictures of ${imageSize}×${imageSize}`;
    }
    case "weights":
      return describeWeights(event);
    case "checkpoint":
      return `going on after epoch ${event.epoch}, step ${event.step} (${event.from})`;
  }
}

const smooth = (before: number, now: number): number => (Number.isNaN(before) ? now : 0.9 * before + 0.1 * now);

/** Losses span magnitudes; four digits of each can be compared. */
const figure = (x: number): string => (x >= 100 || (x !== 0 && Math.abs(x) < 1e-3) ? x.toPrecision(3) : x.toFixed(3));

function bar(share: number, width = 24): string {
  const full = Math.min(width, Math.floor(share * width));
  return "━".repeat(full) + (full < width ? `╺${"─".repeat(width - full - 1)}` : "");
}
