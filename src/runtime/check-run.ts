import { OrielError, UsageError } from "../base/errors.ts";
import { zerosOf } from "../graph/dtype.ts";
import { DeviceTensor, type Feeds, type Port, type RunOptions } from "./runtime.ts";

/** Throws where feeds and options do not fit a program: all that is wrong with them at once. */
export function checkRun(
  { inputs, outputs }: { inputs: readonly Port[]; outputs: readonly Port[] },
  feeds: Feeds,
  { outputs: wanted, keep = [] }: RunOptions,
): void {
  const details = [...missing(inputs, feeds), ...misfits(inputs, feeds)];
  const given = new Set(outputs.map((port) => port.name));
  const computed = wanted ? new Set(wanted) : given;
  for (const name of computed) if (!given.has(name)) details.push(`there is no output "${name}"`);
  if (computed.size === 0) details.push("no output is asked for");
  for (const name of keep)
    if (!computed.has(name)) details.push(`"${name}" is to be kept, but is not among the outputs`);
  if (details.length === 0) return;
  throw new UsageError({
    message: details.length === 1 ? `the program cannot run: ${details[0]}` : "the program cannot run",
    details: details.length === 1 ? [] : details.slice(0, 12),
    help: `it reads ${names(inputs)} and gives ${names(outputs)}`,
  });
}

/** What is told of a tensor that another runtime made. */
export const foreignTensor = ({ dtype, shape }: DeviceTensor): OrielError =>
  new OrielError("runtime", {
    message: `a device tensor ${dtype} [${shape.join(", ")}] belongs to another runtime`,
    help: "read it there and upload it here",
  });

/** The first few, so that a training step does not list its thousand weights. */
const names = (ports: readonly Port[]): string => {
  const shown = ports.slice(0, 8).map((port) => `"${port.name}" ${port.dtype} [${port.shape.join(", ")}]`);
  return [...shown, ...(ports.length > 8 ? [`${ports.length - 8} more`] : [])].join(", ");
};

function missing(inputs: readonly Port[], feeds: Feeds): string[] {
  return inputs.filter(({ name }) => !feeds[name]).map(({ name }) => `the input "${name}" is missing`);
}

function misfits(inputs: readonly Port[], feeds: Feeds): string[] {
  const ports = new Map(inputs.map((port) => [port.name, port]));
  return Object.entries(feeds).flatMap(([name, value]) => {
    const port = ports.get(name);
    if (!port) return [`there is no input "${name}"`];
    if (!value) return []; // told of as missing
    const { dtype, shape } = value;
    if (!Array.isArray(shape) || !(value instanceof DeviceTensor || ArrayBuffer.isView(value.data)))
      return [`the input "${name}" is no tensor: it takes { dtype, shape, data }`];
    const fits =
      port.shape.length === shape.length && port.shape.every((d, i) => typeof d === "string" || d === shape[i]);
    if (dtype !== port.dtype || !fits)
      return [`the input "${name}" is ${port.dtype} [${port.shape.join(", ")}], got ${dtype} [${shape.join(", ")}]`];
    if (value instanceof DeviceTensor) return [];
    const size = shape.reduce((a, b) => a * b, 1);
    const array = zerosOf(dtype, 0).constructor;
    if (value.data.length !== size || value.data.constructor !== array)
      return [
        `the input "${name}" ${dtype} [${shape.join(", ")}] takes a ${array.name} of ${size} values, got a ${value.data.constructor.name} of ${value.data.length}`,
      ];
    return [];
  });
}
