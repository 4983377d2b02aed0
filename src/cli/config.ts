import { readFile } from "node:fs/promises";
import type { z } from "zod";
import { UsageError } from "../base/errors.ts";
import { check } from "./flags.ts";

/** The values of a JSON file, checked by a schema of which it may hold any part. */
export async function readConfig(file: string, schema: z.ZodObject): Promise<Record<string, unknown>> {
  const text = await readFile(file, "utf8").catch((cause) => {
    throw new UsageError({
      message:
        cause.code === "ENOENT" ? "there is no such file" : `the file cannot be read: ${cause.code ?? cause.message}`,
      at: file,
      cause,
    });
  });
  let values: unknown;
  try {
    values = JSON.parse(text);
  } catch (cause) {
    throw new UsageError({ message: `not JSON: ${(cause as Error).message}`, at: file, cause });
  }
  if (typeof values !== "object" || values === null || Array.isArray(values))
    throw new UsageError({ message: "expected an object with a flag's name for each key", at: file });
  check(schema.partial().strict(), values, { file });
  return values as Record<string, unknown>;
}
