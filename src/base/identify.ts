/** How many first bytes `identify` wants. */
export const headBytes = 64;

/** The kinds of files that hold weights and can be read here; an index says which files hold the parts of a model. */
export type WeightFormat = "safetensors" | "torch" | "torch-legacy" | "onnx" | "index";

interface Looks {
  words: string;
  format?: WeightFormat;
}

const ascii = (text: string) => [...text].map((letter) => letter.charCodeAt(0));

const startsWith = (head: Uint8Array, bytes: readonly number[], at = 0) =>
  bytes.every((byte, i) => head[at + i] === byte);

/** First bytes and what has them. */
const signatures: readonly (readonly [number[], string, WeightFormat?])[] = [
  [ascii("version https://git-lfs"), "a Git LFS pointer: the file itself was never fetched"],
  [[0x89, ...ascii("HDF")], "an HDF5 file, perhaps of Keras"],
  [[0x93, ...ascii("NUMPY")], "a NumPy array"],
  [[0x89, ...ascii("PNG")], "a PNG picture"],
  [[0x50, 0x4b, 0x03, 0x04], "a zip archive, as torch writes", "torch"],
  [ascii("GGUF"), "a GGUF file"],
  [[0xff, 0xd8, 0xff], "a JPEG picture"],
  [[0x1f, 0x8b], "a gzip archive"],
  [[0x80, 0x02], "a Python pickle"],
  [[0x80, 0x03], "a Python pickle"],
  [[0x80, 0x04], "a Python pickle"],
  [[0x80, 0x05], "a Python pickle"],
];

/** A pickled long, 0x1950a86a20f9469cfc6c, opens every torch file written before version 1.6. */
const torchMagic = [0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/** Fields that may follow the version at the start of an ONNX model: producer, domain, graph, opsets, ... */
const onnxFields = [0x12, 0x1a, 0x22, 0x28, 0x32, 0x3a, 0x42, 0x72];

/** What a file looks like by its first bytes, in words, "a PNG picture"; undefined when nothing known. */
export const identify = (head: Uint8Array): string | undefined => recognise(head)?.words;

/** The kind of weights that a file holds by its first bytes; undefined when none. */
export const formatOf = (head: Uint8Array): WeightFormat | undefined => recognise(head)?.format;

/** What bytes look like that are to be an ONNX model; undefined where they may be one. */
export function otherThanOnnx(bytes: Uint8Array): string | undefined {
  const looks = recognise(bytes.subarray(0, headBytes));
  return looks?.format === "onnx" ? undefined : looks?.words;
}

function recognise(head: Uint8Array): Looks | undefined {
  if (head.length === 0) return { words: "an empty file" };
  // Behind the pickle's version, and since protocol 4 behind a frame's length.
  if (head[0] === 0x80 && [2, 11].some((at) => startsWith(head, torchMagic, at)))
    return { words: "a torch file of the older kind", format: "torch-legacy" };
  // A header's length in 8 bytes, far below 2^32, and its JSON.  Any length may come, so before the shorter signatures: 640 begins as a pickle does.
  if (head[8] === 0x7b && startsWith(head, [0, 0, 0, 0], 4))
    return { words: "a safetensors file", format: "safetensors" };
  const found = signatures.find(([bytes]) => startsWith(head, bytes));
  if (found) return { words: found[1], format: found[2] };
  if (head[0] === 0x08 && head[1] <= 32 && onnxFields.includes(head[2]))
    return { words: "an ONNX model", format: "onnx" };
  const text = new TextDecoder("latin1").decode(head).trimStart().toLowerCase();
  if (text.startsWith("<!doctype") || text.startsWith("<html"))
    return { words: "a web page, not the file it was to be" };
  if (text.startsWith("<?xml")) return { words: "an XML document, perhaps a server's error" };
  if (text.startsWith("{") || text.startsWith("[")) return { words: "a JSON document", format: "index" };
  return undefined;
}
