#!/usr/bin/env node
import { runCommandLine } from "./run.ts";

process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0); // a reader that has seen enough, such as `head`, is no failure
  process.stderr.write(`error: the result cannot be written: ${error.message}\n`);
  process.exit(1);
});

// Work goes on when nobody reads any more how it goes.
process.stderr.on("error", () => {});

process.exitCode = await runCommandLine(process.argv.slice(2));

// Should a thread still hold the process: the work is done.
setTimeout(() => process.exit(), 1000).unref();
