import sharp from "sharp";
import { decodeNode } from "../../data/index.ts";

const side = 160;

/** A picture as a small data address for a page; undefined where it cannot be read. */
export async function thumbnail(bytes: Uint8Array): Promise<{ url: string; small: boolean } | undefined> {
  try {
    const { width, height, channels, data } = await decodeNode(bytes, ""); // as the model saw it, whatever its format
    const image = sharp(data, { raw: { width, height, channels } });
    const small = Math.max(width, height) <= 64;
    // A picture of a few pixels is kept exact; the page enlarges it without blurring.
    const made = small ? image.png() : image.resize(side, side, { fit: "inside" }).jpeg({ quality: 78 });
    return { url: `data:image/${small ? "png" : "jpeg"};base64,${(await made.toBuffer()).toString("base64")}`, small };
  } catch {
    return undefined;
  }
}
