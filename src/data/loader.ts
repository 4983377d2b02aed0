import { availableParallelism } from "node:os";
import { OrielError, UsageError } from "../base/errors.ts";
import { checkNumbers, withoutUndefined } from "../base/options.ts";
import { isCount } from "../graph/shape.ts";
import type { Fetched, Host, Job, Made } from "./batch-maker.ts";
import { BrokenPictures } from "./broken.ts";
import { type Dataset, labelOf } from "./dataset.ts";
import type { Image } from "./image.ts";
import { type Lane, localLane, workerLane } from "./lane.ts";
import { checkMix, type MixOptions } from "./mix.ts";
import { type EpochOrder, epochOrder } from "./sampler.ts";
import { prepare, type Transform } from "./transform.ts";

/** What the model sees at one step.  N is `batchSize`, and in evaluation fewer in the last batch and where pictures are broken. */
export interface Batch {
  /** Normalised pictures.  [N, 3, H, W] */
  image: Float32Array<ArrayBuffer>;
  /** Class indices, before any mixing.  [N] */
  label: Int32Array<ArrayBuffer>;
  /** Soft targets, present when the loader mixes.  [N, classes] */
  target?: Float32Array<ArrayBuffer>;
  /** Which pictures of the dataset these are.  [N] */
  index: Uint32Array<ArrayBuffer>;
  /** The shape of `image`. */
  shape: readonly [number, number, number, number];
  epoch: number;
  /** Place within the epoch, from 0. */
  step: number;
}

export interface LoaderOptions {
  batchSize: number;
  /** What happens to a picture; its `kind` also says whether broken pictures are replaced (`train`) or left out (`evaluate`). */
  transform: Transform;
  /** Mixup, CutMix and label smoothing; training only. */
  mix?: MixOptions;
  /** Keys every random choice. */
  seed?: number;
  /** A new order each epoch, keyed by (seed, epoch).  Default: when training. */
  shuffle?: boolean;
  /** Leaves out a last batch that is not full.  Default: when training. */
  dropLast?: boolean;
  /** Shows each picture this many times in a row, each time transformed anew; an epoch then holds 1/repeats of the pictures. */
  repeats?: number;
  /** Draws every class equally often. */
  balanced?: boolean;
  /** Worker threads; 0 works on the calling thread.  Default: half the cores, two to eight where there are as many. */
  workers?: number;
  /** Batches under way at once.  Default: two for each worker. */
  prefetch?: number;
  /** Decoded pictures are kept in memory up to this many bytes.  Default: 512 MiB; 0 keeps none. */
  cacheBytes?: number;
  /** Counts the broken pictures; give one to several loaders to count them together. */
  broken?: BrokenPictures;
}

/**
 * Two even on two cores that a training step keeps busy: its threads wait for one another wherever the loader takes a core from one
 * of them, and two workers take both at once (docs/notes/0004-speed.md).
 */
function defaultWorkers(): number {
  const cores = availableParallelism();
  return Math.min(cores, Math.max(cores >> 1, 2), 8);
}

/**
 * Serves a dataset in batches, made by worker threads ahead of the step that takes them.  Every batch is a function of the dataset,
 * the options and (seed, epoch, step) alone: the number of workers changes nothing, and an epoch may be entered at any step.
 *
 *     await using loader = new Loader(train, { batchSize: 64, transform: { kind: "train", size: 224 } });
 *     for await (const batch of loader.batches({ epoch: 0 })) …
 */
export class Loader implements AsyncDisposable {
  readonly dataset: Dataset;
  /** Batches in an epoch. */
  readonly steps: number;
  readonly broken: BrokenPictures;
  readonly #options: Required<Omit<LoaderOptions, "mix" | "broken">> & Pick<LoaderOptions, "mix">;
  readonly #labels: Int32Array;
  readonly #decoded = new Map<number, Image>();
  readonly #unreadable = new Set<number>();
  #decodedBytes = 0;
  #lanes: Lane[] = [];
  #closed = false;
  #failure: unknown;

  constructor(dataset: Dataset, options: LoaderOptions) {
    const training = options.transform.kind === "train";
    const workers = options.workers ?? defaultWorkers();
    this.#options = {
      seed: 0,
      shuffle: training,
      dropLast: training,
      repeats: 1,
      balanced: false,
      prefetch: 2 * Math.max(workers, 1),
      cacheBytes: 2 ** 29,
      ...withoutUndefined(options),
      workers,
    };
    this.dataset = dataset;
    this.#check();
    const { batchSize, dropLast } = this.#options;
    this.steps = dropLast ? Math.floor(dataset.length / batchSize) : Math.ceil(dataset.length / batchSize);
    this.#labels = Int32Array.from({ length: dataset.length }, (_, i) => labelOf(dataset, i));
    this.broken = options.broken ?? new BrokenPictures();
    this.broken.expect(dataset.length);
  }

  #check(): void {
    const { batchSize, repeats, workers, prefetch, cacheBytes, transform, mix, dropLast } = this.#options;
    checkNumbers({ batchSize, repeats, prefetch }, isCount, "a whole number of at least 1");
    checkNumbers({ workers }, (n) => Number.isInteger(n) && n >= 0, "a whole number, or 0 for none");
    checkNumbers({ cacheBytes }, (n) => n >= 0, "a number of bytes, or 0 for none");
    if (dropLast && this.dataset.length < batchSize) {
      throw new UsageError({
        message: `a batch of ${batchSize} cannot be filled from ${this.dataset.length} pictures`,
        help: `take a batch size of at most ${this.dataset.length}`,
      });
    }
    prepare(transform); // throws here rather than in a worker
    if (mix) checkMix(mix);
    if (mix && transform.kind !== "train")
      throw new UsageError("mix is for training; evaluation needs pictures as they are");
  }

  /** The batches of one epoch from `startStep` on, in order.  Leaving the loop early is fine. */
  async *batches({
    epoch = 0,
    startStep = 0,
  }: {
    epoch?: number;
    startStep?: number;
  } = {}): AsyncGenerator<Batch, void> {
    if (!(startStep >= 0 && startStep <= this.steps)) {
      throw new UsageError(`startStep is ${startStep}; an epoch has steps 0 to ${this.steps - 1}`);
    }
    const { seed, shuffle, repeats, balanced, prefetch } = this.#options;
    const order = epochOrder(this.#labels, { seed, epoch, shuffle, repeats, balanced });
    const underWay: Promise<Batch>[] = [];
    let next = startStep;
    const fill = (): void => {
      while (next < this.steps && underWay.length < prefetch) {
        const batch = this.#make(order, epoch, next++);
        batch.catch(() => {}); // told when its turn comes
        underWay.push(batch);
      }
    };
    fill();
    while (underWay.length > 0) {
      const batch = await (underWay.shift() as Promise<Batch>).catch((error) => {
        throw this.#failure ?? error;
      });
      if (this.#failure !== undefined) throw this.#failure;
      fill();
      if (batch.label.length > 0) yield batch;
    }
  }

  async #make({ index, copy }: EpochOrder, epoch: number, step: number): Promise<Batch> {
    const { batchSize, cacheBytes } = this.#options;
    const from = step * batchSize;
    const own = index.slice(from, from + batchSize);
    const decoded = new Map<number, Image>();
    for (const i of own) {
      const image = this.#decoded.get(i);
      if (image) decoded.set(i, image);
    }
    const keep = this.#decodedBytes < cacheBytes;
    const job: Job = { epoch, step, index: own, copy: copy.slice(from, from + batchSize), decoded, keep };
    const made: Made = await this.#lane().make(job);
    return { ...made, epoch, step };
  }

  /** The lane with the least to do; threads are started when the first batch is asked for. */
  #lane(): Lane {
    if (this.#closed) throw new OrielError("loader", "the loader is closed");
    if (this.#lanes.length === 0) {
      const { transform, mix, seed, workers } = this.#options;
      const config = { transform, mix, seed, classes: this.dataset.classes.length, labels: this.#labels };
      const start = workers === 0 ? localLane : workerLane;
      this.#lanes = Array.from({ length: Math.max(workers, 1) }, () => start(config, this.#host));
    }
    return this.#lanes.reduce((least, lane) => (lane.pending < least.pending ? lane : least));
  }

  readonly #host: Host = {
    fetch: async (index): Promise<Fetched> => {
      if (this.#failure !== undefined) return "stop";
      if (this.#unreadable.has(index)) return "broken";
      try {
        return { name: this.dataset.name(index), bytes: await this.dataset.read(index) };
      } catch (error) {
        this.#host.broken(index, (error as Error).message);
        return "broken";
      }
    },
    decoded: (index, image) => {
      const bytes = image.data.length;
      if (this.#decoded.has(index) || this.#decodedBytes + bytes > this.#options.cacheBytes) return;
      this.#decoded.set(index, image);
      this.#decodedBytes += bytes;
    },
    broken: (index, reason) => {
      this.#unreadable.add(index);
      try {
        this.broken.add({ name: this.dataset.name(index), reason });
      } catch (error) {
        this.#failure = error;
      }
    },
  };

  /** Ends the worker threads.  A process with nothing else to do ends without it. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#lanes.map((lane) => lane.close()));
    this.#decoded.clear();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
