import { isOpen } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { concat, split } from "../ops/move.ts";
import { isTraining } from "./trace.ts";

/** Elements that a processor's cache holds beside everything else: 5 MB of float32.  Measured: `docs/notes/0004-speed.md`. */
const cached = 1.25e6;

/**
 * Draws something for a few images of a batch at a time, so that what one step makes is still in the processor's cache when the
 * next one reads it.  Only for what treats every image alike.  `widest` is the number of elements of the largest map that is made
 * of one image.  A batch whose size is open is drawn whole, and so is training, where it would triple the graph for little.
 */
export function inParts(x: Tensor, widest: number, draw: (part: Tensor) => Tensor): Tensor {
  const batch = x.shape[0];
  if (isOpen(batch) || isTraining()) return draw(x);
  let parts = Math.min(batch, Math.ceil((batch * widest) / cached));
  while (batch % parts !== 0) parts++;
  return parts === 1 ? draw(x) : concat(split(x, 0, parts).map(draw), 0);
}
