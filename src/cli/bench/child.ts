/** A process that measures one thing and sends the result to the one that forked it. */
import { OrielError } from "../../base/errors.ts";
import { type MeasureOptions, measure } from "./measure.ts";

// Ends with the one that forked it, however that ends.
process.on("disconnect", () => process.exit());
if (!process.connected) process.exit();

async function answer(): Promise<unknown> {
  try {
    return { measured: await measure(JSON.parse(process.argv[2]) as MeasureOptions) };
  } catch (error) {
    const known = error instanceof OrielError;
    return { error: known ? { code: error.code, facts: error.facts } : { message: (error as Error).message } };
  }
}

const message = await answer();
process.send!(message, () => process.disconnect());
