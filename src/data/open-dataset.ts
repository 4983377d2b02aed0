import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { UsageError } from "../base/errors.ts";
import { besideMissing } from "../weights/file-source.ts";
import { openCsv } from "./csv.ts";
import { alignClasses, type Dataset, type Splits, splitDataset } from "./dataset.ts";
import { listFolder } from "./folder.ts";
import { below, classFolders, type Listing, topDirectories } from "./listing.ts";
import { listTar } from "./tar.ts";

export type SplitName = "train" | "val" | "test";

/** What people call the splits; where there is no validation set, the test set is what training is judged on. */
const splitNames: Record<SplitName, readonly string[]> = {
  train: ["train", "training"],
  val: ["val", "valid", "validation", "test", "testing"],
  test: ["test", "testing"],
};

/** Something that a dataset can be made of, and how few classes it may have. */
type Source = (options: { minClasses?: number }) => Promise<Dataset>;

/**
 * Opens labelled pictures, recognising what `path` is: a folder of class folders, a `.csv` list, or a `.tar` archive of class
 * folders.  Where it holds several splits, `split` says which, or of which to take the first that is there.  Pictures to judge by may
 * all be of one class.
 */
export async function openDataset(
  path: string,
  { split = [] }: { split?: SplitName | readonly SplitName[] } = {},
): Promise<Dataset> {
  const found = await recognise(path);
  const splits = [split].flat();
  const options = { minClasses: splits[0] === "val" || splits[0] === "test" ? 1 : 2 };
  if (!(found instanceof Map)) return found(options);
  const chosen = splits.flatMap((name) => splitNames[name]).find((name) => found.has(name));
  if (chosen === undefined) {
    const wanted = splits.length === 0 ? "it holds several sets" : `it holds no ${splits[0]} set`;
    throw new UsageError({
      message: `${wanted}: ${[...found.keys()].join(", ")}`,
      at: path,
      help: "say which one, or give its own path",
    });
  }
  return (found.get(chosen) as Source)(options);
}

/**
 * A training set and what to judge it by: the `train` and `val` (or `valid`, or `test`) folders, lists or archives in `path`, or,
 * where there is only one set, a fraction of every class set aside.  Validation labels are numbered as training's are.
 */
export async function openSplits(path: string, options: { fraction?: number; seed?: number } = {}): Promise<Splits> {
  const found = await recognise(path);
  if (!(found instanceof Map)) return splitDataset(await found({}), options);
  const pick = (split: SplitName): string | undefined => splitNames[split].find((name) => found.has(name));
  const [trainName, valName, testName] = [pick("train"), pick("val"), pick("test")];
  if (trainName === undefined) {
    throw new UsageError({
      message: `it holds ${[...found.keys()].join(", ")}, but no train`,
      at: path,
      help: "name the folder of training pictures train",
    });
  }
  const train = await (found.get(trainName) as Source)({});
  const judged = async (name: string): Promise<Dataset> =>
    alignClasses(train, await (found.get(name) as Source)({ minClasses: 1 }));
  if (valName === undefined) return splitDataset(train, options);
  const val = await judged(valName);
  return testName === undefined || testName === valName ? { train, val } : { train, val, test: await judged(testName) };
}

/** One set, or several by name. */
async function recognise(path: string): Promise<Source | Map<string, Source>> {
  const info = await stat(path).catch(() => undefined);
  if (!info) throw await missing(path);
  if (info.isDirectory()) return recogniseFolder(path);
  if (/\.csv$/i.test(path)) return (options) => openCsv(path, options);
  return fromListing(await listTar(path));
}

async function recogniseFolder(path: string): Promise<Source | Map<string, Source>> {
  const files = new Map<string, Source>();
  for (const entry of await readdir(path)) {
    const [, name, kind] = /^(.+)\.(csv|tar)$/i.exec(entry) ?? [];
    if (!isSplit(name)) continue;
    const file = join(path, entry);
    files.set(
      name.toLowerCase(),
      kind.toLowerCase() === "csv" ? (o) => openCsv(file, o) : async (o) => classFolders(await listTar(file), o),
    );
  }
  return files.size > 0 ? files : fromListing(await listFolder(path));
}

function fromListing(listing: Listing): Source | Map<string, Source> {
  const splits = topDirectories(listing).filter(isSplit);
  // `test` may well be a class; `train` beside anything, or several of these names, may not.
  if (splits.length === 0 || (splits.length === 1 && !splitNames.train.includes(splits[0].toLowerCase()))) {
    return async (options) => classFolders(listing, options);
  }
  return new Map(
    splits.map((name): [string, Source] => [name.toLowerCase(), async (o) => classFolders(below(listing, name), o)]),
  );
}

const isSplit = (name: string | undefined): boolean =>
  name !== undefined && Object.values(splitNames).some((names) => names.includes(name.toLowerCase()));

const missing = async (path: string): Promise<UsageError> =>
  new UsageError({ message: `there is no file or folder ${path}`, help: await besideMissing(path) });
