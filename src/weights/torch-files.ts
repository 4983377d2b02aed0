/** The two containers of torch files. Both give a root value whose tensors point to storages, and say where those lie. */
import { OrielError } from "../base/errors.ts";
import { type PickleValue, textOf, unpickle } from "./pickle.ts";
import { type ByteSource, checkRange } from "./source.ts";
import { dtypeBits, type StoredDtype } from "./stored.ts";
import { type Storage, storageOf, torchNames } from "./torch-names.ts";
import { listZip, locateZipEntry, type Region, readZipEntry } from "./zip.ts";

export interface TorchContents {
  readonly root: PickleValue;
  /** Where a storage's bytes lie in the file. */
  locate(storage: Storage): Promise<Region>;
}

const malformed = (message: string) => new OrielError("malformed", `not a valid torch file: ${message}`);
const bigEndian = () => new OrielError("unsupported", "the file was written on a big-endian machine");

/** A pickle describes tensors in some hundred bytes each; one longer than this holds something else. */
const longestPickle = 2 ** 28;

const tooLong = () => malformed(`its pickle is longer than ${longestPickle} bytes`);

const saveWeightsAlone = "in Python, save `model.state_dict()` alone";

/** Since torch 1.6: a pickle and one entry for each storage, all below one folder. */
export async function openZip(source: ByteSource): Promise<TorchContents> {
  const entries = await listZip(source);
  const pickle = [...entries.values()].find(({ name }) => /^[^/]+\/data\.pkl$/.test(name));
  if (!pickle) throw new OrielError("foreign", "a zip archive, but not one of torch: it has no data.pkl");
  if (pickle.size > longestPickle) throw tooLong();
  const folder = pickle.name.slice(0, -"data.pkl".length);
  const order = entries.get(`${folder}byteorder`);
  if (order && new TextDecoder().decode(await readZipEntry(source, order)) !== "little") throw bigEndian();

  const script = entries.has(`${folder}constants.pkl`);
  const { value } = unpickle(await readZipEntry(source, pickle), {
    names: torchNames,
    persistent: storageOf,
    help: script
      ? "this is a TorchScript program; in Python, save `torch.jit.load(path).state_dict()`"
      : saveWeightsAlone,
  });
  const located = new Map<string, Promise<Region>>(); // tied weights share a storage
  const locate = ({ key }: Storage) => {
    const entry = entries.get(`${folder}data/${key}`);
    if (!entry) throw malformed(`storage ${key} is missing`);
    const region = located.get(key) ?? locateZipEntry(source, entry);
    located.set(key, region);
    return region;
  };
  return { root: value, locate: async (storage) => locate(storage) };
}

/** Before torch 1.6: pickles end to end (magic, version, machine, contents, storage keys), then each storage after its count. */
export async function openLegacy(source: ByteSource): Promise<TorchContents> {
  const { root, keys, dtypes, end } = await readPickles(source);
  const regions = new Map<string, Region>();
  let at = end;
  for (const key of keys) {
    const dtype = dtypes.get(key);
    if (!dtype) throw malformed(`nothing says what storage ${key} holds`);
    checkRange(source, at, 8);
    const count = await source.read(at, 8);
    const bytes = (Number(new DataView(count.buffer, count.byteOffset).getBigUint64(0, true)) * dtypeBits[dtype]) / 8;
    checkRange(source, at + 8, bytes);
    regions.set(key, { at: at + 8, length: bytes });
    at += 8 + bytes;
  }
  const locate = async ({ key }: Storage) => {
    const found = regions.get(key);
    if (!found) throw malformed(`storage ${key} is missing`);
    return found;
  };
  return { root, locate };
}

interface LegacyPickles {
  root: PickleValue;
  keys: string[];
  /** By storage key. */
  dtypes: ReadonlyMap<string, StoredDtype>;
  /** The byte after the last pickle. */
  end: number;
}

/** Nothing says how long the pickles are, so ever more of the file's start is read until they end in it. */
async function readPickles(source: ByteSource): Promise<LegacyPickles> {
  for (let length = 2 ** 16; ; length *= 4) {
    const bytes = await source.read(0, Math.min(length, source.size, longestPickle));
    try {
      return parsePickles(bytes);
    } catch (cause) {
      const more = cause instanceof OrielError && cause.code === "truncated" && bytes.length < source.size;
      if (!more) throw cause;
      if (bytes.length === longestPickle) throw tooLong();
    }
  }
}

function parsePickles(bytes: Uint8Array): LegacyPickles {
  const dtypes = new Map<string, StoredDtype>();
  const persistent = (id: readonly PickleValue[]) => {
    const storage = storageOf(id);
    if ((dtypes.get(storage.key) ?? storage.dtype) !== storage.dtype)
      throw malformed(`storage ${storage.key} is of two types`);
    dtypes.set(storage.key, storage.dtype);
    return storage;
  };
  const next = (start: number) => unpickle(bytes, { names: torchNames, persistent, help: saveWeightsAlone }, start);

  const magic = next(0);
  const version = next(magic.end);
  if (version.value !== 1001)
    throw new OrielError("unsupported", `a torch file of version ${textOf(version.value)}; 1001 is known`);
  const machine = next(version.end);
  if (machine.value instanceof Map && machine.value.get("little_endian") === false) throw bigEndian();
  const contents = next(machine.end);
  const keys = next(contents.end);
  if (!Array.isArray(keys.value)) throw malformed("it has no list of storages");
  return { root: contents.value, keys: keys.value.map(textOf), dtypes, end: keys.end };
}
