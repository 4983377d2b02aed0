/** A picture in memory: 8-bit RGB, rows from the top.  data: [height, width, 3] */
export interface Image {
  readonly width: number;
  readonly height: number;
  readonly channels: 3;
  readonly data: Uint8Array;
}

/**
 * Turns the bytes of a picture file into pixels; `name` is for the error.  Node plugs in `decodeNode`, a page reads pictures with
 * `readImage`, and everything after it is the same code.
 */
export type Decoder = (bytes: Uint8Array, name: string) => Promise<Image>;

/** Between 0 and 255. */
export const clip8 = (v: number): number => Math.min(Math.max(v, 0), 255);

/** A picture of one colour. */
export function createImage(width: number, height: number, fill: readonly number[] = [0, 0, 0]): Image {
  const data = new Uint8Array(width * height * 3);
  if (fill.some((v) => v !== 0)) for (let i = 0; i < data.length; i++) data[i] = fill[i % 3];
  return { width, height, channels: 3, data };
}

/** The rectangle at (left, top); what lies outside the picture is `fill`.  [H, W, 3] -> [height, width, 3] */
export function crop(
  image: Image,
  left: number,
  top: number,
  width: number,
  height: number,
  fill: readonly number[] = [0, 0, 0],
): Image {
  if (left === 0 && top === 0 && width === image.width && height === image.height) return image;
  const inside = left >= 0 && top >= 0 && left + width <= image.width && top + height <= image.height;
  const out = createImage(width, height, inside ? undefined : fill);
  const from = Math.max(left, 0);
  const to = Math.min(left + width, image.width);
  if (to <= from) return out;
  for (let y = Math.max(top, 0); y < Math.min(top + height, image.height); y++) {
    const row = image.data.subarray((y * image.width + from) * 3, (y * image.width + to) * 3);
    out.data.set(row, ((y - top) * width + from - left) * 3);
  }
  return out;
}

/** Left and right exchanged. */
export function flipHorizontal(image: Image): Image {
  const { width, height, data } = image;
  const out = createImage(width, height);
  for (let y = 0; y < height; y++) {
    let to = (y * width + width - 1) * 3;
    for (let from = y * width * 3, end = from + width * 3; from < end; from += 3, to -= 3) {
      out.data[to] = data[from];
      out.data[to + 1] = data[from + 1];
      out.data[to + 2] = data[from + 2];
    }
  }
  return out;
}

/** Top and bottom exchanged. */
export function flipVertical(image: Image): Image {
  const { width, height, data } = image;
  const out = createImage(width, height);
  const row = width * 3;
  for (let y = 0; y < height; y++) out.data.set(data.subarray(y * row, (y + 1) * row), (height - 1 - y) * row);
  return out;
}
