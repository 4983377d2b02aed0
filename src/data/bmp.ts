/** Windows bitmaps, which sharp's prebuilt libraries do not read: uncompressed, of 1, 4, 8, 24 or 32 bits a pixel. */
import { createImage, type Image } from "./image.ts";

export const isBmp = (bytes: Uint8Array): boolean => bytes[0] === 0x42 && bytes[1] === 0x4d;

/** A fourth channel is left out, as Pillow does where the header does not call it alpha. */
export function decodeBmp(bytes: Uint8Array): Image {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 54) throw new Error("the bitmap is cut short");
  const headerSize = view.getUint32(14, true);
  const width = view.getInt32(18, true);
  const height = Math.abs(view.getInt32(22, true));
  const fromTop = view.getInt32(22, true) < 0;
  const bits = view.getUint16(28, true);
  const compression = view.getUint32(30, true);
  if (headerSize < 40 || compression !== 0 || ![1, 4, 8, 24, 32].includes(bits)) {
    throw new Error(`bitmaps of ${bits} bits with compression ${compression} are not read; save it as PNG`);
  }
  const pixels = view.getUint32(10, true);
  const palette = 14 + headerSize;
  const stride = Math.ceil((width * bits) / 32) * 4;
  if (width < 1 || height < 1 || pixels + stride * height > bytes.length) throw new Error("the bitmap is cut short");
  const out = createImage(width, height);
  for (let y = 0, to = 0; y < height; y++) {
    const row = pixels + (fromTop ? y : height - 1 - y) * stride;
    for (let x = 0; x < width; x++, to += 3) {
      const first = x * bits; // blue first, in the pixel or in its palette entry
      const shift = 8 - bits - (first & 7);
      const from =
        bits > 8 ? row + (first >> 3) : palette + 4 * ((bytes[row + (first >> 3)] >> shift) & ((1 << bits) - 1));
      out.data[to] = bytes[from + 2];
      out.data[to + 1] = bytes[from + 1];
      out.data[to + 2] = bytes[from];
    }
  }
  return out;
}
