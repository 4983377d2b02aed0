/** Makes whole batches, on a worker thread or on the calling one; what it needs from the dataset it asks for. */
import { OrielError } from "../base/errors.ts";
import { Random } from "../base/philox.ts";
import type { Decoder, Image } from "./image.ts";
import { type MixOptions, mixBatch } from "./mix.ts";
import { prepare, type Transform } from "./transform.ts";

/** What stays the same for a loader's whole life. */
export interface MakerConfig {
  transform: Transform;
  mix?: MixOptions;
  seed: number;
  classes: number;
  labels: Int32Array;
}

/** One batch to make.  index, copy: [N] */
export interface Job {
  epoch: number;
  step: number;
  index: Uint32Array;
  copy: Uint32Array;
  /** Pictures that the loader has decoded already. */
  decoded: ReadonlyMap<number, Image>;
  /** Whether the loader has room for more of them. */
  keep: boolean;
}

/** A file's bytes, or that it is known to be broken, or that there is no use in going on. */
export type Fetched = { name: string; bytes: Uint8Array } | "broken" | "stop";

/** What the maker asks of whoever holds the dataset. */
export interface Host {
  fetch(index: number): Promise<Fetched>;
  /** A picture to keep decoded; its pixels are in shared memory. */
  decoded(index: number, image: Image): void;
  broken(index: number, reason: string): void;
}

/** A batch without its surroundings; N may have shrunk when evaluating. */
export interface Made {
  image: Float32Array<ArrayBuffer>;
  label: Int32Array<ArrayBuffer>;
  target?: Float32Array<ArrayBuffer>;
  index: Uint32Array<ArrayBuffer>;
  shape: [number, number, number, number];
}

/** Pictures being decoded at once, in the threads that sharp has beside this one. */
const ahead = 3;

export function batchMaker(config: MakerConfig, decode: Decoder, host: Host): (job: Job) => Promise<Made> {
  const { transform, mix, seed, classes, labels } = config;
  const view = prepare(transform);
  const training = transform.kind === "train";
  const size = 3 * view.height * view.width;

  const load = async (index: number, job: Job): Promise<Image | undefined> => {
    const ready = job.decoded.get(index);
    if (ready) return ready;
    const fetched = await host.fetch(index);
    if (fetched === "stop") throw new OrielError("loader", "the loader has stopped");
    if (fetched === "broken") return undefined;
    try {
      const image = await decode(fetched.bytes, fetched.name);
      return job.keep ? keep(index, image) : image;
    } catch (error) {
      host.broken(index, error instanceof OrielError ? error.facts.message : String(error));
      return undefined;
    }
  };

  const keep = (index: number, image: Image): Image => {
    const data = new Uint8Array(new SharedArrayBuffer(image.data.length));
    data.set(image.data);
    const shared = { ...image, data };
    host.decoded(index, shared);
    return shared;
  };

  /** The picture at `index`; in training the next good one in its place, so that batches stay full. */
  const loadGood = async (index: number, job: Job): Promise<{ image: Image; index: number } | undefined> => {
    for (let tries = 0; tries < (training ? labels.length : 1); tries++) {
      const at = (index + tries) % labels.length;
      const image = await load(at, job);
      if (image) return { image, index: at };
    }
    return undefined;
  };

  return async (job) => {
    const n = job.index.length;
    const image = new Float32Array(n * size);
    const source = new Uint32Array(n);
    const present = new Uint8Array(n);
    let next = 0;
    const lane = async (): Promise<void> => {
      for (let i = next++; i < n; i = next++) {
        const found = await loadGood(job.index[i], job);
        if (!found) continue;
        const key = { seed, epoch: job.epoch, index: job.index[i], copy: job.copy[i] };
        view.apply(found.image, key, image, i * size);
        source[i] = found.index;
        present[i] = 1;
      }
    };
    await Promise.all(Array.from({ length: Math.min(ahead, n) }, lane));
    const made = gather(image, source, present, size);
    const label = Int32Array.from(made.index, (i) => labels[i]);
    const shape: Made["shape"] = [label.length, 3, view.height, view.width];
    if (!mix || label.length === 0) return { ...made, label, shape };
    const random = new Random(seed, job.epoch, job.step, "mix");
    const target = mixBatch(made.image, label, [view.height, view.width], classes, mix, random);
    return { ...made, label, target, shape };
  };
}

/** Closes the gaps that broken pictures left. */
function gather(
  image: Float32Array<ArrayBuffer>,
  index: Uint32Array<ArrayBuffer>,
  present: Uint8Array,
  size: number,
): Pick<Made, "image" | "index"> {
  if (!present.includes(0)) return { image, index };
  let count = 0;
  present.forEach((there, i) => {
    if (!there) return;
    image.copyWithin(count * size, i * size, (i + 1) * size);
    index[count++] = index[i];
  });
  return { image: image.slice(0, count * size), index: index.slice(0, count) };
}
