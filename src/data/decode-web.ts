import { OrielError } from "../base/errors.ts";
import { fetchFile } from "../weights/url-source.ts";
import type { Image } from "./image.ts";

/** What `createImageBitmap` takes; said so that the types of a program without a page need no others. */
type BitmapSource = typeof globalThis extends { createImageBitmap: (source: infer S, ...rest: never[]) => unknown }
  ? S
  : never;

/** Pixels copied at a time: browsers limit the area of a canvas, and need four bytes for each pixel. */
const strip = 2 ** 20;

/**
 * The pixels of a picked or dropped file, an <img>, a canvas, a video's or a camera's frame, an `ImageBitmap` or `ImageData`, or of a
 * file behind an address; in a page or a worker of one.  As `decodeNode` gives them: EXIF rotation is applied, colour profiles are
 * ignored, transparency is laid on white.
 */
export async function readImage(source: BitmapSource | URL | string): Promise<Image> {
  if (source instanceof URL || typeof source === "string") {
    const bytes = await fetchFile(source);
    return read(new Blob([bytes]), String(source));
  }
  return read(source, source instanceof File ? source.name : undefined);
}

async function read(source: BitmapSource, at: string | undefined): Promise<Image> {
  try {
    if (globalThis.HTMLImageElement && source instanceof HTMLImageElement) await source.decode(); // it may be on its way
    const bitmap = await createImageBitmap(source, { colorSpaceConversion: "none" });
    const image = pixelsOf(bitmap);
    bitmap.close();
    return image;
  } catch (cause) {
    const { message, name } = cause as Error;
    throw new OrielError("picture", {
      message: `cannot read the picture: ${message}`,
      at,
      help:
        name === "SecurityError"
          ? "it is of another origin: read its address, or give the <img> crossorigin, where that server allows this page"
          : "see whether the browser shows it; await a video's first frame, draw an SVG on a canvas",
      cause,
    });
  }
}

function pixelsOf(bitmap: ImageBitmap): Image {
  const { width, height } = bitmap;
  const rows = Math.min(Math.ceil(strip / width), height);
  const context = new OffscreenCanvas(width, rows).getContext("2d", { alpha: false, willReadFrequently: true })!;
  context.fillStyle = "white";
  const data = new Uint8Array(3 * width * height);
  let at = 0;
  for (let top = 0; top < height; top += rows) {
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -top);
    const { data: rgba } = context.getImageData(0, 0, width, Math.min(rows, height - top));
    for (let i = 0; i < rgba.length; i += 4) {
      data[at++] = rgba[i];
      data[at++] = rgba[i + 1];
      data[at++] = rgba[i + 2];
    }
  }
  return { width, height, channels: 3, data };
}
