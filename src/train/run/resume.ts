import { join } from "node:path";
import { findModel } from "../../backbones/index.ts";
import { UsageError } from "../../base/errors.ts";
import { openCheckpoint } from "../checkpoint/checkpoint.ts";
import { isOnnx, stemOf } from "../checkpoint/imported.ts";
import { parseConfig, type TrainConfig, type TrainConfigInput } from "./config.ts";
import type { Change } from "./events.ts";
import { RunFolder, readRunConfig } from "./run-folder.ts";

/** What it takes to go on with a run: its folder, and what is to change. */
export type ResumeInput = Partial<TrainConfigInput> & { out: string; resume: true };

/** What the run was told that `given` is to go on with; what is given stands above it. */
export async function resumedConfig(given: Partial<TrainConfigInput>): Promise<TrainConfig & { out: string }> {
  const out = join(given.out ?? (await usualFolder(given.model)), ".");
  const before = { ...(await configOf(out)), out };
  const { lr } = given;
  // The lowest rate follows lr, as it does by default.
  if (typeof lr === "number" && before.lr !== undefined && before.minLr === before.lr / 100) before.minLr = lr / 100;
  return before;
}

async function usualFolder(model: string | undefined): Promise<string> {
  if (model === undefined)
    throw new UsageError({ message: "--resume does not say which run is to go on", help: "give its folder by --out" });
  return join("runs", isOnnx(model) ? stemOf(model) : (await findModel(model)).name);
}

async function configOf(out: string): Promise<TrainConfig> {
  const folder = new RunFolder(out);
  if (folder.has("config")) return readRunConfig(out);
  const last = folder.file("last");
  if (folder.has("last")) return parseConfig((await openCheckpoint(last)).metadata.config, last);
  throw new UsageError({
    message: `there is no run in ${out} to go on with`,
    help: "give the run's folder by --out, or leave --resume out to begin one",
  });
}

/** What two configs of a run differ in, but for where it lies. */
export function changesOf(before: TrainConfig, now: TrainConfig): Change[] {
  const keys = new Set([...Object.keys(before), ...Object.keys(now)]) as Set<keyof TrainConfig>;
  return [...keys]
    .filter((key) => key !== "out" && key !== "resume" && JSON.stringify(before[key]) !== JSON.stringify(now[key]))
    .map((key) => ({ key, was: before[key], is: now[key] }));
}
