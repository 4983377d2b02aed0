import { access } from "node:fs/promises";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { OrielError, UsageError } from "../base/errors.ts";
import { besideMissing } from "../weights/file-source.ts";

const imported: string[] = [];

const addressOf = (file: string): string => pathToFileURL(resolve(file)).href;

/** Runs a JavaScript file for what it does on being loaded: it registers models of one's own. */
export async function importFile(file: string): Promise<void> {
  const wrong = (message: string, cause?: unknown): UsageError =>
    new UsageError({ message: `--import ${file}: ${message}`, cause });
  await access(file).catch(async (cause) => {
    throw new UsageError({ message: `--import ${file}: no such file`, help: await besideMissing(file), cause });
  });
  // Where nothing is left to wait for, Node ends without a word.
  const stuck = (): void =>
    void process.stderr.write(`error: ${wrong("it waits for something that never comes").message}\n`);
  process.once("exit", stuck);
  try {
    await import(addressOf(file));
  } catch (cause) {
    if (cause instanceof OrielError) throw cause;
    throw wrong(String((cause as Error)?.message ?? cause), cause);
  } finally {
    process.off("exit", stuck);
  }
  imported.push(file);
}

/** What was imported, to be said again to another command. */
export const importFlags = (): string[] => imported.flatMap((file) => ["--import", file]);

/** What makes another process of Node load the same before it begins. */
export const nodeFlags = (): string[] => imported.flatMap((file) => ["--import", addressOf(file)]);
