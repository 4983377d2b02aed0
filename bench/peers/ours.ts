/** Our side of the race: `node ours.js MODEL --mode inference|training --batch N --threads N`; see protocol.ts. */
import { parseArgs } from "node:util";
import { openWorkload } from "../../src/cli/bench/workload.ts";
import { version } from "../../src/train/version.ts";
import { serve } from "./protocol.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    mode: { type: "string", default: "inference" },
    batch: { type: "string", default: "8" },
    threads: { type: "string", default: "2" },
  },
});
const mode = values.mode === "training" ? "training" : "inference";
const [batch, threads] = [values.batch, values.threads].map(Number);
const work = await openWorkload(positionals[0], mode, { batch, threads });
await serve({ ready: "ours", versions: { oriel: version } }, work.step);
await work.close();
