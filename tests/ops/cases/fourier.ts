import { irfft2, rfft2 } from "../../../src/ops/index.ts";
import type { HostTensor } from "../../../src/runtime/runtime.ts";
import { at, nd, randn, sumOver } from "../../support/arrays.ts";
import { type OpCase, op } from "../../support/cases.ts";

const sizes: readonly (readonly [what: string, height: number, width: number])[] = [
  ["even sides", 4, 6],
  ["odd sides", 5, 3],
  ["one row", 1, 2],
];
const angle = (y: number, x: number, v: number, u: number, [height, width]: readonly number[]): number =>
  2 * Math.PI * ((v * y) / height + (u * x) / width);

function transformed(x: HostTensor): HostTensor {
  const [batch, height, width, channels] = x.shape;
  const size = [height, width];
  return nd(
    [batch, 2, height, Math.floor(width / 2) + 1, channels],
    (n, part, v, u, c) =>
      sumOver(size, (i, j) => {
        const a = angle(i, j, v, u, size);
        return at(x, n, i, j, c) * (part === 0 ? Math.cos(a) : -Math.sin(a));
      }) / Math.sqrt(height * width),
  );
}

/** The real part of the sum over all frequencies; those that are not kept are mirrors of those that are. */
function restored(y: HostTensor, width: number): HostTensor {
  const [batch, , height, count, channels] = y.shape;
  const size = [height, width];
  return nd(
    [batch, height, width, channels],
    (n, i, j, c) =>
      sumOver([height, count], (v, u) => {
        const a = angle(i, j, v, u, size);
        const term = at(y, n, 0, v, u, c) * Math.cos(a) - at(y, n, 1, v, u, c) * Math.sin(a);
        return u === 0 || 2 * u === width ? term : 2 * term;
      }) / Math.sqrt(height * width),
  );
}

export const cases: readonly OpCase[] = sizes.flatMap(([what, height, width]) => [
  op(`rfft2: ${what}`, [randn([2, height, width, 3])], (x) => rfft2(x), transformed),
  op(
    `irfft2: ${what}`,
    [randn([2, 2, height, Math.floor(width / 2) + 1, 3])],
    (y) => irfft2(y, width),
    (y) => restored(y, width),
  ),
]);
