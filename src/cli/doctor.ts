import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism, cpus, freemem, totalmem } from "node:os";
import { z } from "zod";
import { OrielError } from "../base/errors.ts";
import { nodeDevices } from "../runtime/node.ts";
import { version } from "../train/version.ts";
import { defineCommand } from "./command.ts";
import { bytes, styled, table } from "./out.ts";

/** One thing looked at: what was found, and what to do where that is not enough. */
interface Finding {
  what: string;
  state: "ok" | "missing" | "note";
  found: string;
  mend?: string;
}

export default defineCommand({
  name: "doctor",
  summary: "What this machine can run, and what is missing",
  details: "Exits with 1 when something that every run needs is missing; a device that is not there is only told.",
  args: {},
  flags: z.object({}),
  examples: [["oriel doctor", "one line for each thing, with the mend where there is one"]],
  async run(_, out) {
    const findings = [...machine(), await pictures(), ...(await engine())];
    out.result(findings, () => {
      const signs = { ok: styled("green", "✓"), missing: styled("red", "✗"), note: styled("yellow", "·") };
      const rows = findings.map(({ what, state, found, mend }) => [
        signs[state],
        what,
        mend ? `${found}: ${mend}` : found,
      ]);
      return table(["", "", `Oriel ${version}`], rows);
    });
    const missing = findings.filter(({ state }) => state === "missing").map(({ what }) => what);
    if (missing.length > 0) throw new OrielError("doctor", `what every run needs is missing: ${missing.join(", ")}`);
  },
});

/** Memory below which training at 224 pixels is hard. */
const comfortable = 4 * 2 ** 30;

function machine(): Finding[] {
  const cores = availableParallelism();
  const little = totalmem() < comfortable;
  return [
    { what: "Node", state: "ok", found: `${process.versions.node} on ${process.platform} ${process.arch}` },
    { what: "cores", state: "ok", found: `${cores}, ${cpus()[0]?.model.trim() ?? "of an unknown kind"}` },
    {
      what: "memory",
      state: little ? "note" : "ok",
      found: `${bytes(totalmem())}, ${bytes(freemem())} free`,
      ...(little ? { mend: "train with a small --batch, or --accumulate" } : {}),
    },
  ];
}

/** The package that decodes pictures. */
async function pictures(): Promise<Finding> {
  try {
    const { default: sharp } = await import("sharp");
    return { what: "pictures", state: "ok", found: `sharp ${sharp.versions.sharp}, libvips ${sharp.versions.vips}` };
  } catch (error) {
    const [reason] = (error as Error).message.split("\n");
    return { what: "pictures", state: "missing", found: `sharp does not load (${reason})`, mend: "npm install sharp" };
  }
}

async function engine(): Promise<Finding[]> {
  const findings: Finding[] = [];
  try {
    const path = createRequire(import.meta.url).resolve("onnxruntime-node/package.json");
    const { version } = JSON.parse(readFileSync(path, "utf8"));
    findings.push({ what: "engine", state: "ok", found: `onnxruntime-node ${version}` });
  } catch {
    findings.push({
      what: "engine",
      state: "missing",
      found: "onnxruntime-node is not installed",
      mend: "npm install onnxruntime-node",
    });
    return findings;
  }
  for (const { device, usable, note } of await nodeDevices()) {
    const state = usable && !note ? "ok" : device === "cpu" ? "missing" : "note";
    findings.push({
      what: `device ${device}`,
      state,
      found: usable ? (note ? `usable, but ${note}` : "usable") : (note ?? "not usable"),
    });
  }
  return findings;
}
