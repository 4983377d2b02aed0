import { OrielError } from "../../base/errors.ts";
import { sameShape } from "../../graph/shape.ts";
import type { Fit } from "../../weights/fit.ts";

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

/** What two sides are, for the message. */
interface Sides {
  model: string;
  path: string;
  /** The model that the file says it is for. */
  holds?: string;
}

/** Throws with all differences at once, and says what each side is. */
export function checkMatch(wanted: Shapes, found: Shapes, sides: Sides): void {
  refuse(differences(wanted, found), sides);
}

/** Throws where weights do not fit a model whole; a classifier for other classes may. */
export function checkFit({ entries }: Fit, sides: Sides): void {
  const details = entries.flatMap(({ status, name, shape, from, why }) => {
    if (status === "left over") return [`${name} [${shape}] is in the file only`];
    if (status !== "reset" || why === "other classes") return [];
    return [
      from ? `${name} is [${shape}] in the model, [${from}] in the file` : `${name} [${shape}] is not in the file`,
    ];
  });
  refuse(details, sides);
}

function refuse(details: readonly string[], { model, path, holds }: Sides): void {
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
