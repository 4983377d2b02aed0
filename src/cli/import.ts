import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { OrielError, UsageError } from "../base/errors.ts";

const imported: string[] = [];

const addressOf = (file: string): string => pathToFileURL(resolve(file)).href;

/** Runs a JavaScript file for what it does on being loaded: it registers models of one's own. */
export async function importFile(file: string): Promise<void> {
  try {
    await import(addressOf(file));
  } catch (cause) {
    if (cause instanceof OrielError) throw cause;
    throw new UsageError({ message: `--import ${file}: ${(cause as Error).message ?? cause}`, cause });
  }
  imported.push(file);
}

/** What was imported, to be said again to another command. */
export const importFlags = (): string[] => imported.flatMap((file) => ["--import", file]);

/** What makes another process of Node load the same before it begins. */
export const nodeFlags = (): string[] => imported.flatMap((file) => ["--import", addressOf(file)]);
