import { createHash } from "node:crypto";
import { sep } from "node:path";
import type { Dataset } from "../data/index.ts";

/** Which pictures a run learns from and is judged by. */
export interface Pictures {
  train: number;
  val: number;
  /** Of names, labels and their order, wherever the pictures lie. */
  hash: string;
}

export function picturesOf(train: Dataset, val: Dataset): Pictures {
  const hash = createHash("sha256");
  for (const dataset of [train, val]) {
    const start = sharedStart(dataset);
    for (let i = 0; i < dataset.length; i++)
      hash.update(`${dataset.label(i)} ${dataset.name(i).slice(start).replaceAll(sep, "/")}\n`);
    hash.update("\n");
  }
  return { train: train.length, val: val.length, hash: hash.digest("hex").slice(0, 16) };
}

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
