import type { FamilyNames } from "../backbones/index.ts";
import { nearest, OrielError } from "../base/errors.ts";
import { sameShape, staticSize } from "../graph/shape.ts";
import type { Values } from "../nn/adapt.ts";
import { type Module, type Weight, weightsOf } from "../nn/module.ts";
import { translate } from "./translate.ts";

/** What became of one weight of the model, or of one of the file that the model has no place for. */
export interface FitEntry {
  status: "loaded" | "resized" | "reset" | "left over";
  /** The model's path; the file's name where it is left over. */
  name: string;
  shape: readonly number[];
  /** Its shape in the file, where that is another. */
  from?: readonly number[];
  /** Why it starts afresh. */
  why?: string;
  kind: Weight["kind"];
}

export interface Fit {
  /** By the model's paths; what starts afresh is not among them. */
  values: Map<string, Float32Array<ArrayBuffer>>;
  /** Whose names the file has: "timm", "official", "transformers". */
  convention: string;
  /** In the order of the model, then of the file. */
  entries: FitEntry[];
}

/** A model that weights are made for.  What lies outside its `backbone`, where it has one, is a classifier. */
export type Fitted = Module & { readonly backbone?: Module };

/**
 * Makes the weights of a file those of a model: finds out whose names they have, joins what is kept apart, and resizes what is for
 * another image, window, patch or number of channels.  A classifier for other classes starts afresh, as does what the file lacks.
 */
export function fitWeights(
  model: Fitted,
  file: ReadonlyMap<string, Values>,
  options: { names?: FamilyNames; otherClasses?: boolean } = {},
): Fit {
  const { names = {}, otherClasses = false } = options;
  const weights = weightsOf(model);
  const { convention, named } = translate([...file.keys()], new Set(weights.map((w) => w.path)), names);
  const backbone = new Set(weightsOf(model.backbone ?? model).map((w) => w.tensor));
  const used = new Set([...named.values()].flat());
  const fitted = weights.map((weight) => ({
    weight,
    isHead: !backbone.has(weight.tensor),
    ...fitOne(
      weight,
      (named.get(weight.path) ?? []).map((name) => file.get(name) as Values),
    ),
  }));
  // A classifier is loaded whole or not at all.
  const fresh = otherClasses || fitted.some(({ isHead, data }) => isHead && !data);
  const values = new Map<string, Float32Array<ArrayBuffer>>();
  const entries = fitted.map(({ weight, isHead, data, from, why }): FitEntry => {
    const { path: name, tensor, kind } = weight;
    const shape = tensor.shape as readonly number[];
    const common = { name, shape, kind, ...(from && !sameShape(from, shape) && { from }) };
    if (data && !(isHead && fresh)) {
      values.set(name, data);
      return { status: from && !alike(from, shape) ? "resized" : "loaded", ...common };
    }
    return { status: "reset", ...common, why: isHead && from ? "other classes" : (why ?? "not in the file") };
  });
  for (const [name, { shape }] of file)
    if (!used.has(name)) entries.push({ status: "left over", name, shape, kind: "parameter" });
  return { values, convention, entries };
}

/** Values for one weight from those that the file has for it. */
function fitOne(
  { tensor, adapt }: Weight,
  parts: readonly Values[],
): { data?: Float32Array<ArrayBuffer>; from?: readonly number[]; why?: string } {
  if (parts.length === 0) return {};
  const shape = tensor.shape as readonly number[];
  const joined = join(parts);
  if (!joined) return { why: "its parts do not go together" };
  const { shape: from } = joined;
  const data = alike(from, shape) ? joined.data : adapt?.(joined, shape);
  return data ? { data, from } : { from, why: "another shape" };
}

/** Joins along the first axis; a copy, so that files may share memory between weights. */
function join(parts: readonly Values[]): Values | undefined {
  const [{ shape }] = parts;
  if (parts.length > 1 && parts.some((part) => !sameShape(part.shape.slice(1), shape.slice(1)))) return undefined;
  const rows = parts.reduce((sum, part) => sum + (part.shape[0] ?? 1), 0);
  const data = new Float32Array(parts.reduce((sum, part) => sum + staticSize(part.shape), 0));
  let at = 0;
  for (const part of parts) {
    data.set(part.data.subarray(0, staticSize(part.shape)), at);
    at += staticSize(part.shape);
  }
  return { shape: parts.length > 1 ? [rows, ...shape.slice(1)] : shape, data };
}

/** Whether the same values in the same order mean the same: axes of 1 do not count, nor that a kernel lies flat as a matrix. */
function alike(a: readonly number[], b: readonly number[]): boolean {
  const [long, flat] = a.length > b.length ? [a, b] : [b, a];
  const isFlat = flat.length === 2 && long.length === 4 && flat[0] === long[0];
  if (isFlat) return flat[1] === staticSize(long.slice(1));
  return sameShape(
    a.filter((size) => size !== 1),
    b.filter((size) => size !== 1),
  );
}

/** Values of a shape: 1 where it has no axes. */
const valuesIn = ({ shape }: { shape: readonly number[] }): number => staticSize(shape);

/** The share of the model's parameters that have values from the file, 0…1. */
export function loadedShare({ entries }: Fit): number {
  const own = entries.filter((e) => e.kind === "parameter" && e.status !== "left over");
  const total = own.reduce((sum, e) => sum + valuesIn(e), 0);
  return own.reduce((sum, e) => sum + (e.status === "reset" ? 0 : valuesIn(e)), 0) / total;
}

/** Throws where the file has nothing for the model, with what is nearest on both sides; `holds` is the model that the file names. */
export function checkAnyLoaded(
  fit: Fit,
  { model, path, holds }: { model: string; path: string; holds?: string },
): void {
  if (fit.values.size > 0) return;
  const theirs = fit.entries.filter((e) => e.status === "left over");
  const ours = fit.entries.filter((e) => e.status === "reset");
  // Names are compared with a few of the file's only: a distance costs the product of their lengths.
  const some = theirs.slice(0, 500).map((e) => e.name);
  const says = holds === undefined ? "" : `; the file says it holds ${holds}`;
  throw new OrielError("mismatch", {
    message: `none of the ${theirs.length} tensors in the file is one of ${model}${says}`,
    at: path,
    details: ours
      .slice(0, 5)
      .map(
        ({ name, shape }) => `${name} [${shape}] is missing; nearest: ${nearest(name, some, 2).join(", ") || "none"}`,
      ),
    help:
      holds === undefined
        ? "name the model that they are for with --model; `oriel info <model> --names timm` lists a model's names"
        : `use it with --model ${holds}`,
  });
}

/** One line of the table of what became of the weights: several of them, where they went the same way. */
export interface FitRow {
  status: FitEntry["status"];
  /** `layers.0-3.blocks.0-5.*` */
  name: string;
  tensors: number;
  parameters: number;
  /** "[1, 197, 192] to [1, 577, 192]", "other classes" */
  note: string;
}

export interface FitTable {
  convention: string;
  rows: FitRow[];
  /** Parameters, running statistics left out. */
  totals: Record<FitEntry["status"], number>;
}

/** What became of the weights in a few lines; what went the same way is told together, as deep in the model as there is room for. */
export function fitTable({ convention, entries }: Fit, most = 6): FitTable {
  const statuses = ["loaded", "resized", "reset", "left over"] as const;
  const totals = { loaded: 0, resized: 0, reset: 0, "left over": 0 };
  for (const entry of entries) if (entry.kind === "parameter") totals[entry.status] += valuesIn(entry);
  const rows = statuses.flatMap((status) => {
    const own = entries.filter((e) => e.status === status);
    const deepest = own.reduce((most, e) => Math.max(most, e.name.split(".").length - 1), 1);
    let grouped: FitRow[] = [];
    for (let depth = deepest; depth > 0 && (grouped.length === 0 || grouped.length > most); depth--)
      grouped = group(own, depth);
    return grouped;
  });
  return { convention, rows, totals };
}

/** Weights of one status, told together where they lie in one module, numbers aside, and went the same way. */
function group(entries: readonly FitEntry[], depth: number): FitRow[] {
  const groups = new Map<string, FitEntry[]>();
  for (const entry of entries) {
    const key = `${anyNumber(moduleOf(entry.name, depth))} ${noteOf(entry)}`;
    const together = groups.get(key);
    if (together) together.push(entry);
    else groups.set(key, [entry]);
  }
  return [...groups.values()].map((together) => {
    const names = together.map((e) => e.name);
    const one = names.every((name) => anyNumber(name) === anyNumber(names[0]));
    return {
      status: together[0].status,
      name: one ? withRanges(names) : `${withRanges(names.map((name) => moduleOf(name, depth)))}.*`,
      tensors: together.length,
      parameters: together.reduce((sum, e) => sum + (e.kind === "parameter" ? valuesIn(e) : 0), 0),
      note: noteOf(together[0]),
    };
  });
}

/** The module that a weight lies in, so deep at most; a weight that lies in none stands for itself. */
function moduleOf(name: string, depth: number): string {
  const parts = name.split(".");
  return parts.slice(0, Math.max(1, Math.min(depth, parts.length - 1))).join(".");
}

const anyNumber = (name: string): string => name.replaceAll(/\d+/g, "#");

function noteOf({ status, shape, from, why }: FitEntry): string {
  const shapes = from ? `[${from.join(", ")}] to [${shape.join(", ")}]` : "";
  if (status === "resized") return shapes;
  return status === "reset" ? [why, shapes].filter(Boolean).join(", ") : "";
}

/** Names that differ in their numbers as one: `layers.0-3.blocks.0-5.*`. */
function withRanges(names: readonly string[]): string {
  const numbers = names.map((name) => name.match(/\d+/g)?.map(Number) ?? []);
  let i = 0;
  return names[0].replaceAll(/\d+/g, () => {
    const at = i++;
    return ranges([...new Set(numbers.map((all) => all[at]))].sort((a, b) => a - b));
  });
}

/** 0, 1, 2, 5 -> "0-2,5" */
function ranges(sorted: readonly number[]): string {
  const runs: [number, number][] = [];
  for (const n of sorted) {
    const last = runs.at(-1);
    if (last && last[1] === n - 1) last[1] = n;
    else runs.push([n, n]);
  }
  return runs.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(",");
}
