import type { TrainEvent } from "../train/run/events.ts";
import { count, table } from "./out.ts";

type Weights = TrainEvent & { type: "load"; what: "weights" };

/** What became of the weights that a run starts from, as lines for people. */
export function describeWeights({ from, convention, rows, totals }: Weights): string {
  const names = convention === "timm" ? "" : ` (${convention} names)`;
  const sums = Object.entries(totals).flatMap(([status, n]) => (n > 0 ? [`${count(n)} ${status}`] : []));
  return [
    `weights from ${from}${names}, parameters: ${sums.join(", ")}`,
    table(
      ["weights", "where", "tensors", "parameters", ""],
      rows.map(({ status, name, tensors, parameters, note }) => [
        status,
        name,
        String(tensors),
        parameters > 0 ? count(parameters) : "",
        note,
      ]),
    ),
  ].join("\n");
}

/** Said where most of the model is not from the file. */
export const weightsWarning = ({ share }: Weights): string | undefined =>
  share < 0.5 ? "less than half of the model comes from these weights: are they for another model?" : undefined;
