/**
 * Names that others give to a family's weights.  A map is a list of pairs of patterns, ours and theirs, that read both ways: `{i}`
 * stands for a number, `{i+1}` for the one after it, and a pattern takes everything below it along.  The first pair that fits a name
 * is taken; a name that none fits is the same on both sides.  Where theirs are several names, ours is these joined along the first axis.
 */

/** `["layers.{i+1}.downsample", "layers.{i}.downsample"]`, `["attn.qkv", ["attn.query", "attn.key", "attn.value"]]` */
export type NamePair = readonly [ours: string, theirs: string | readonly string[]];

export interface NameMap {
  pairs: readonly NamePair[];
  /** What all names of a whole model begin with but the classifier's; those of a backbone alone leave it out. */
  root?: string;
  /** The shape in which they keep a weight of ours, where the same values lie in another. */
  shape?: (path: string, shape: readonly number[]) => readonly number[];
}

/** Whose names there are: "official" for the repository of the paper, "transformers" for Hugging Face's library. */
export type FamilyNames = Readonly<Record<string, NameMap>>;

/** Pairs below a module of ours and one of theirs. */
export const below = (ours: string, theirs: string, pairs: readonly NamePair[]): NamePair[] =>
  pairs.map(([a, b]) => [
    `${ours}.${a}`,
    typeof b === "string" ? `${theirs}.${b}` : b.map((part) => `${theirs}.${part}`),
  ]);

/** A block of a transformer as Hugging Face's library names its parts; `self` is where it keeps the projections. */
export const transformersBlock = (self: "attention.self" | "attention.attention"): NamePair[] => [
  ["norm1", "layernorm_before"],
  ["attn.qkv", ["query", "key", "value"].map((part) => `${self}.${part}`)],
  ["attn.proj", "attention.output.dense"],
  ["norm2", "layernorm_after"],
  ["mlp.fc1", "intermediate.dense"],
  ["mlp.fc2", "output.dense"],
];

/** The same map as the library's version 5 has names in memory; what it saves to files keeps the names of before. */
export const inTransformers5 = ({ pairs, ...rest }: NameMap): NameMap => ({
  ...rest,
  pairs: pairs.map(([ours, theirs]) => [
    ours,
    typeof theirs === "string" ? inVersion5(theirs) : theirs.map((part) => inVersion5(part)),
  ]),
});

const inVersion5 = (name: string): string =>
  name
    .replace("encoder.layer.", "layers.")
    .replace(/attention\.(?:self|attention)\.(query|key|value)/, (_, part: string) => `attention.${part[0]}_proj`)
    .replace("attention.self.relative", "attention.relative_position_bias.relative")
    .replace("attention.output.dense", "attention.o_proj")
    .replace("intermediate.dense", "mlp.fc1")
    .replace("output.dense", "mlp.fc2");

/** A weight of ours, or one of the equal parts that it is cut into along its first axis. */
export interface Place {
  path: string;
  part: number;
  parts: number;
}

/** What they call a weight of ours: one name, or those of its parts. */
export function toTheirs(path: string, { pairs }: NameMap): string[] {
  for (const [ours, theirs] of pairs) {
    const found = match(ours, path);
    if (found) return [theirs].flat().map((pattern) => fill(pattern, found));
  }
  return [path];
}

/** Where a weight of theirs belongs in ours. */
export function toOurs(name: string, { pairs }: NameMap): Place {
  for (const [ours, theirs] of pairs) {
    const parts = [theirs].flat();
    for (const [part, pattern] of parts.entries()) {
      const found = match(pattern, name);
      if (found) return { path: fill(ours, found), part, parts: parts.length };
    }
  }
  return { path: name, part: 0, parts: 1 };
}

interface Found {
  numbers: ReadonlyMap<string, number>;
  /** What stands below the pattern: ".weight", or nothing. */
  rest: string;
}

const hole = /\{(\w)(?:\+(\d+))?\}/g;
const compiled = new Map<string, { test: RegExp; holes: { letter: string; added: number }[] }>();

function compile(pattern: string) {
  let made = compiled.get(pattern);
  if (!made) {
    const holes = [...pattern.matchAll(hole)].map(([, letter, added]) => ({ letter, added: Number(added ?? 0) }));
    const source = pattern.replaceAll(".", "\\.").replace(hole, "(\\d+)");
    made = { test: new RegExp(`^${source}(\\..+)?$`), holes };
    compiled.set(pattern, made);
  }
  return made;
}

function match(pattern: string, name: string): Found | undefined {
  const { test, holes } = compile(pattern);
  const found = test.exec(name);
  if (!found) return undefined;
  const numbers = new Map(holes.map(({ letter, added }, i) => [letter, Number(found[i + 1]) - added]));
  return [...numbers.values()].some((n) => n < 0) ? undefined : { numbers, rest: found[holes.length + 1] ?? "" };
}

const fill = (pattern: string, { numbers, rest }: Found): string =>
  pattern.replace(hole, (_, letter: string, added = "0") => String((numbers.get(letter) ?? 0) + Number(added))) + rest;
