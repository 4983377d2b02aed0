import type { ErrorFacts } from "../base/errors.ts";
import { textWidth } from "../base/text.ts";
import type { Interrupt } from "./interrupt.ts";

/** Where a command prints: results on stdout, everything else on stderr. */
export interface Out {
  /** Whether machines read the result. */
  readonly json: boolean;
  /** Asks that the first Ctrl-C only abort this signal, so that work under way can be saved. */
  stopSignal(): AbortSignal;
  /** The result: as JSON on one line when that was asked for, else as text for people. */
  result(value: unknown, text: () => string): void;
  /** What went wrong, where machines wait for a result and have none yet: { error: { code, message, help, … } }. */
  fault(facts: ErrorFacts & { code?: string }): void;
  /** A line on stderr. */
  note(line: string): void;
}

export function openOut({ json, interrupt }: { json: boolean; interrupt: Interrupt }): Out {
  let answered = false;
  const print = (text: string): void => {
    answered = true;
    process.stdout.write(`${text}\n`);
  };
  return {
    json,
    stopSignal: () => interrupt.signal(),
    result: (value, text) => print(json ? JSON.stringify(value) : text()),
    fault({ cause: _, ...error }) {
      if (json && !answered) print(JSON.stringify({ error }));
    },
    note: (line) => void process.stderr.write(`${line}\n`),
  };
}

const styles = { bold: [1, 22], dim: [2, 22], red: [31, 39], green: [32, 39], yellow: [33, 39] } as const;

/** Text with a style where people look at it: on a terminal, and unless NO_COLOR is set. */
export function styled(style: keyof typeof styles, text: string, stream: NodeJS.WriteStream = process.stdout): string {
  if (!stream.isTTY || process.env.NO_COLOR) return text;
  const [on, off] = styles[style];
  return `\u001b[${on}m${text}\u001b[${off}m`;
}

/** Rows under a head, columns as wide as their widest cell; columns that hold numbers are set to the right. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, i) => Math.max(...[title, ...rows.map((row) => row[i] ?? "")].map(textWidth)));
  const right = head.map(
    (_, i) => rows.length > 0 && rows.every((row) => /^$|^[-–]$|^[\d.,]+( ?[%A-Za-zµ/]+)?$/.test(row[i] ?? "")),
  );
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => pad(cell, widths[i], right[i]))
      .join("  ")
      .trimEnd();
  return [styled("bold", line(head)), ...rows.map(line)].join("\n");
}

/** A text and spaces, to fill so many columns. */
export function pad(text: string, width: number, right = false): string {
  const spaces = " ".repeat(Math.max(width - textWidth(text), 0));
  return right ? spaces + text : text + spaces;
}

/** 28288354 -> "28.29 M" */
export function count(n: number): string {
  const [unit, size] = n >= 1e9 ? [" G", 1e9] : n >= 1e6 ? [" M", 1e6] : n >= 1e4 ? [" k", 1e3] : ["", 1];
  return size === 1 ? String(n) : `${(n / size).toFixed(2)}${unit}`;
}

/** 3221225472 -> "3.00 GiB" */
export function bytes(n: number): string {
  const [unit, size] = n >= 2 ** 30 ? ["GiB", 2 ** 30] : n >= 2 ** 20 ? ["MiB", 2 ** 20] : ["KiB", 2 ** 10];
  return `${(n / size).toFixed(n / size >= 100 ? 0 : 2)} ${unit}`;
}

/** 0.9731 -> "97.3 %" */
export const percent = (share: number, digits = 1): string => `${(100 * share).toFixed(digits)} %`;

/** 75 -> "1 min 15 s" */
export function duration(seconds: number): string {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}
