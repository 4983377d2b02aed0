import { type FamilyNames, type NameMap, toOurs, toTheirs } from "../backbones/names.ts";
import { type Module, stateOf } from "../nn/module.ts";

/** How the names of a file were understood. */
export interface Translation {
  /** Whose names they are: "timm" for our own paths, else a key of the family's names. */
  convention: string;
  /** By path of the model, the file's names for it: one, or those of the parts that are joined along the first axis. */
  named: ReadonlyMap<string, readonly string[]>;
}

/** More names than any model has are looked at in part to find out whose they are. */
const enough = 4096;

/**
 * Finds out by whose names a file calls the weights of a model: the convention, and the prefix to leave out (`backbone.`, `module.`),
 * that place most of them.
 */
export function translate(
  names: readonly string[],
  wanted: ReadonlySet<string>,
  conventions: FamilyNames,
): Translation {
  const sample = names.slice(0, enough);
  const candidates = [["timm", { pairs: [] }] as const, ...Object.entries(conventions)].flatMap(([convention, map]) =>
    ["", ...commonPrefixes(sample)].map((prefix) => ({ convention, map, prefix })),
  );
  let best = { candidate: candidates[0], placed: -1 };
  for (const candidate of candidates) {
    const placed = place(sample, wanted, candidate).size;
    if (placed > best.placed) best = { candidate, placed };
  }
  return { convention: best.candidate.convention, named: place(names, wanted, best.candidate) };
}

/** The weights of the model for which the file has all parts. */
function place(
  names: readonly string[],
  wanted: ReadonlySet<string>,
  { map, prefix }: { map: NameMap; prefix: string },
): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const name of names) {
    const bare = name.startsWith(prefix) ? name.slice(prefix.length) : name;
    const at = [bare, ...(map.root === undefined ? [] : [map.root + bare])]
      .map((candidate) => toOurs(candidate, map))
      .find(({ path }) => wanted.has(path));
    if (!at) continue;
    const parts = found.get(at.path) ?? Array<string>(at.parts).fill("");
    if (parts[at.part] === "") parts[at.part] = name;
    found.set(at.path, parts);
  }
  for (const [path, parts] of found) if (parts.includes("")) found.delete(path);
  return found;
}

/** Beginnings of names, at most three modules deep, that at least a quarter of them share. */
function commonPrefixes(names: readonly string[]): string[] {
  const counts = new Map<string, number>();
  for (const name of names) {
    const parts = name.split(".", 4);
    for (let depth = 1; depth < parts.length; depth++) {
      const prefix = `${parts.slice(0, depth).join(".")}.`;
      counts.set(prefix, (counts.get(prefix) ?? 0) + 1);
    }
  }
  return [...counts].filter(([, count]) => 4 * count >= names.length).map(([prefix]) => prefix);
}

/** Every name and shape in a published checkpoint of a model: our own, or by a map those of others. */
export const namesIn = (model: Module, map: NameMap = { pairs: [] }): { name: string; shape: readonly number[] }[] =>
  stateOf(model).flatMap(({ path, shape }) => {
    const names = toTheirs(path, map);
    const theirs = map.shape?.(path, shape) ?? shape;
    const part = names.length > 1 ? [theirs[0] / names.length, ...theirs.slice(1)] : theirs;
    return names.map((name) => ({ name, shape: part }));
  });
