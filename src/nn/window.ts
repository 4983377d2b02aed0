import { ShapeError } from "../base/errors.ts";
import { type Dim, divDim, known, mulDim } from "../graph/shape.ts";
import { constant, type Tensor } from "../graph/tensor.ts";
import { gather, inverseOrder, permuteAlong } from "../ops/move.ts";

/**
 * How a map of any number of axes is cut into windows.  1-D for sequences, 2-D for images (a stripe is a window as wide as the
 * map), 3-D for clips.
 */
export interface WindowPlan {
  /** The map: [H, W], or [T, H, W], … */
  readonly size: readonly number[];
  readonly window: readonly number[];
  /** By how much the map is rolled backwards first. */
  readonly shift: readonly number[];
  /** How many windows there are, and how many tokens each has. */
  readonly windows: number;
  readonly tokens: number;
  /** `order[w · tokens + t]` is the place in the map of token t of window w. */
  readonly order: Int32Array;
}

const product = (xs: readonly number[]): number => xs.reduce((a, b) => a * b, 1);

/** Coordinates of place `index` in a grid, slowest axis first. */
function coordinates(index: number, grid: readonly number[]): number[] {
  const out = new Array<number>(grid.length);
  for (let axis = grid.length - 1; axis >= 0; axis--) {
    out[axis] = index % grid[axis];
    index = Math.floor(index / grid[axis]);
  }
  return out;
}
const placeOf = (at: readonly number[], grid: readonly number[]): number =>
  at.reduce((sum, x, i) => sum * grid[i] + x, 0);

function checkDivides(size: readonly number[], parts: readonly number[], what: string): void {
  if (size.every((s, i) => s % parts[i] === 0)) return;
  throw new ShapeError({ message: `a map of ${size} does not divide into ${what} of ${parts}`, help: "pad it first" });
}

/** Plans windows over a map; its axes must divide by the window's. */
export function planWindows(
  size: readonly number[],
  window: readonly number[],
  shift: readonly number[] = size.map(() => 0),
): WindowPlan {
  checkDivides(size, window, "windows");
  const counts = size.map((s, i) => s / window[i]);
  const [windows, tokens] = [product(counts), product(window)];
  const order = new Int32Array(windows * tokens);
  for (let w = 0; w < windows; w++) {
    const corner = coordinates(w, counts).map((c, i) => c * window[i]);
    for (let t = 0; t < tokens; t++) {
      const at = coordinates(t, window).map((x, i) => (corner[i] + x + shift[i]) % size[i]);
      order[w * tokens + t] = placeOf(at, size);
    }
  }
  return { size, window, shift, windows, tokens, order };
}

/**
 * Plans windows whose tokens lie spread over the whole map, one in each cell of a `grid` laid over it, so that the windows are as many
 * as a cell has places.  The map's axes must divide by the grid's.  Tu et al., "MaxViT" (2022), section 3.2.
 */
export function planGrid(size: readonly number[], grid: readonly number[]): WindowPlan {
  checkDivides(size, grid, "a grid");
  const cell = size.map((s, i) => s / grid[i]);
  const { windows: cells, tokens: places, order, ...plan } = planWindows(size, cell);
  const spread = new Int32Array(order.length);
  for (let p = 0; p < places; p++) for (let c = 0; c < cells; c++) spread[p * cells + c] = order[c * places + p];
  return { ...plan, window: grid, windows: places, tokens: cells, order: spread };
}

/**
 * The tokens of a map sorted by window and head, one gather for both: what attention inside windows reads.
 * x: [N, L, heads · D] -> [N · windows, heads, tokens, D]
 */
export function toWindows(x: Tensor, plan: WindowPlan, heads: number): Tensor {
  const [batch, places, dim] = [x.shape[0], known(x.shape[1]), known(x.shape[2])];
  const rows = x.reshape([batch, places * heads, dim / heads]);
  return permuteAlong(rows, byHead(plan, heads), 1).reshape([
    mulDim(batch, plan.windows),
    heads,
    plan.tokens,
    dim / heads,
  ]);
}

/** The tokens of windows back in the order of the map.  x: [N · windows, heads, tokens, D] -> [N, L, heads · D] */
export function fromWindows(x: Tensor, plan: WindowPlan, batch: Dim): Tensor {
  const [, heads, tokens, each] = x.shape.map((d, i) => (i === 0 ? 0 : known(d)));
  const places = plan.windows * tokens;
  const rows = x.reshape([batch, places * heads, each]);
  return permuteAlong(rows, inverseOrder(byHead(plan, heads)), 1).reshape([batch, places, heads * each]);
}

/** The order of a map's rows [place, head], sorted by window, then head, then token. */
function byHead({ windows, tokens, order }: WindowPlan, heads: number): Int32Array {
  const out = new Int32Array(order.length * heads);
  let next = 0;
  for (let w = 0; w < windows; w++)
    for (let head = 0; head < heads; head++)
      for (let t = 0; t < tokens; t++) out[next++] = order[w * tokens + t] * heads + head;
  return out;
}

/**
 * Draws inside windows of a map of any size: what does not divide is completed with zeros at its ends first, as dense-prediction
 * models do, and cut out again.  `draw` reads and returns tokens in the order of the map, `planned` cuts the completed map.  x: [N, L, C] -> [N, L, C]
 */
export function acrossWindows(
  x: Tensor,
  size: readonly number[],
  window: readonly number[],
  draw: (x: Tensor, plan: WindowPlan) => Tensor,
  planned: (size: readonly number[], window: readonly number[]) => WindowPlan = planWindows,
): Tensor {
  const [batch, , dim] = x.shape;
  const grown = size.map((s, i) => Math.ceil(s / window[i]) * window[i]);
  const plan = planned(grown, window);
  if (plan.order.length === product(size)) return draw(x, plan);
  const map = size.reduce((y, s, i) => y.pad(i + 1, 0, grown[i] - s), x.reshape([batch, ...size, dim]));
  const drawn = draw(map.reshape([batch, plan.order.length, dim]), plan).reshape([batch, ...grown, dim]);
  return size.reduce((y, s, i) => y.slice(i + 1, 0, s), drawn).reshape(x.shape);
}

/**
 * Keeps tokens apart that only the roll brought into one window: 0 where two may attend to each other, -100 where not.
 * Undefined where nothing is rolled.  [windows, tokens, tokens].  Liu et al., "Swin Transformer" (2021), section 3.2.
 */
export function shiftMask({ size, window, shift, windows, tokens }: WindowPlan): Tensor | undefined {
  if (shift.every((s) => s === 0)) return undefined;
  const counts = size.map((s, i) => s / window[i]);
  // Along each axis the rolled map has three regions: untouched windows, and the two parts of the last one.
  const region = (x: number, axis: number): number =>
    shift[axis] === 0 || x < size[axis] - window[axis] ? 0 : x < size[axis] - shift[axis] ? 1 : 2;
  const regions = new Int32Array(windows * tokens);
  for (let w = 0; w < windows; w++) {
    const corner = coordinates(w, counts).map((c, i) => c * window[i]);
    for (let t = 0; t < tokens; t++)
      regions[w * tokens + t] = coordinates(t, window).reduce((id, x, i) => id * 3 + region(corner[i] + x, i), 0);
  }
  const mask = new Float32Array(windows * tokens * tokens);
  for (let w = 0; w < windows; w++)
    for (let i = 0; i < tokens; i++)
      for (let j = 0; j < tokens; j++)
        if (regions[w * tokens + i] !== regions[w * tokens + j]) mask[(w * tokens + i) * tokens + j] = -100;
  return constant(mask, [windows, tokens, tokens], "float32");
}

/**
 * Adds to attention scores what only depends on places: a bias for each pair of tokens, and the mask of rolled windows.
 * scores: [N · windows, heads, tokens, tokens], bias: [heads, tokens, tokens] -> as scores
 */
export function addPlaces(scores: Tensor, bias: Tensor, plan: WindowPlan): Tensor {
  const mask = shiftMask(plan);
  if (!mask) return scores.add(bias);
  const apart = scores.reshape([divDim(scores.shape[0], plan.windows) as Dim, plan.windows, ...bias.shape]);
  return apart.add(bias.add(mask.unsqueeze(1))).reshape(scores.shape);
}

/** For each pair of tokens of a window, the place of their offset in a table of all offsets.  [tokens · tokens] */
export function offsetIndex(window: readonly number[]): Int32Array<ArrayBuffer> {
  const spans = window.map((w) => 2 * w - 1);
  const places = Int32Array.from({ length: product(window) }, (_, t) => placeOf(coordinates(t, window), spans));
  const none = places[places.length - 1]; // the place of no offset
  const index = new Int32Array(places.length ** 2);
  let next = 0;
  for (const a of places) for (const b of places) index[next++] = none + a - b;
  return index;
}

/** What is said of every offset inside a window, axis by axis, to a network that makes biases of it.  [Π(2w-1), axes] */
export function offsetTable(window: readonly number[], say: (offset: number) => number): Tensor {
  const spans = window.map((w) => 2 * w - 1);
  const rows = Array.from({ length: product(spans) }, (_, i) =>
    coordinates(i, spans).map((at, axis) => say(at - window[axis] + 1)),
  );
  return constant(Float32Array.from(rows.flat()), [rows.length, window.length], "float32");
}

/** The bias for each pair of tokens of a window from a table of offsets.  table: [Π(2w-1), heads] -> [heads, tokens, tokens] */
export function relativeBias(table: Tensor, window: readonly number[]): Tensor {
  const tokens = product(window);
  const index = constant(offsetIndex(window), [tokens * tokens], "int32");
  return gather(table, index, { axis: 0 }).reshape([tokens, tokens, table.shape[1]]).permute(2, 0, 1);
}
