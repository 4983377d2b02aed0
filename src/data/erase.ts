import { fastNormal, oneByOne } from "../base/fast-random.ts";
import { checkNumbers, isShare } from "../base/options.ts";
import type { Random } from "../base/philox.ts";
import { isCount } from "../graph/shape.ts";
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

/** Throws when an option is out of range. */
export function checkErasing({ prob, count = 1, area: [least, most] = [0, 1], minAspect = 1 }: ErasingOptions): void {
  checkNumbers({ prob }, isShare, "from 0 to 1");
  checkNumbers({ count }, isCount, "a whole number of at least 1");
  checkNumbers({ "the least area": least, "the largest area": most }, isShare, "a share, from 0 to 1");
  checkNumbers({ "the least area": least }, (x) => x <= most, `at most the largest, ${most}`);
  checkNumbers({ minAspect }, (x) => x > 0 && x <= 1, "above 0, and at most 1");
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
  const noise = mode === "const" ? () => 0 : oneByOne(fastNormal(random));
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
