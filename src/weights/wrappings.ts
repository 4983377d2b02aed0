/** Checkpoints hold weights below other things: a dict in a dict, or a word before every name. */
import { OrielError, UsageError } from "../base/errors.ts";
import type { PickleValue } from "./pickle.ts";
import { StridedTensor } from "./torch-names.ts";

/**
 * Entries that people keep weights under.  Of several the first of this list is taken: averaged weights and a teacher's before those
 * that were trained, since theirs are the published figures; then the commonest.
 */
const wrappings = [
  "state_dict_ema",
  "model_ema",
  "ema",
  "params_ema",
  "teacher",
  "state_dict",
  "model_state_dict",
  "model_state",
  "model",
  "network",
  "net",
  "params",
  "weights",
  "module",
  "student",
  "backbone",
  "encoder",
];

/** What wrappers of a model put before all of its names: DataParallel, torch.compile, frameworks. */
const prefixes = ["module.", "_orig_mod.", "model.", "backbone.", "encoder."];

/** Weights lie a few containers deep; a file that goes further means to exhaust the stack. */
const deepest = 64;

export interface FoundWeights {
  /** By name, the keys of dicts in dicts joined by dots. */
  tensors: Map<string, StridedTensor>;
  /** The entries they were found under, outermost first: `["state_dict"]`. */
  path: string[];
  /** Other entries of the file that hold tensors: `["state_dict_ema", "optimizer"]`. */
  others: string[];
}

/**
 * The weights in an unpickled checkpoint.  `key` names the entry to take, `state_dict_ema`, or entries and the beginning of names in
 * it, `teacher.backbone`; without it the wrappings are taken off one by one.
 */
export function findWeights(root: PickleValue, key?: string): FoundWeights {
  const holds = holdersIn(root);
  const inside = (value: PickleValue) => entriesOf(value).filter(([, item]) => holds(item));
  const path: string[] = [];
  let weights = root;
  let rest = key?.split(".") ?? [];
  const enter = (name: string): boolean => {
    const found = weights instanceof Map ? weights.get(name) : undefined;
    // A state dict is flat, so an entry with entries of its own is a wrapping, even where tensors lie beside it.
    if (!(found instanceof Map || Array.isArray(found)) || !holds(found) || path.length >= deepest) return false;
    path.push(name);
    weights = found;
    return true;
  };
  while (rest.length > 0 && enter(rest[0])) rest = rest.slice(1);
  if (key === undefined) while (wrappings.some(enter));
  if (!holds(weights)) throw new OrielError("no-tensors", "the file holds no tensors");
  const tensors = flatten(weights);
  return {
    tensors:
      rest.length > 0
        ? namesUnder(
            tensors,
            rest.join("."),
            inside(root).map(([name]) => name),
          )
        : tensors,
    path: [...path, ...rest],
    others: path.length > 0 ? inside(root).flatMap(([name]) => (name === path[0] ? [] : name)) : [],
  };
}

/** The tensors whose names begin with `part.`, without that; where there are none, an error with the parts that `names` begin with. */
export function namesUnder<T>(
  tensors: ReadonlyMap<string, T>,
  part: string,
  names: Iterable<string> = tensors.keys(),
): Map<string, T> {
  const under = [...tensors].filter(([name]) => name.startsWith(`${part}.`));
  if (under.length === 0) {
    const choices = new Set(Array.from(names, (name) => name.split(".")[0]));
    throw new UsageError(`no tensors under "${part}"; there are some under: ${[...choices].slice(0, 20).join(", ")}`);
  }
  return new Map(under.map(([name, tensor]) => [name.slice(part.length + 1), tensor]));
}

/** Takes off what all names begin with and a wrapper put there, such as DataParallel's `module.`. */
export function unwrapNames<T>(tensors: ReadonlyMap<string, T>): Map<string, T> {
  const names = [...tensors.keys()];
  const prefix = prefixes.find((start) => names.length > 0 && names.every((name) => name.startsWith(start)));
  return prefix ? unwrapNames(namesUnder(tensors, prefix.slice(0, -1))) : new Map(tensors);
}

type Container = Map<PickleValue, PickleValue> | PickleValue[];
const isContainer = (value: PickleValue): value is Container => value instanceof Map || Array.isArray(value);

/** What lies in a container under text or a number. */
function entriesOf(value: PickleValue): [string, PickleValue][] {
  if (!isContainer(value)) return [];
  const entries: [PickleValue, PickleValue][] = [...value.entries()];
  return entries.flatMap(([key, item]) =>
    typeof key === "string" || typeof key === "number" ? [[String(key), item] as [string, PickleValue]] : [],
  );
}

/** Tells whether something in `root` is or holds a tensor; each container is looked through once, however often it is referred to. */
function holdersIn(root: PickleValue): (value: PickleValue) => boolean {
  const known = new Map<PickleValue, boolean>();
  const visit = (value: PickleValue, depth: number): boolean => {
    if (value instanceof StridedTensor) return true;
    if (!isContainer(value)) return false;
    const before = known.get(value);
    if (before !== undefined) return before;
    if (depth > deepest) throw new OrielError("malformed", `containers nested more than ${deepest} deep`);
    known.set(value, false); // it may contain itself
    const holds = entriesOf(value).map(([, item]) => visit(item, depth + 1));
    known.set(value, holds.includes(true));
    return holds.includes(true);
  };
  visit(root, 0);
  return (value) => value instanceof StridedTensor || known.get(value) === true;
}

/** Every tensor at any depth, its keys joined by dots; a lone tensor is called "tensor". */
function flatten(root: PickleValue): Map<string, StridedTensor> {
  const found = new Map<string, StridedTensor>();
  const seen = new Set<PickleValue>();
  const visit = (value: PickleValue, path: readonly string[]): void => {
    if (value instanceof StridedTensor) found.set(path.join(".") || "tensor", value);
    if (!isContainer(value) || seen.has(value)) return;
    if (path.length > deepest) throw new OrielError("malformed", `containers nested more than ${deepest} deep`);
    seen.add(value);
    for (const [key, item] of entriesOf(value)) visit(item, [...path, key]);
  };
  visit(root, []);
  return found;
}
