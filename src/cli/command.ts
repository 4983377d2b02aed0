import { z } from "zod";
import type { Out } from "./out.ts";

/** A word that stands after a command's name. */
export interface Argument<Many extends boolean = boolean, Optional extends boolean = boolean> {
  description: string;
  many: Many;
  optional: Optional;
}

/** `<name>` */
export const arg = (description: string): Argument<false, false> => ({ description, many: false, optional: false });
/** `[name]` */
export const maybe = (description: string): Argument<false, true> => ({ description, many: false, optional: true });
/** `<name...>` */
export const several = (description: string): Argument<true, false> => ({ description, many: true, optional: false });

type Arguments = Readonly<Record<string, Argument>>;
type Values<A extends Arguments> = {
  [K in keyof A]: A[K] extends Argument<true>
    ? string[]
    : A[K] extends Argument<false, true>
      ? string | undefined
      : string;
};

/** What a command is made of.  Arguments come in the order of their keys; flags are the keys of a schema, `imageSize` being `--image-size`. */
export interface CommandSpec<A extends Arguments, F extends z.ZodObject> {
  name: string;
  summary: string;
  /** What else a newcomer wants to know, below the summary in the command's help. */
  details?: string;
  args: A;
  flags: F;
  /** Takes `--import FILE`, since it finds models by their names: a file may register some of one's own. */
  imports?: true;
  /** Flags that may also be written `-m`. */
  short?: Readonly<Record<string, string>>;
  /** Changes what `--config FILE`, which every command takes with its flags' keys, gives, before flags stand above it. */
  config?: (
    values: Readonly<Record<string, unknown>>,
    context: { file: string; asked: Readonly<Record<string, unknown>> },
  ) => Record<string, unknown>;
  /** What stands below all that was given. */
  base?: (given: Readonly<Record<string, unknown>>) => Promise<Record<string, unknown>>;
  /** Whole command lines, each with what it does. */
  examples: readonly (readonly [line: string, what: string])[];
  run(input: Values<A> & z.output<F>, out: Out): Promise<void>;
}

/** A command whose types have been checked. */
export type Command = CommandSpec<Arguments, z.ZodObject>;

/** A command: parses by its schema, calls what the library exports, prints. */
export function defineCommand<A extends Arguments, F extends z.ZodObject>(spec: CommandSpec<A, F>): Command {
  return spec as unknown as Command;
}

/** Runs side by side, of the commands that judge pictures. */
export const streams = z
  .int()
  .min(1)
  .optional()
  .describe("runs side by side on the processor, each with the weights in memory; one for each thread, at most four");

/** Flags that several commands share. */
export const shared = {
  device: z.enum(["cpu", "webgpu", "cuda", "auto"]).default("cpu").describe("where to run"),
  threads: z.int().min(1).optional().describe("threads of the engine; one for each core"),
};
