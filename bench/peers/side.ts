/** A child process that takes part in the race, as race.ts sees it. */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import type { Ready, Reply, Request } from "./protocol.ts";

export class Side {
  readonly name: string;
  readonly versions: Record<string, string>;
  /** From the start of its process, imports and compilation included, to the end of its first step. */
  readonly firstStepSeconds: number;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;
  readonly #errors: string[];

  private constructor(name: string, ready: Ready, seconds: number, started: Started) {
    this.name = name;
    this.versions = ready.versions;
    this.firstStepSeconds = seconds;
    this.#child = started.child;
    this.#lines = started.lines;
    this.#errors = started.errors;
  }

  /** Starts a side and waits for its first step; throws with the last lines of its stderr when it ends before. */
  static async start(name: string, command: string, args: readonly string[], threads: number): Promise<Side> {
    const begin = performance.now();
    const started = startChild(command, args, threads);
    const ready = await answer<Ready>(name, started.lines, started.errors);
    return new Side(name, ready, (performance.now() - begin) / 1000, started);
  }

  async run(steps: number): Promise<Reply> {
    this.#child.stdin.write(`${JSON.stringify({ run: steps } satisfies Request)}\n`);
    return answer<Reply>(this.name, this.#lines, this.#errors);
  }

  /** Seconds of CPU that the process has used, to see that it rests while others run; 0 where the system has no /proc. */
  cpuSeconds(): number {
    if (process.platform !== "linux") return 0;
    const stat = readFileSync(`/proc/${this.#child.pid}/stat`, "utf8");
    // The fields after the name, which may hold spaces: user and system time are the 14th and 15th, in hundredths.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return (Number(fields[11]) + Number(fields[12])) / 100;
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const exited = new Promise((resolve) => this.#child.once("exit", resolve));
    this.#child.stdin.end();
    const impatient = setTimeout(() => this.#child.kill(), 5000);
    await exited;
    clearTimeout(impatient);
  }
}

interface Started {
  child: ChildProcessWithoutNullStreams;
  lines: AsyncIterator<string>;
  /** The last lines of stderr. */
  errors: string[];
}

function startChild(command: string, args: readonly string[], threads: number): Started {
  const child = spawn(command, args, { env: { ...process.env, OMP_NUM_THREADS: String(threads) } });
  const errors: string[] = [];
  child.on("error", (error) => errors.push(error.message));
  child.stdin.on("error", () => {}); // a side that died is reported by what it does not answer
  createInterface({ input: child.stderr }).on("line", (line) => {
    errors.push(line);
    if (errors.length > 12) errors.shift();
  });
  return { child, errors, lines: createInterface({ input: child.stdout })[Symbol.asyncIterator]() };
}

async function answer<T>(name: string, lines: AsyncIterator<string>, errors: readonly string[]): Promise<T> {
  const { value, done } = await lines.next();
  if (!done) return JSON.parse(value) as T;
  await new Promise((resolve) => setTimeout(resolve, 100)); // the last of stderr may still be on its way
  throw new Error(`${name} ended without an answer\n${errors.map((line) => `    ${line}`).join("\n")}`);
}
