import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** Seen from dist/tests/weights. */
const repository = fileURLToPath(new URL("../../../", import.meta.url));

/** A file that `files/make.py` wrote. */
export const madeFile = (name: string) => `${repository}tests/weights/files/${name}`;

/** A published checkpoint beside the repository, and why its test is skipped when it is absent. */
export function sharedCheckpoint(name: string): { path: string; skip: string | false } {
  const path = `${process.env.ORIEL_SHARED ?? `${repository}../shared`}/checkpoints/${name}`;
  return {
    path,
    skip: existsSync(path) ? false : `${name} is not there: set ORIEL_SHARED to the folder that holds checkpoints/`,
  };
}
