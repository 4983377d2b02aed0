#!/usr/bin/env node
import { runCommandLine } from "./run.ts";

// A reader that has seen enough, such as `head`, is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1));

process.exitCode = await runCommandLine(process.argv.slice(2));

// Should a thread still hold the process: the work is done.
setTimeout(() => process.exit(), 1000).unref();
