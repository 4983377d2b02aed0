import { nearest, UsageError } from "../../base/errors.ts";

/** Whether a parameter belongs to a classifier. */
export const isHead = (path: string, heads: readonly string[]): boolean =>
  heads.some((head) => path.startsWith(`${head}.`));

/**
 * Chooses parameters by path.  A pattern is a path, which stands for all below it, with `*` for anything: `layers.0`, `*.bias`.
 * `backbone` is everything but the classifiers, whose paths are `heads`.
 */
export function frozenBy(
  patterns: readonly string[],
  paths: readonly string[],
  heads: readonly string[],
): (path: string) => boolean {
  const tests = patterns.map((pattern) => {
    const test = pattern === "backbone" ? (path: string) => !isHead(path, heads) : matcher(pattern);
    if (paths.some(test)) return test;
    throw new UsageError({
      message: `no parameter matches "${pattern}", so nothing would be frozen`,
      help: `the nearest paths are ${nearest(pattern, paths).join(", ")}`,
    });
  });
  return (path) => tests.some((test) => test(path));
}

function matcher(pattern: string): (path: string) => boolean {
  const source = pattern
    .split("*")
    .map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"))
    .join(".*");
  const regexp = new RegExp(`^${source}(\\.|$)`);
  return (path) => regexp.test(path);
}
