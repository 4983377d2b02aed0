/** What an error knows. The sentence is derived from it, so a page can draw the same facts better. */
export interface ErrorFacts {
  /** What was expected, what came. */
  message: string;
  /** Where: a module path, a file, a field. */
  at?: string;
  /** What to do about it. */
  help?: string;
  /** Anything else worth showing, one entry a line. */
  details?: readonly string[];
  cause?: unknown;
}

/** Every error that Oriel raises on purpose. `code` is stable and meant for programs, `message` for people. */
export class OrielError extends Error {
  readonly code: string;
  readonly facts: ErrorFacts;

  constructor(code: string, facts: ErrorFacts | string) {
    const f = typeof facts === "string" ? { message: facts } : facts;
    const lines = [f.at ? `${f.message} (at ${f.at})` : f.message];
    for (const detail of f.details ?? []) lines.push(`  ${detail}`);
    if (f.help) lines.push(`  help: ${f.help}`);
    super(lines.join("\n"), f.cause === undefined ? undefined : { cause: f.cause });
    this.name = "OrielError";
    this.code = code;
    this.facts = f;
  }
}

/** Shapes that do not fit an operation. */
export class ShapeError extends OrielError {
  constructor(facts: ErrorFacts | string) {
    super("shape", facts);
    this.name = "ShapeError";
  }
}

/** Something asked wrongly: an unknown name, a value out of range. The command line exits with 2. */
export class UsageError extends OrielError {
  constructor(facts: ErrorFacts | string) {
    super("usage", facts);
    this.name = "UsageError";
  }
}

/** An error in a message from one thread to another, which carries no classes. */
export interface WireError {
  code: string;
  facts: ErrorFacts;
}

/** `code` is that of errors that are not Oriel's. */
export function toWire(error: unknown, code: string): WireError {
  if (!(error instanceof OrielError))
    return {
      code,
      facts: error instanceof Error ? { message: error.message, cause: error } : { message: String(error) },
    };
  const { cause, ...facts } = error.facts;
  return { code: error.code, facts: cause instanceof Error ? { ...facts, cause } : facts };
}

export function fromWire({ code, facts }: WireError): OrielError {
  if (code === "usage") return new UsageError(facts);
  return code === "shape" ? new ShapeError(facts) : new OrielError(code, facts);
}

/** A fault of ours: the message asks for a report. */
export const internal = (message: string): OrielError => new OrielError("internal", `internal: ${message}`);

/** The names nearest to `name` by edit distance, best first; none that is much farther than the best. */
export const nearest = (name: string, choices: Iterable<string>, most = 3): string[] =>
  ranked(name, choices, most).map(({ choice }) => choice);

/** "did you mean vit_tiny?", of names so near that they may have been meant, before what else there is to say. */
export function didYouMean(name: string, choices: Iterable<string>, more = ""): string | undefined {
  const near = ranked(name, choices, 3).filter(({ distance }) => distance < 0.7 * name.length);
  const question = near.length > 0 ? `did you mean ${near.map(({ choice }) => choice).join(", ")}?` : "";
  return [question, more].filter(Boolean).join(" ") || undefined;
}

function ranked(name: string, choices: Iterable<string>, most: number): { choice: string; distance: number }[] {
  const wanted = name.toLowerCase();
  const sorted = [...choices]
    .map((choice) => ({ choice, distance: editDistance(wanted, choice.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance || a.choice.localeCompare(b.choice));
  return sorted.slice(0, most).filter(({ distance }) => distance <= sorted[0].distance + 2);
}

/** Levenshtein distance from what was written to what there is, one row at a time; what was left out costs less, at the end least. */
function editDistance(a: string, b: string): number {
  const leftOut = (i: number): number => (i === a.length ? 0.05 : 0.5);
  let row = Array.from({ length: b.length + 1 }, (_, j) => leftOut(0) * j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = a[i - 1] === b[j - 1] ? 0 : 1;
      next[j] = Math.min(row[j] + 1, next[j - 1] + leftOut(i), row[j - 1] + change);
    }
    row = next;
  }
  return row[b.length];
}
