import { z } from "zod";
import { didYouMean, UsageError } from "../base/errors.ts";
import { describeIssue } from "../base/faults.ts";
import { kebabCase } from "../base/options.ts";

/** What is needed of JSON Schema to turn words into values. */
interface Schema {
  type?: "string" | "number" | "integer" | "boolean" | "array" | "object" | "null";
  enum?: readonly unknown[];
  const?: unknown;
  anyOf?: readonly Schema[];
  items?: Schema | boolean;
  prefixItems?: readonly Schema[];
  description?: string;
  default?: unknown;
}

/** One flag, as help shows it and as its words are read. */
export interface Flag {
  key: string;
  /** `--image-size` */
  name: string;
  /** `--image-size <n>`, `--flip`, `--no-flip` */
  usage: string;
  description: string;
  isBoolean: boolean;
  read(text: string): unknown;
}

export const flagName = (key: string): string => `--${kebabCase(key)}`;

/** The flags of a schema, one for each key that is no argument. */
export function flagsOf(schema: z.ZodObject, without: readonly string[] = []): Flag[] {
  const { properties } = z.toJSONSchema(schema, { io: "input", unrepresentable: "any" });
  return Object.entries(properties as Record<string, Schema>)
    .filter(([key]) => !without.includes(key))
    .map(([key, property]) => {
      const isBoolean = property.type === "boolean";
      const on = property.default === true;
      const name = flagName(key);
      const usage = isBoolean ? (on ? name.replace("--", "--no-") : name) : `${name} <${placeholder(property)}>`;
      return { key, name, usage, description: describe(property, on), isBoolean, read: (text) => read(property, text) };
    });
}

function describe({ description = "", default: value, enum: choices }: Schema, on: boolean): string {
  const text = choices ? `${description}: ${choices.join(", ")}` : description;
  if (on || value === undefined || value === false || value === null) return text;
  const shown = typeof value === "object" ? Object.values(value).join(",") : String(value);
  return shown === "" ? text : `${text} (${shown})`;
}

function placeholder({ type, enum: choices, anyOf, items, prefixItems }: Schema): string {
  if (choices) return "name";
  if (anyOf) return [...new Set(anyOf.filter((s) => s.type !== "null").map(placeholder))].join("|");
  if (type === "array") return `${placeholder(prefixItems?.[0] ?? itemsOf({ items }))},…`;
  return type === "number" || type === "integer" ? "n" : type === "object" ? "key=value,…" : "text";
}

/** A word as the schema wants it; one that does not fit stays text, so that the schema's own check says what is wrong. */
function read(schema: Schema, text: string): unknown {
  if (schema.anyOf) {
    // Any word is a text, so text comes last.
    for (const choice of schema.anyOf.toSorted((a, b) => Number(a.type === "string") - Number(b.type === "string"))) {
      const value = read(choice, text);
      if (fits(choice, value)) return value;
    }
    return text;
  }
  switch (schema.type) {
    case "number":
    case "integer":
      return text.trim() !== "" && !Number.isNaN(Number(text)) ? Number(text) : text;
    case "boolean":
      return text === "true" ? true : text === "false" ? false : text;
    case "array":
      return text.split(",").map((part, i) => read(schema.prefixItems?.[i] ?? itemsOf(schema), part.trim()));
    case "object":
      return text.trimStart().startsWith("{") ? parseJson(text) : readPairs(text);
    default:
      return text;
  }
}

const itemsOf = ({ items }: Schema): Schema => (typeof items === "object" ? items : {});

function fits({ type, enum: choices, const: only }: Schema, value: unknown): boolean {
  if (choices) return choices.includes(value);
  if (only !== undefined) return value === only;
  if (type === "integer") return Number.isInteger(value);
  if (type === "array") return Array.isArray(value) && value.length > 1;
  return type === undefined || typeof value === type;
}

/** `directions=vertical,depth=3` */
function readPairs(text: string): unknown {
  const pairs = text.split(",").map((pair) => pair.split("="));
  if (pairs.some((pair) => pair.length !== 2)) return text;
  return Object.fromEntries(pairs.map(([key, value]) => [key.trim(), anyOf(value.trim())]));
}

const anyOf = (text: string): unknown =>
  read({ anyOf: [{ type: "number" }, { type: "boolean" }, { type: "string" }] }, text);

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Checks values by a schema.  All faults are told at once, each by the flag or the key of the file that it came from. */
export function check<S extends z.ZodObject>(
  schema: S,
  values: object,
  { file, args = [] }: { file?: string; args?: readonly string[] } = {},
): z.output<S> {
  const result = schema.safeParse(values);
  if (result.success) return result.data;
  const known = Object.keys(schema.shape);
  const faults = result.error.issues.flatMap((issue) =>
    issue.code === "unrecognized_keys"
      ? issue.keys.map(
          (key) => `${key}: there is no such key; ${didYouMean(key, known) ?? `there are ${known.join(", ")}`}`,
        )
      : [`${nameOf(issue.path, file, args)} ${describeIssue(issue, values)}${wanted(schema, issue, values)}`],
  );
  const where = file ? `in ${file}` : "in the command";
  throw new UsageError(
    faults.length === 1
      ? { message: faults[0], at: file }
      : { message: `${faults.length} values ${where} cannot be used`, details: faults },
  );
}

/** What a value is for that nobody gave: its description. */
function wanted({ shape }: z.ZodObject, { path }: z.core.$ZodIssue, values: object): string {
  const [key] = path as (keyof typeof values)[];
  const description = path.length === 1 && values[key] === undefined && shape[key]?.description;
  return description ? `: ${description}` : "";
}

function nameOf(path: readonly PropertyKey[], file: string | undefined, args: readonly string[]): string {
  const [key, ...rest] = path.map(String);
  return [file ? key : args.includes(key) ? `<${key}>` : flagName(key), ...rest].join(".");
}
