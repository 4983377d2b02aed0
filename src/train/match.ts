import { OrielError } from "../base/errors.ts";

type Shapes = ReadonlyMap<string, { readonly shape: readonly number[] }>;

/** How the tensors of a file differ from those that a model wants, one line each; none where they agree. */
export function differences(wanted: Shapes, found: Shapes): string[] {
  const lines: string[] = [];
  for (const [name, { shape }] of wanted) {
    const other = found.get(name);
    if (!other) lines.push(`${name} [${shape}] is not in the file`);
    else if (!sameShape(shape, other.shape))
      lines.push(`${name} is [${shape}] in the model, [${other.shape}] in the file`);
  }
  for (const [name, { shape }] of found) if (!wanted.has(name)) lines.push(`${name} [${shape}] is in the file only`);
  return lines;
}

export const sameShape = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((size, i) => size === b[i]);

/** Throws with all differences at once, and says what each side is. */
export function checkMatch(
  wanted: Shapes,
  found: Shapes,
  { model, path, holds }: { model: string; path: string; holds?: string },
): void {
  const details = differences(wanted, found);
  if (details.length === 0) return;
  const what =
    holds === undefined
      ? ""
      : holds === model
        ? `; the file says it holds ${holds}, made differently`
        : `; the file says it holds ${holds}`;
  throw new OrielError("mismatch", {
    message: `${details.length} tensors differ from those of ${model}${what}`,
    at: path,
    details,
    help: holds !== undefined && holds !== model ? `use it with --model ${holds}` : "take the checkpoint of this model",
  });
}
