import { UsageError } from "../src/base/errors.ts";
import { openNode } from "../src/runtime/node.ts";
import {
  checkGolden,
  errorOf,
  type GoldenResult,
  median,
  readGolden,
  type StepErrors,
  show,
  worst,
} from "./golden-check.ts";

// npm run golden -- FILE…: checks models against what their reference implementations answered.
// Exits with 1 where one fails, or does not exist under --strict; with 2 where a file cannot be read.

const args = process.argv.slice(2);
const strict = args.includes("--strict");
const files = args.filter((arg) => arg !== "--strict");

function line({ name, problems, exact, ...inFloat32 }: GoldenResult): string {
  if (inFloat32.gradients.length === 0) return `${name}: FAILED`;
  const verdict = `${name}: ${problems.length === 0 ? "passed" : "FAILED"}  ${errors(inFloat32)}`;
  return exact ? `${verdict}\n  in float64: ${errors(exact)}` : verdict;
}

function errors({ logits, loss, gradients }: StepErrors): string {
  const furthest = worst(gradients);
  return [
    `logits ${show(logits)}`,
    `loss ${show(loss)}`,
    `worst gradient ${show(errorOf(furthest))} (${furthest.path})`,
    `median ${show(median(gradients.map(errorOf)))}`,
  ].join("  ");
}

async function main(): Promise<number> {
  const unknown = files.filter((file) => file.startsWith("-"));
  if (files.length === 0 || unknown.length > 0)
    throw new UsageError({
      message: unknown.length > 0 ? `there is no option ${unknown[0]}` : "no file is given",
      help: "npm run golden -- [--strict] FILE…",
    });
  const read = await Promise.allSettled(files.map(readGolden));
  const broken = read.flatMap((r) => (r.status === "rejected" ? [r.reason] : []));
  for (const error of broken) console.error(error instanceof UsageError ? error.message : error);

  const runtime = await openNode();
  const counts = { passed: 0, failed: 0, skipped: 0 };
  for (const golden of read.flatMap((r) => (r.status === "fulfilled" ? [r.value] : []))) {
    const result = await checkGolden(golden, runtime).catch((error: Error): GoldenResult => {
      return { name: golden.name, smooth: true, logits: NaN, loss: NaN, gradients: [], problems: [error.message] };
    });
    if (!result) {
      counts.skipped++;
      console.log(`${golden.name}: skipped, there is no such model`);
      continue;
    }
    counts[result.problems.length === 0 ? "passed" : "failed"]++;
    console.log(line(result));
    for (const problem of result.problems.slice(0, 8)) console.log(`  ${problem}`);
    if (result.problems.length > 8) console.log(`  and ${result.problems.length - 8} more`);
  }
  await runtime.close();
  console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
  if (broken.length > 0) return 2;
  return counts.failed > 0 || (strict && counts.skipped > 0) ? 1 : 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  console.error(error.message);
  process.exitCode = 2;
}
