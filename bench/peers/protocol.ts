/**
 * How the race talks to a side, a child process that holds one model in one mode: a line of JSON each way.
 *
 *   side -> race   {"ready": "eager", "versions": {"torch": "..."}}   once, after its first step
 *   race -> side   {"run": 5}                                         take five steps, one after another
 *   side -> race   {"ms": [501.2, ...], "peakBytes": 1400000000}      each step's time; peak resident memory so far
 *
 * A step is one batch: a forward pass (inference), or forward, cross-entropy, backward and AdamW (training).
 * A side ends when its stdin does, writes nothing else to stdout, and uses no CPU between an answer and the next line.
 */
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

export interface Ready {
  ready: string;
  versions: Record<string, string>;
}

export interface Request {
  run: number;
}

export interface Reply {
  /** One entry a step, milliseconds a batch. */
  ms: number[];
  peakBytes: number;
}

/** A side written in Node: takes the first step, says it is ready, answers until stdin ends. */
export async function serve(ready: Ready, step: () => Promise<unknown>): Promise<void> {
  const say = (line: Ready | Reply) => process.stdout.write(`${JSON.stringify(line)}\n`);
  await step();
  say(ready);
  for await (const line of createInterface({ input: process.stdin })) {
    const { run } = JSON.parse(line) as Request;
    const ms: number[] = [];
    for (let i = 0; i < run; i++) {
      const start = performance.now();
      await step();
      ms.push(performance.now() - start);
    }
    say({ ms, peakBytes: peakBytes() });
  }
}

/** Peak resident memory of this process; Linux's own figure where there is one, since `maxRSS` starts from the parent's. */
export function peakBytes(): number {
  if (process.platform !== "linux") return process.resourceUsage().maxRSS * 1024;
  return Number(/VmHWM:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))![1]) * 1024;
}
