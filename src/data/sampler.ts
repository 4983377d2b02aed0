import { Random } from "../base/philox.ts";

/** Which pictures an epoch shows, in order; `copy` counts how often the picture has come before in it. */
export interface EpochOrder {
  index: Uint32Array;
  copy: Uint32Array;
}

export interface SamplerOptions {
  seed: number;
  epoch: number;
  shuffle: boolean;
  /** Each picture this many times in a row; the epoch keeps its length, so it shows a part of the pictures. */
  repeats: number;
  /** Every class equally often, whatever their sizes. */
  balanced: boolean;
}

/**
 * The order of one epoch over pictures with these labels, a function of (seed, epoch) alone.  labels: [n] -> [n]
 * Repeats: Hoffer et al., "Augment Your Batch" (2020), as DeiT uses them.
 */
export function epochOrder(labels: Int32Array, options: SamplerOptions): EpochOrder {
  const { seed, epoch, shuffle, repeats, balanced } = options;
  const n = labels.length;
  const random = new Random(seed, epoch, "order");
  const once = balanced
    ? balancedOrder(labels, random)
    : shuffle
      ? random.permutation(n)
      : Uint32Array.from({ length: n }, (_, i) => i);
  const index = repeats === 1 ? once : once.map((_, i) => once[Math.floor(i / repeats)]);
  const copy = new Uint32Array(n);
  if (repeats > 1 || balanced) {
    const seen = new Uint32Array(n);
    index.forEach((i, at) => {
      copy[at] = seen[i]++;
    });
  }
  return { index, copy };
}

/** Rounds in which every class has one turn, in random order; a class shows all its pictures before one comes again. */
function balancedOrder(labels: Int32Array, random: Random): Uint32Array {
  const members = new Map<number, number[]>();
  labels.forEach((label, i) => {
    const own = members.get(label);
    if (own) own.push(i);
    else members.set(label, [i]);
  });
  const classes = [...members.values()].map((own) => ({ own, left: [] as number[] }));
  const order = new Uint32Array(labels.length);
  for (let at = 0; at < order.length; ) {
    for (const turn of random.permutation(classes.length)) {
      if (at === order.length) break;
      const group = classes[turn];
      if (group.left.length === 0) group.left = Array.from(random.permutation(group.own.length), (k) => group.own[k]);
      order[at++] = group.left.pop() as number;
    }
  }
  return order;
}
