/** A picture that was taken for something else. */
export interface Mistake {
  /** The picture's name in its dataset. */
  image: string;
  label: string;
  predicted: string;
  /** What the model gave the wrong class, 0…1. */
  probability: number;
  loss: number;
}

/** How a model does on one class: recall is `correct / total`, precision `correct / predicted`. */
export interface ClassFigures {
  name: string;
  /** Pictures of it. */
  total: number;
  /** Those of them that were taken for it. */
  correct: number;
  /** All that were taken for it. */
  predicted: number;
}

/** What is known of a model after it has seen a labelled set. */
export interface Evaluation {
  total: number;
  correct: number;
  /** Shares of all pictures, 0…1. */
  top1: number;
  top5: number;
  /** Mean cross-entropy. */
  loss: number;
  /** Pictures that could not be read. */
  skipped: number;
  classes: ClassFigures[];
  /** Row: what it is; column: what it was taken for.  [classes][classes]; not told of more than 2,000 classes, for its size. */
  confusion?: number[][];
  /** The wrong answers with the largest loss, the worst first. */
  mistakes: Mistake[];
}

/** Classes up to which each is counted against each: 2,000 take 32 MB, ImageNet-21k's would take 4 GB. */
const mostConfused = 2000;

/** Counts answers as they come. */
export class Tally {
  readonly #classes: readonly string[];
  readonly #worst: number;
  readonly #figures: ClassFigures[];
  readonly #confusion?: number[][];
  readonly #mistakes: Mistake[] = [];
  #total = 0;
  #correct = 0;
  #inTop5 = 0;
  #loss = 0;

  constructor(classes: readonly string[], { worst = 24 }: { worst?: number } = {}) {
    this.#classes = classes;
    this.#worst = worst;
    this.#figures = classes.map((name) => ({ name, total: 0, correct: 0, predicted: 0 }));
    if (classes.length <= mostConfused) this.#confusion = classes.map(() => classes.map(() => 0));
  }

  /** Answers to a batch.  logits [N, classes], labels [N]; `name` is asked for the i-th picture of the batch only where it is told of. */
  add(logits: Float32Array, labels: Int32Array, name: (i: number) => string): void {
    const width = this.#classes.length;
    for (let i = 0; i < labels.length; i++)
      this.#addOne(logits.subarray(i * width, (i + 1) * width), labels[i], i, name);
  }

  #addOne(logits: Float32Array, label: number, i: number, name: (i: number) => string): void {
    const best = argmax(logits);
    let before = 0;
    for (let k = 0; k < logits.length; k++)
      if (logits[k] > logits[label] || (logits[k] === logits[label] && k < label)) before++;
    const rest = logSumExp(logits);
    const loss = rest - logits[label];
    this.#total++;
    this.#loss += loss;
    if (before < 5) this.#inTop5++;
    this.#figures[label].total++;
    this.#figures[best].predicted++;
    if (this.#confusion) this.#confusion[label][best]++;
    if (best === label) {
      this.#figures[label].correct++;
      this.#correct++;
    } else if (
      this.#mistakes.length < this.#worst ||
      loss > (this.#mistakes.at(-1)?.loss ?? Number.POSITIVE_INFINITY)
    ) {
      this.#note({
        image: name(i),
        label: this.#classes[label],
        predicted: this.#classes[best],
        probability: Math.exp(logits[best] - rest),
        loss,
      });
    }
  }

  #note(mistake: Mistake): void {
    const list = this.#mistakes;
    const at = list.findIndex((m) => m.loss < mistake.loss);
    list.splice(at < 0 ? list.length : at, 0, mistake);
    if (list.length > this.#worst) list.pop();
  }

  /** Pictures counted so far. */
  get total(): number {
    return this.#total;
  }

  result(skipped = 0): Evaluation {
    const share = (count: number): number => (this.#total === 0 ? 0 : count / this.#total);
    return {
      total: this.#total,
      correct: this.#correct,
      top1: share(this.#correct),
      top5: share(this.#inTop5),
      loss: share(this.#loss),
      skipped,
      classes: this.#figures.map((figures) => ({ ...figures })),
      confusion: this.#confusion,
      mistakes: [...this.#mistakes],
    };
  }
}

export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

/** ln Σ eˣ */
export function logSumExp(values: Float32Array): number {
  const top = values[argmax(values)];
  let sum = 0;
  for (const v of values) sum += Math.exp(v - top);
  return top + Math.log(sum);
}

/** e^x / Σ e^x, in float64. */
export function softmaxOf(logits: Float32Array): number[] {
  const rest = logSumExp(logits);
  return Array.from(logits, (x) => Math.exp(x - rest));
}
