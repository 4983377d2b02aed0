import { createHash, type Hash } from "node:crypto";
import { sep } from "node:path";
import type { Dataset } from "../../data/index.ts";

/** Which pictures a run learns from and is judged by. */
export interface Pictures {
  train: number;
  val: number;
  /** Of names, labels and their order, wherever the pictures lie. */
  hash: string;
  /** The same of those that it learns from alone; runs of earlier versions do not say it, nor the next. */
  learnt?: string;
  /** Of what is in a few of those: others may be numbered alike. */
  sample?: string;
}

export async function picturesOf(train: Dataset, val: Dataset): Promise<Required<Pictures>> {
  return {
    train: train.length,
    val: val.length,
    hash: namesHash([train, val]),
    learnt: namesHash([train]),
    sample: await sampleHash(train),
  };
}

/** Of names and labels, in their order. */
function namesHash(datasets: readonly Dataset[]): string {
  const hash = createHash("sha256");
  for (const dataset of datasets) {
    const start = sharedStart(dataset);
    for (let i = 0; i < dataset.length; i++)
      hash.update(`${dataset.label(i)} ${dataset.name(i).slice(start).replaceAll(sep, "/")}\n`);
    hash.update("\n");
  }
  return shortened(hash);
}

/** How many pictures are looked into. */
const samples = 8;

/** Of the bytes of a few pictures, evenly spaced; one that cannot be read counts as empty. */
async function sampleHash(dataset: Dataset): Promise<string> {
  const hash = createHash("sha256");
  const count = Math.min(samples, dataset.length);
  for (let k = 0; k < count; k++)
    hash.update(await dataset.read(Math.floor((k * dataset.length) / count)).catch(() => new Uint8Array()));
  return shortened(hash);
}

const shortened = (hash: Hash): string => hash.digest("hex").slice(0, 16);

/** How many characters all names begin with, the path of the data among them. */
function sharedStart(dataset: Dataset): number {
  if (dataset.length === 0) return 0;
  const first = dataset.name(0);
  let shared = first.length;
  for (let i = 1; i < dataset.length; i++) {
    const other = dataset.name(i);
    let k = 0;
    while (k < shared && other[k] === first[k]) k++;
    shared = k;
  }
  return shared;
}
