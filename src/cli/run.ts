import { CommanderError, Command as Parser } from "commander";
import { didYouMean, OrielError, UsageError } from "../base/errors.ts";
import { version } from "../train/version.ts";
import type { Command } from "./command.ts";
import { commands } from "./commands.ts";
import { readConfig } from "./config.ts";
import { check, type Flag, flagsOf } from "./flags.ts";
import { importFile } from "./import.ts";
import { Interrupt } from "./interrupt.ts";
import { type Out, openOut, styled } from "./out.ts";

/** Runs one command line.  -> the exit status: 0, 1 (failed), 2 (asked wrongly), 130 or 143 (interrupted) */
export async function runCommandLine(words: readonly string[]): Promise<number> {
  const interrupt = new Interrupt();
  const out = openOut({ json: words.includes("--json"), interrupt });
  try {
    await (await makeParser(words, out)).parseAsync(words, { from: "user" });
    return interrupt.pressed ? interrupt.status : 0;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return 0; // help, or the version
    if (interrupt.pressed && (error as Error).name === "AbortError") return interrupt.status;
    return fail(error, out);
  }
}

async function makeParser(words: readonly string[], out: Out): Promise<Parser> {
  const parser = new Parser("oriel")
    .description("Build, train, evaluate and ship vision models on ONNX Runtime.")
    .version(version, "--version", "print the version")
    .helpOption("-h, --help", "show help")
    .helpCommand("help [command]", "show help for a command")
    .addHelpText("after", "\n`oriel <command> --help` has each command's flags and examples.\n");
  answer(parser, ["--version", "--help"]);
  // Only the command that is asked for is loaded; help wants them all.
  const wanted = words[0] !== undefined && Object.hasOwn(commands, words[0]) ? [words[0]] : Object.keys(commands);
  for (const name of wanted) addCommand(parser, (await commands[name]()).default, out);
  if (words.length === 0) parser.action(() => parser.outputHelp());
  return parser;
}

/** Lets the parser's complaints come to us as errors of ours, instead of being printed. */
function answer(parser: Parser, flags: readonly string[], command = "<command>"): void {
  parser.configureOutput({ writeErr: () => {} }).showSuggestionAfterError(false);
  parser.exitOverride((error) => {
    throw error.exitCode === 0 ? error : misunderstood(error, flags, command);
  });
}

function addCommand(parser: Parser, command: Command, out: Out): void {
  const sub = parser.command(command.name).summary(command.summary);
  sub.description([`${command.summary}.`, ...(command.details ? ["", command.details] : [])].join("\n"));
  for (const [name, { description, many, optional }] of Object.entries(command.args)) {
    const word = `${name}${many ? "..." : ""}`;
    sub.argument(optional ? `[${word}]` : `<${word}>`, description);
  }
  const flags = flagsOf(command.flags, Object.keys(command.args));
  const all = [
    ...flags.map((flag) => flag.name),
    "--config",
    "--json",
    "--help",
    ...(command.imports ? ["--import"] : []),
  ];
  answer(sub, all, command.name);
  for (const flag of flags) {
    const short = command.short?.[flag.key];
    sub.option(short ? `-${short}, ${flag.usage}` : flag.usage, flag.description);
  }
  const example = command.config ? ", such as a run folder's config.json" : "";
  if (flags.length > 0) sub.option("--config <file>", `take flags from a JSON file${example}`);
  if (command.imports)
    sub.option(
      "--import <file>",
      "a JavaScript file to load first, such as one that registers models of your own; once for each",
      (file: string, before: string[]) => [...before, file],
      [],
    );
  sub.option("--json", "print the result, or what went wrong, for machines");
  sub.helpOption("-h, --help", "show help");
  sub.addHelpText(
    "after",
    `\nExamples:\n${command.examples.map(([line, what]) => `  ${line}\n      ${what}`).join("\n")}\n`,
  );
  sub.action(async (...given: unknown[]) => {
    const words = given.slice(0, -2);
    const { config, import: files = [], ...texts } = given.at(-2) as { config?: string; import?: string[] };
    for (const file of files) await importFile(file);
    const asked: Record<string, unknown> = readFlags(flags, texts);
    Object.keys(command.args).forEach((name, i) => {
      if (words[i] !== undefined) asked[name] = words[i];
    });
    const input = await checkInput(command, asked, config);
    await command.run(input, out);
  });
}

/** What the parser found, by the schema's keys. */
function readFlags(flags: readonly Flag[], texts: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(
    flags.flatMap(({ key, read }) => {
      const text = texts[key];
      return text === undefined ? [] : [[key, typeof text === "string" ? read(text) : text]];
    }),
  );
}

/** Words and flags over those of a file, and these over what the command has below them, checked by the command's schema.  Arguments that it does not hold are taken as they are. */
async function checkInput(command: Command, asked: Record<string, unknown>, config: string | undefined) {
  const read = config === undefined ? undefined : await readConfig(config, command.flags);
  const fromFile = read && (command.config?.(read, { file: config as string, asked }) ?? read);
  const given = { ...fromFile, ...asked };
  const own = new Set(Object.keys(command.flags.shape));
  const values = Object.entries({ ...(await command.base?.(given)), ...given });
  const checked = check(command.flags, Object.fromEntries(values.filter(([key]) => own.has(key))), {
    args: Object.keys(command.args),
  });
  return { ...Object.fromEntries(values.filter(([key]) => !own.has(key))), ...checked } as Parameters<
    Command["run"]
  >[0];
}

/** Prints a fault as people should read it, and its facts where machines wait for a result.  -> the exit status */
function fail(error: unknown, out: Out): number {
  out.fault(error instanceof OrielError ? { code: error.code, ...error.facts } : { message: String(error) });
  const say = (text: string): void => void process.stderr.write(`${text}\n`);
  if (process.env.ORIEL_DEBUG) say(error instanceof Error ? (error.stack ?? error.message) : String(error));
  else if (error instanceof OrielError) {
    const [first, ...rest] = error.message.split("\n");
    say([`${styled("red", "error:", process.stderr)} ${first}`, ...rest].join("\n"));
  } else {
    say(`${styled("red", "error:", process.stderr)} ${error instanceof Error ? error.message : error}`);
    say("  help: ORIEL_DEBUG=1 shows where it comes from");
  }
  return error instanceof UsageError || (error instanceof OrielError && error.code === "not-found") ? 2 : 1;
}

/** The parser's complaint in our words, with the nearest names. */
function misunderstood(error: CommanderError, flags: readonly string[], command: string): UsageError {
  const message = error.message.replace(/^error: /, "").split("\n")[0];
  const [, name = ""] = /'([^']+)'/.exec(message) ?? [];
  if (error.code === "commander.help")
    return new UsageError({ message: "there is no such command", help: "`oriel --help` lists all" });
  if (error.code === "commander.unknownCommand") {
    return new UsageError({
      message: `there is no command "${name}"`,
      help: didYouMean(name, Object.keys(commands), "`oriel --help` lists all"),
    });
  }
  if (error.code === "commander.unknownOption") {
    return new UsageError({
      message: `there is no flag ${name}`,
      help: didYouMean(name, flags, `\`oriel ${command} --help\` lists all`),
    });
  }
  const help = `\`oriel ${command} --help\` shows what ${command === "<command>" ? "a command" : "it"} takes`;
  if (error.code === "commander.missingArgument")
    return new UsageError({ message: `${command} lacks its <${name}>`, help });
  return new UsageError({ message, help });
}
