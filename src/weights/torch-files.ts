/** The two containers of torch files. Both give a root value whose tensors point to storages, and a way to load those. */
import { OrielError } from "../base/errors.ts";
import { type PickleValue, unpickle } from "./pickle.ts";
import { type ByteSource, bytesSource } from "./source.ts";
import { dtypeBytes, type StoredDtype } from "./stored.ts";
import { type Storage, storageOf, torchNames } from "./torch-names.ts";
import { listZip, readZipEntry } from "./zip.ts";

export interface TorchContents {
  readonly root: PickleValue;
  /** All the bytes that a storage lies in, before its `start`. */
  load(storage: Storage): Promise<Uint8Array>;
}

const malformed = (message: string) => new OrielError("malformed", `not a valid torch file: ${message}`);
const bigEndian = () => new OrielError("unsupported", "the file was written on a big-endian machine");

function checkRefused(refused: readonly string[], help: string): void {
  if (refused.length === 0) return;
  throw new OrielError("refused", {
    message: "the file names Python objects that are not weights; nothing of it was executed",
    details: refused,
    help,
  });
}

/** Since torch 1.6: a pickle and one entry for each storage, all below one folder. */
export async function openZip(source: ByteSource): Promise<TorchContents> {
  const entries = await listZip(source);
  const pickle = [...entries.values()].find(({ name }) => /^[^/]+\/data\.pkl$/.test(name));
  if (!pickle) throw new OrielError("foreign", "a zip archive, but not one of torch: it has no data.pkl");
  const folder = pickle.name.slice(0, -"data.pkl".length);
  const order = entries.get(`${folder}byteorder`);
  if (order && new TextDecoder().decode(await readZipEntry(source, order)) !== "little") throw bigEndian();

  const { value, refused } = unpickle(await readZipEntry(source, pickle), { names: torchNames, persistent: storageOf });
  const script = entries.has(`${folder}constants.pkl`);
  checkRefused(
    refused,
    script
      ? "this is a TorchScript program; in Python, save `torch.jit.load(path).state_dict()`"
      : "in Python, save `model.state_dict()` alone",
  );

  const loaded = new Map<string, Promise<Uint8Array>>(); // tied weights share a storage
  const load = async ({ key }: Storage) => {
    const entry = entries.get(`${folder}data/${key}`);
    if (!entry) throw malformed(`storage ${key} is missing`);
    const bytes = loaded.get(key) ?? readZipEntry(source, entry);
    loaded.set(key, bytes);
    return bytes;
  };
  return { root: value, load };
}

/** Before torch 1.6: pickles end to end (magic, version, machine, contents, storage keys), then each storage after its count. */
export async function openLegacy(source: ByteSource): Promise<TorchContents> {
  const bytes = await source.read(0, source.size);
  const dtypes = new Map<string, StoredDtype>();
  const persistent = (id: readonly PickleValue[]) => {
    const storage = storageOf(id);
    dtypes.set(storage.key, storage.dtype);
    return storage;
  };
  const next = (start: number) => unpickle(bytes, { names: torchNames, persistent }, start);

  const magic = next(0);
  const version = next(magic.end);
  if (version.value !== 1001)
    throw new OrielError("unsupported", `a torch file of version ${version.value}; 1001 is known`);
  const machine = next(version.end);
  if (machine.value instanceof Map && machine.value.get("little_endian") === false) throw bigEndian();
  const contents = next(machine.end);
  checkRefused(contents.refused, "in Python, save `model.state_dict()` alone");
  const keys = next(contents.end);
  if (!Array.isArray(keys.value)) throw malformed("it has no list of storages");

  const file = bytesSource(bytes, source.name);
  const storages = new Map<string, Uint8Array>();
  let at = keys.end;
  for (const key of keys.value.map(String)) {
    const dtype = dtypes.get(key);
    if (!dtype) throw malformed(`nothing says what storage ${key} holds`);
    const count = await file.read(at, 8);
    const length = Number(new DataView(count.buffer, count.byteOffset).getBigUint64(0, true)) * dtypeBytes[dtype];
    storages.set(key, await file.read(at + 8, length));
    at += 8 + length;
  }
  const load = async ({ key }: Storage) => {
    const found = storages.get(key);
    if (!found) throw malformed(`storage ${key} is missing`);
    return found;
  };
  return { root: contents.value, load };
}
