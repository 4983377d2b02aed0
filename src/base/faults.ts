import type { z } from "zod";
import { nearest } from "./errors.ts";

/**
 * What is wrong with a value that a schema refused, as it goes on behind its name: "is -3, expected at least 1".  `values` is what the
 * schema was given.
 */
export function describeIssue(issue: z.core.$ZodIssue, values: object): string {
  const came = issue.path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown>)?.[key], values);
  const got = came === undefined ? "nothing" : JSON.stringify(came);
  if (typeof came === "number" && !Number.isFinite(came)) return `is ${came}, expected a finite number`; // JSON has no ∞
  switch (issue.code) {
    case "invalid_type":
      return came === undefined ? "is missing" : `is ${got}, expected ${article(issue.expected)}`;
    case "invalid_union": {
      if (issue.message !== "Invalid input") return `is ${got}, expected ${issue.message}`;
      const kinds = issue.errors.flat().flatMap((e) => (e.code === "invalid_type" ? [article(e.expected)] : []));
      return `is ${got}, expected ${[...new Set(kinds)].join(" or ")}`;
    }
    case "too_small":
      if (came === "") return "is empty";
      return `is ${got}, expected ${issue.inclusive ? "at least" : "more than"} ${issue.minimum}${counted(came)}`;
    case "too_big":
      return `is ${got}, expected ${issue.inclusive ? "at most" : "less than"} ${issue.maximum}${counted(came)}`;
    case "invalid_value": {
      const choices = issue.values.map(String);
      const close = typeof came === "string" && choices.length > 6 ? nearest(came, choices) : choices;
      return `is ${got}, expected ${close.length > 1 ? "one of " : ""}${close.join(", ")}`;
    }
    default:
      return `is ${got}, expected ${issue.message}`;
  }
}

const counted = (value: unknown): string => (Array.isArray(value) ? " values" : "");

/** Types whose names say less than this. */
const plainly: Readonly<Record<string, string>> = {
  int: "a whole number",
  record: "pairs such as key=value,…",
  string: "text",
  boolean: "true or false",
  array: "a list",
  tuple: "a list",
};

const article = (type: string): string => plainly[type] ?? (/^[aeiou]/.test(type) ? `an ${type}` : `a ${type}`);
