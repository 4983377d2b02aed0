import { closeSync, existsSync, openSync, readdirSync, rmdirSync, writeSync } from "node:fs";
import { access, constants, readdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { OrielError, UsageError } from "../../base/errors.ts";
import { makeFolder, writeFileSafely } from "../../weights/write-file.ts";
import { importedName } from "../checkpoint/imported.ts";
import { parseConfig, type TrainConfig } from "./config.ts";
import type { ResolvedConfig } from "./defaults.ts";
import type { TrainEvent } from "./events.ts";
import { holdFolder } from "./hold-folder.ts";

const files = {
  config: "config.json",
  metrics: "metrics.jsonl",
  last: "last.safetensors",
  best: "best.safetensors",
  onnx: "model.onnx",
  imported: importedName,
  evaluation: "evaluation.json",
  report: "report.html",
} as const;

/** Steps that `metrics.jsonl` tells of, at most; a longer run is thinned evenly. */
const mostSteps = 20_000;

/** What a run leaves behind. */
export class RunFolder {
  readonly path: string;
  #metrics?: number;
  #every = 1;
  #release?: () => void;
  /** Whether the folder was not there before. */
  #made = false;

  constructor(path: string) {
    this.path = path;
  }

  file(name: keyof typeof files): string {
    return join(this.path, files[name]);
  }

  has(name: keyof typeof files): boolean {
    return existsSync(this.file(name));
  }

  /** Makes the folder, or enters it to go on; a run that is there already is not written over, nor one under way written into. */
  async enter({ resume }: { resume: boolean }): Promise<void> {
    if (!resume && Object.keys(files).some((name) => this.has(name as keyof typeof files)))
      throw new UsageError({
        message: `${this.path} holds a run already`,
        help: "go on with it by --resume, or give another folder by --out",
      });
    try {
      this.#made = await makeFolder(this.path);
      await access(this.path, constants.W_OK);
      this.#release = holdFolder(this.path);
    } catch (cause) {
      if (cause instanceof OrielError) throw cause;
      const { code } = cause as NodeJS.ErrnoException;
      const reasons: Record<string, string> = {
        EACCES: "no permission",
        EPERM: "no permission",
        EROFS: "the disk is read-only",
        ENOENT: "the disk is read-only, or part of the path leads nowhere", // so Node says of folders within folders
        EEXIST: "a file of that name is there",
        ENOTDIR: "part of the path is a file",
        ENOSPC: "no space is left",
      };
      const reason = reasons[code ?? ""] ?? (cause as Error).message;
      throw new OrielError("not-writable", {
        message: `the run folder ${this.path} cannot be written: ${reason}`,
        help: "give another folder by --out",
        cause,
      });
    }
  }

  async writeConfig({ resume: _, ...config }: ResolvedConfig): Promise<void> {
    await this.writeText("config", `${JSON.stringify(config, null, 2)}\n`);
  }

  async writeText(name: keyof typeof files, text: string): Promise<void> {
    await writeFileSafely(this.file(name), [new TextEncoder().encode(text)]);
  }

  /** Opens `metrics.jsonl` at a step: what an earlier attempt wrote beyond it will happen again, so it is taken out. */
  async openMetrics({ step, steps }: { step: number; steps: number }): Promise<void> {
    this.#every = Math.max(1, Math.ceil(steps / mostSteps));
    const happened = (event: TrainEvent): boolean =>
      event.type === "step" || event.type === "epoch" ? event.step <= step : event.type === "skip";
    const kept = (await this.readMetrics()).filter(happened);
    await this.writeText("metrics", kept.map((event) => `${JSON.stringify(event)}\n`).join(""));
    this.#metrics = openSync(this.file("metrics"), "a");
  }

  /** Writes an event down, if it is worth keeping. */
  log(event: TrainEvent): void {
    if (this.#metrics === undefined || !this.#isKept(event)) return;
    try {
      writeSync(this.#metrics, `${JSON.stringify(event)}\n`);
    } catch (cause) {
      throw new OrielError("not-saved", {
        message: `${this.file("metrics")} cannot be written: ${(cause as Error).message}`,
        cause,
      });
    }
  }

  #isKept(event: TrainEvent): boolean {
    if (event.type === "step") return event.step % this.#every === 0;
    return event.type === "begin" || event.type === "epoch" || event.type === "skip" || event.type === "end";
  }

  /** The events of `metrics.jsonl`; a last line that a kill cut short is left out. */
  async readMetrics(): Promise<TrainEvent[]> {
    const text = await readFile(this.file("metrics"), "utf8").catch((cause: NodeJS.ErrnoException) => {
      if (cause.code === "ENOENT") return "";
      throw new OrielError("not-read", {
        message: `what the run wrote before cannot be read: ${cause.message}`,
        cause,
      });
    });
    return text.split("\n").flatMap((line) => {
      try {
        return line === "" ? [] : [JSON.parse(line) as TrainEvent];
      } catch {
        return [];
      }
    });
  }

  close(): void {
    if (this.#metrics !== undefined) closeSync(this.#metrics);
    this.#metrics = undefined;
    this.#release?.();
    this.#release = undefined;
    // A run that never began leaves its name free.
    if (this.#made && readdirSync(this.path).length === 0) rmdirSync(this.path);
  }
}

/** The folder of the run that a file belongs to, where it lies in one. */
export const runFolderOf = (file: string): string | undefined =>
  new RunFolder(dirname(file)).has("metrics") ? dirname(file) : undefined;

/** The config that a run folder was made with. */
export async function readRunConfig(folder: string): Promise<TrainConfig> {
  return readConfigFile(join(folder, files.config), `there is no run in ${folder}`);
}

/** A config in a file of any name; `absent` is what to say where there is none. */
export async function readConfigFile(path: string, absent = "no such file"): Promise<TrainConfig> {
  const text = await readFile(path, "utf8").catch((cause: NodeJS.ErrnoException) => {
    const isAbsent = cause.code === "ENOENT" || cause.code === "ENOTDIR";
    const message = isAbsent ? absent : `the config cannot be read: ${cause.message}`;
    throw new UsageError({ message, at: path, help: "give a run's config.json", cause });
  });
  try {
    return parseConfig(JSON.parse(text), path);
  } catch (cause) {
    if (cause instanceof OrielError) throw cause;
    throw new UsageError({ message: "the config is not JSON", at: path, cause });
  }
}

/** A folder for a run that was given none: runs/<model>, or the first of runs/<model>-2, -3, … that is free. */
export async function freeFolder(model: string): Promise<string> {
  const taken = new Set(await readdir("runs").catch(() => []));
  for (let n = 1; ; n++) {
    const name = n === 1 ? model : `${model}-${n}`;
    if (!taken.has(name)) return join("runs", name);
  }
}
