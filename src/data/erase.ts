import type { Random } from "../base/philox.ts";
import { roundEven } from "./augment.ts";

/** Random erasing of a normalised picture.  Zhong et al., "Random Erasing Data Augmentation" (2017); timm's `RandomErasing`. */
export interface ErasingOptions {
  /** How often a picture is touched. */
  prob: number;
  /** `pixel`: noise, each value its own; `color`: one random colour; `const`: the mean, which is 0 here. */
  mode?: "pixel" | "color" | "const";
  /** At most this many rectangles, which share the area. */
  count?: number;
  /** Erased share of the picture. */
  area?: readonly [number, number];
  /** Height / width is between this and its inverse. */
  minAspect?: number;
}

/** Erases in place.  data: [3, height, width] from `offset` */
export function randomErase(
  data: Float32Array,
  offset: number,
  [height, width]: readonly [number, number],
  options: ErasingOptions,
  random: Random,
): void {
  const { prob, mode = "pixel", count: most = 1, area = [0.02, 1 / 3], minAspect = 0.3 } = options;
  if (random.uniform() >= prob) return;
  const count = most === 1 ? 1 : 1 + random.below(most);
  const noise = mode === "const" ? () => 0 : normals(random);
  for (let n = 0; n < count; n++) {
    for (let attempt = 0; attempt < 10; attempt++) {
      const target = (random.between(area[0], area[1]) * height * width) / count;
      const aspect = Math.exp(random.between(Math.log(minAspect), -Math.log(minAspect)));
      const h = roundEven(Math.sqrt(target * aspect));
      const w = roundEven(Math.sqrt(target / aspect));
      if (w >= width || h >= height) continue;
      const top = random.below(height - h + 1);
      const left = random.below(width - w + 1);
      for (let channel = 0; channel < 3; channel++) {
        const level = noise();
        for (let y = 0; y < h; y++) {
          const row = offset + (channel * height + top + y) * width + left;
          if (mode === "pixel") for (let x = 0; x < w; x++) data[row + x] = noise();
          else data.fill(level, row, row + w);
        }
      }
      break;
    }
  }
}

/**
 * Standard normal numbers from a small generator (Jenkins' sfc32) that `random` seeds: a rectangle needs tens of thousands, for which
 * the counter-based one is too slow.
 */
function normals(random: Random): () => number {
  let [a, b, c, d] = [random.uint32(), random.uint32(), random.uint32(), 1];
  const uniform = (): number => {
    const t = (a + b + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + t;
    return (t >>> 0) / 0x1_0000_0000;
  };
  let spare: number | undefined;
  return () => {
    if (spare !== undefined) {
      const kept = spare;
      spare = undefined;
      return kept;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
    const angle = 2 * Math.PI * uniform();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}
