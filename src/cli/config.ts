import { readFile } from "node:fs/promises";
import type { z } from "zod";
import { UsageError } from "../base/errors.ts";
import { camelCase } from "../base/options.ts";
import { check } from "./flags.ts";

/** The values of a JSON file, checked by a schema of which it may hold any part.  Keys may be written as flags are: `image-size`. */
export async function readConfig(file: string, schema: z.ZodObject): Promise<Record<string, unknown>> {
  const text = await readFile(file, "utf8").catch((cause) => {
    throw new UsageError({
      message:
        cause.code === "ENOENT" ? "there is no such file" : `the file cannot be read: ${cause.code ?? cause.message}`,
      at: file,
      cause,
    });
  });
  let read: unknown;
  try {
    read = JSON.parse(text.replace(/^\uFEFF/, "")); // as editors on Windows begin a file
  } catch (cause) {
    throw new UsageError({ message: `not JSON: ${(cause as Error).message}`, at: file, cause });
  }
  if (typeof read !== "object" || read === null || Array.isArray(read))
    throw new UsageError({ message: "expected an object with a flag's name for each key", at: file });
  const values = Object.fromEntries(Object.entries(read).map(([name, value]) => [camelCase(name), value]));
  check(schema.partial().strict(), values, { file });
  return values;
}
