/** Writes the zip form of torch files, as `torch.save` does for a state dict; `torch.load(path, weights_only=True)` opens them. */
import { basename, extname } from "node:path";
import { UsageError } from "../base/errors.ts";
import { allStored, bytesOf, type NamedTensors } from "./safetensors.ts";
import { byteLengthOf, countOf, type StoredDtype } from "./stored.ts";
import { typedStorages, untypedDtypes } from "./torch-names.ts";
import { writeFileSafely } from "./write-file.ts";
import { type NewEntry, zipParts } from "./write-zip.ts";

/**
 * Saves tensors as a state dict in the order given, bit for bit, each with a storage of its own.  Tensors that are still in another
 * file are copied one after another.  As with `saveSafetensors`, the path holds the previous file or the new one, whole.
 */
export async function saveTorch(path: string, tensors: NamedTensors): Promise<void> {
  const named = allStored(tensors);
  const folder = basename(path, extname(path)) || "archive";
  const text = (content: string) => new TextEncoder().encode(content);
  const entry = (name: string, content: Uint8Array): NewEntry => ({
    name: `${folder}/${name}`,
    size: content.byteLength,
    content: async () => content,
  });
  const storages = named.map(([name, tensor], i) => ({
    name: `${folder}/data/${i}`,
    size: byteLengthOf(tensor.dtype, tensor.shape),
    content: () => bytesOf(name, tensor),
  }));
  await writeFileSafely(
    path,
    zipParts([
      entry("data.pkl", pickleOf(named)),
      entry("byteorder", text("little")),
      ...storages,
      entry("version", text("3\n")),
    ]),
  );
}

interface Described {
  dtype: StoredDtype;
  shape: readonly number[];
}

/** `OrderedDict` of the tensors, in protocol 2; storages are named by their numbers and lie outside. */
function pickleOf(tensors: readonly (readonly [string, Described])[]): Uint8Array {
  const out = new Pickler();
  out.code(0x80, 2);
  out.call("collections.OrderedDict", () => {});
  out.code("(");
  const names = new Set<string>();
  for (const [i, [name, tensor]] of tensors.entries()) {
    if (names.has(name)) throw new UsageError(`two tensors are named "${name}"`);
    names.add(name);
    out.text(name);
    writeTensor(out, name, tensor, i);
  }
  out.code("u.");
  return out.bytes();
}

/** A call of torch's builder: (storage, offset, shape, strides, requires_grad, hooks[, dtype]). */
function writeTensor(out: Pickler, name: string, { dtype, shape }: Described, key: number): void {
  const typed = typedStorages[dtype as keyof typeof typedStorages];
  const untyped = untypedDtypes[dtype as keyof typeof untypedDtypes];
  if (!typed && !untyped) throw new UsageError(`tensor "${name}" is of dtype ${dtype}, which torch files cannot hold`);
  const strides = shape.map((_, axis) => countOf(shape.slice(axis + 1)));
  out.call(`torch._utils._rebuild_tensor_v${typed ? 2 : 3}`, () => {
    out.code("(");
    out.text("storage");
    out.name(typed ? `torch.${typed[0]}` : "torch.storage.UntypedStorage");
    out.text(String(key));
    out.text("cpu");
    out.integer(typed ? countOf(shape) : byteLengthOf(dtype, shape));
    out.code("tQ");
    out.integer(0);
    out.tuple(shape);
    out.tuple(strides);
    out.code(0x89); // False
    out.call("collections.OrderedDict", () => {});
    if (untyped) out.name(`torch.${untyped}`);
  });
}

/** The few opcodes that a state dict needs; names and words that repeat are remembered. */
class Pickler {
  readonly #bytes: number[] = [];
  readonly #memo = new Map<string, number>();

  bytes(): Uint8Array {
    return Uint8Array.from(this.#bytes);
  }

  code(...codes: (string | number)[]): void {
    for (const code of codes)
      this.#bytes.push(...(typeof code === "number" ? [code] : [...code].map((letter) => letter.charCodeAt(0))));
  }

  /** MARK, arguments, TUPLE, REDUCE */
  call(name: string, args: () => void): void {
    this.name(name);
    this.code("(");
    args();
    this.code("tR");
  }

  name(full: string): void {
    const dot = full.lastIndexOf(".");
    this.#once(`c${full}`, () => this.code(`c${full.slice(0, dot)}\n${full.slice(dot + 1)}\n`));
  }

  text(value: string): void {
    this.#once(`X${value}`, () => {
      const bytes = new TextEncoder().encode(value);
      this.code("X", ...little(BigInt(bytes.length), 4), ...bytes);
    });
  }

  tuple(values: readonly number[]): void {
    this.code("(");
    for (const value of values) this.integer(value);
    this.code("t");
  }

  /** BININT1, BININT2, BININT or LONG1, as large as it needs. */
  integer(value: number): void {
    if (value < 2 ** 8) this.code("K", value);
    else if (value < 2 ** 16) this.code("M", ...little(BigInt(value), 2));
    else if (value < 2 ** 31) this.code("J", ...little(BigInt(value), 4));
    else this.code(0x8a, 8, ...little(BigInt(value), 8));
  }

  /** LONG_BINPUT after the first, LONG_BINGET from then on. */
  #once(what: string, write: () => void): void {
    const known = this.#memo.get(what);
    if (known === undefined) {
      write();
      this.#memo.set(what, this.#memo.size);
    }
    this.code(known === undefined ? "r" : "j", ...little(BigInt(known ?? this.#memo.size - 1), 4));
  }
}

const little = (value: bigint, size: number) =>
  Array.from({ length: size }, (_, i) => Number((value >> BigInt(8 * i)) & 255n));
