import { after, describe, test } from "node:test";
import type { Runtime } from "../../src/runtime/runtime.ts";
import { runtimeCases } from "./suite.ts";

interface SuiteOptions {
  /** Cases by name that this runtime cannot pass, with the reason. */
  skip?: Readonly<Record<string, string>>;
  /** Why the runtime is not here at all. */
  missing?: string;
}

/** Every case as a test, on a runtime that opens with the first. */
export function runtimeSuite(
  name: string,
  open: () => Promise<Runtime>,
  { skip = {}, missing }: SuiteOptions = {},
): void {
  let opened: Promise<Runtime> | undefined;
  describe(`runtime: ${name}`, () => {
    for (const { name, run } of runtimeCases)
      test(name, { skip: missing ?? skip[name] }, async () => {
        opened ??= open();
        await run(await opened, open);
      });
    after(async () => (await opened)?.close());
  });
}
