import { nearest, UsageError } from "../base/errors.ts";
import { Random } from "../base/philox.ts";

/** Labelled pictures in a fixed order.  Reading gives the file's bytes as they are; decoding is the loader's work. */
export interface Dataset {
  /** Class names; a label is an index into them. */
  readonly classes: readonly string[];
  readonly length: number;
  /** The class of picture `i`. */
  label(i: number): number;
  /** What to call picture `i` in a message: a path that its owner can open. */
  name(i: number): string;
  /** The file's bytes. */
  read(i: number): Promise<Uint8Array>;
  /** Lets go of open files. */
  close?(): Promise<void>;
}

/** The class of picture `i`, which is one of those that there are. */
export function labelOf(dataset: Dataset, i: number): number {
  const label = dataset.label(i);
  const { length } = dataset.classes;
  if (Number.isInteger(label) && label >= 0 && label < length) return label;
  throw new UsageError({
    message: `the label of ${dataset.name(i)} is ${label}, of ${length} classes`,
    help: `give each picture a whole number from 0 to ${length - 1}, its place in classes`,
  });
}

/** How many pictures each class has.  -> [classes] */
export function classCounts(dataset: Dataset): Uint32Array {
  const counts = new Uint32Array(dataset.classes.length);
  for (let i = 0; i < dataset.length; i++) counts[labelOf(dataset, i)]++;
  return counts;
}

/** Weights for the loss that make every class count the same: n / (classes · n_c), so a balanced set gets ones.  -> [classes] */
export function classWeights(dataset: Dataset): Float32Array {
  const counts = classCounts(dataset);
  return Float32Array.from(counts, (count) => (count === 0 ? 0 : dataset.length / (counts.length * count)));
}

/** The pictures at `indices`, in that order, with the same classes. */
export function subset(dataset: Dataset, indices: ArrayLike<number>): Dataset {
  return {
    classes: dataset.classes,
    length: indices.length,
    label: (i) => dataset.label(indices[i]),
    name: (i) => dataset.name(indices[i]),
    read: (i) => dataset.read(indices[i]),
    close: async () => dataset.close?.(),
  };
}

/** A training set and what it is judged on. */
export interface Splits {
  train: Dataset;
  val: Dataset;
  test?: Dataset;
}

/**
 * Sets a fraction of every class aside for validation, chosen by `seed` and the class's name alone: adding a class moves no
 * picture of another.  A class of two or more keeps at least one on each side; a single picture stays in training.
 */
export function splitDataset(dataset: Dataset, { fraction = 0.1, seed = 0 } = {}): Splits {
  if (!(fraction > 0 && fraction < 1)) {
    throw new UsageError({
      message: `the fraction kept for validation is ${fraction}`,
      help: "give a number between 0 and 1, such as 0.1",
    });
  }
  const members = dataset.classes.map((): number[] => []);
  for (let i = 0; i < dataset.length; i++) members[labelOf(dataset, i)].push(i);
  const train: number[] = [];
  const val: number[] = [];
  members.forEach((own, label) => {
    const order = new Random(seed, "split", dataset.classes[label]).permutation(own.length);
    const held = Math.min(Math.max(Math.round(own.length * fraction), 1), own.length - 1);
    order.forEach((at, rank) => {
      (rank < held ? val : train).push(own[at]);
    });
  });
  const ascending = (a: number, b: number) => a - b;
  return { train: subset(dataset, train.sort(ascending)), val: subset(dataset, val.sort(ascending)) };
}

/**
 * `other` with its labels renumbered to the classes of `train` (a dataset, or what a checkpoint was trained on), matched by
 * name, however its accents are composed (systems differ in that).  `other` may lack some of them; one that training never saw is an
 * error, since no answer to it could be right.
 */
export function alignClasses(train: { readonly classes: readonly string[] }, other: Dataset): Dataset {
  const position = new Map(train.classes.map((name, i) => [name.normalize(), i]));
  const unknown = other.classes.filter((name) => !position.has(name.normalize()));
  if (unknown.length > 0) {
    const shown = unknown.slice(0, 10).map((name) => `${name} (nearest: ${nearest(name, train.classes).join(", ")})`);
    if (unknown.length > shown.length) shown.push(`and ${unknown.length - shown.length} more`);
    throw new UsageError({
      message: `${unknown.length} of the ${other.classes.length} classes are not among the ${train.classes.length} trained on`,
      details: shown,
      help: "rename these classes, remove them, or add them to the training set",
    });
  }
  const labels = other.classes.map((name) => position.get(name.normalize()) as number);
  return {
    classes: train.classes,
    length: other.length,
    label: (i) => labels[labelOf(other, i)],
    name: (i) => other.name(i),
    read: (i) => other.read(i),
    close: async () => other.close?.(),
  };
}
