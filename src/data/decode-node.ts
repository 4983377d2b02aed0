import sharp from "sharp";
import { OrielError } from "../base/errors.ts";
import { decodeBmp, isBmp } from "./bmp.ts";
import type { Decoder, Image } from "./image.ts";

// Pictures are decoded side by side, so one thread for each is enough, and none is decoded twice.
sharp.concurrency(1);
sharp.cache(false);

/**
 * Decodes with sharp (libvips) to what Pillow's `Image.open(…).convert("RGB")` gives, equal to the byte for JPEG: colour
 * profiles are ignored, CMYK is converted by its plain formula, grey is repeated, the first frame stands for a film.
 * Three things differ on purpose: EXIF rotation is applied, transparency is laid on white (Pillow shows the colours that
 * happen to lie under it), and 16-bit grey is scaled instead of cut off at 255.
 */
export const decodeNode: Decoder = async (bytes, name) => {
  if (bytes.length === 0) throw unreadable(name, "the file is empty");
  if (isHeic(bytes))
    throw unreadable(name, "it is HEIC, which needs a licensed codec", undefined, "convert it to JPEG");
  try {
    if (isBmp(bytes)) return decodeBmp(bytes);
    return (await hasFourInks(bytes)) ? await decodeCmyk(bytes) : await decodeRgb(bytes);
  } catch (cause) {
    const { message } = cause as Error;
    // libvips collects what is wrong for all threads together, so that of two at once one may be told nothing.
    throw unreadable(name, message === "Unknown error" ? "it is cut short or damaged" : message, cause);
  }
};

function unreadable(
  name: string,
  reason: string,
  cause?: unknown,
  help = "see whether a viewer opens it; replace or remove the file",
): OrielError {
  return new OrielError("picture", {
    message: `cannot read the picture: ${[...new Set(reason.split("\n"))].join("; ")}`, // libvips repeats itself
    at: name,
    help,
    cause,
  });
}

/** A file that is cut short or damaged fails; one with a harmless oddity in its header does not. */
const open = (bytes: Uint8Array) => sharp(bytes, { failOn: "error", ignoreIcc: true, autoOrient: true });

async function decodeRgb(bytes: Uint8Array): Promise<Image> {
  const pipeline = open(bytes).flatten({ background: "#ffffff" }).toColourspace("srgb").raw({ depth: "uchar" });
  const { data, info } = await pipeline.toBuffer({ resolveWithObject: true });
  if (info.channels !== 3) throw new Error(`${info.channels} channels came out of it`);
  return {
    width: info.width,
    height: info.height,
    channels: 3,
    data: new Uint8Array(data.buffer, data.byteOffset, data.length),
  };
}

/** r = 255 - min(255, c + k - c k / 255), and so on. */
async function decodeCmyk(bytes: Uint8Array): Promise<Image> {
  const pipeline = open(bytes).pipelineColourspace("cmyk").toColourspace("cmyk").raw({ depth: "uchar" });
  const { data: inks, info } = await pipeline.toBuffer({ resolveWithObject: true });
  const data = new Uint8Array(info.width * info.height * 3);
  for (let from = 0, to = 0; to < data.length; from += info.channels) {
    const paper = 255 - inks[from + 3];
    for (let k = 0; k < 3; k++) data[to++] = Math.max(paper - Math.round((inks[from + k] * paper) / 255), 0);
  }
  return { width: info.width, height: info.height, channels: 3, data };
}

/** Whether its brand is one of HEIF's with HEVC inside (ISO/IEC 23008-12, annex B); AVIF's is another. */
function isHeic(bytes: Uint8Array): boolean {
  return /^ftyphe[iv][cxms]$/.test(String.fromCharCode(...bytes.subarray(4, 12)));
}

/** Whether it is CMYK: the full header is only parsed where the first bytes leave it open, since that costs as much as decoding a small picture. */
async function hasFourInks(bytes: Uint8Array): Promise<boolean> {
  const isTiff = (bytes[0] === 0x49 && bytes[1] === 0x49) || (bytes[0] === 0x4d && bytes[1] === 0x4d);
  if (!isTiff && jpegComponents(bytes) !== 4) return false;
  return (await sharp(bytes).metadata()).space === "cmyk";
}

/** The number of components in a JPEG's frame header (ITU-T T.81, B.2.2); 0 where there is none. */
function jpegComponents(bytes: Uint8Array): number {
  if (bytes[0] !== 0xff || bytes[1] !== 0xd8) return 0;
  for (let at = 2; at + 9 < bytes.length && bytes[at] === 0xff; ) {
    const marker = bytes[at + 1];
    if (marker === 0xff) {
      at++; // a fill byte
      continue;
    }
    const isTable = marker === 0xc4 || marker === 0xc8 || marker === 0xcc;
    if (marker >= 0xc0 && marker <= 0xcf && !isTable) return bytes[at + 9];
    at += 2 + (bytes[at + 2] << 8) + bytes[at + 3];
  }
  return 0;
}
