import type { Command } from "./command.ts";

/** Every command, loaded when it is asked for. */
export const commands: Readonly<Record<string, () => Promise<{ default: Command }>>> = {
  models: () => import("./models.ts"),
  info: () => import("./info.ts"),
  train: () => import("./train.ts"),
  evaluate: () => import("./evaluate.ts"),
  predict: () => import("./predict.ts"),
  export: () => import("./export.ts"),
  convert: () => import("./convert.ts"),
  bench: () => import("./bench.ts"),
  systems: () => import("./systems.ts"),
  doctor: () => import("./doctor.ts"),
};
