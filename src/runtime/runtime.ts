import { UsageError } from "../base/errors.ts";
import type { Data, DType } from "../graph/dtype.ts";
import type { Graph } from "../graph/graph.ts";
import { showShape } from "../graph/shape.ts";

/** A tensor's values in this thread's memory. */
export interface HostTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: Data;
}

/** A tensor that stays where the device is: what this thread holds is its number. */
export class DeviceTensor {
  readonly id: number;
  readonly dtype: DType;
  readonly shape: readonly number[];
  constructor(id: number, dtype: DType, shape: readonly number[]) {
    this.id = id;
    this.dtype = dtype;
    this.shape = shape;
  }
}

export type Value = HostTensor | DeviceTensor;
export type Feeds = Readonly<Record<string, Value>>;

export interface CompileOptions {
  /** In Node, threads of one run; by default the runtime's.  In a page the engine has one number for all. */
  threads?: number;
  /** How hard the engine optimises: "all" rearranges convolutions for the processor. */
  optimize?: "none" | "basic" | "extended" | "all";
  /** Says that the graph is a training step, which the engine then opens in less time: it does not look for what only forward passes have. */
  training?: boolean;
  /** In Node, collects the time of every operation; `Program.profile` returns it. */
  profile?: boolean;
  /** Fails where an operation would run on another device than asked. */
  strict?: boolean;
  /** In Node, for a model in bytes: the folder of the files that its weights lie in, which the engine reads by itself. */
  folder?: string;
  /** Hands the memory of a model in bytes over instead of copying it; it is empty afterwards. */
  transfer?: boolean;
}

export interface RunOptions {
  /** Outputs that stay on the device. */
  keep?: readonly string[];
  /** Outputs to compute; by default all. */
  outputs?: readonly string[];
  /** Device tensors that nobody will read again: what is kept may be written over them while the run goes on, so a run that fails loses them. */
  donate?: readonly DeviceTensor[];
  /** Hands the memory of host feeds over instead of copying it: they are empty afterwards, but for parts of larger buffers, which are copied. */
  transfer?: boolean;
  /** On a runtime of several streams, runs on each: what is kept, of which all make the same, is then on all of them, as what is uploaded is. */
  everywhere?: boolean;
}

/** The time of one operation over all runs that were profiled but the first, for which the engine gets its memory. */
export interface OpTime {
  name: string;
  op: string;
  microseconds: number;
  calls: number;
}

/** An input or output of a program.  An axis that is known only when it runs has a name: "N". */
export interface Port {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly (number | string)[];
}

/** A compiled graph. */
export interface Program {
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
  /** Runs it.  Kept outputs come back as device tensors, the others as host tensors. */
  run(feeds: Feeds, options?: RunOptions & { keep?: undefined }): Promise<Record<string, HostTensor>>;
  run(feeds: Feeds, options: RunOptions): Promise<Record<string, Value>>;
  /** Where the time went, the largest first.  Ends the profiling. */
  profile(): Promise<OpTime[]>;
  /** Gives its memory back; it cannot run afterwards. */
  release(): Promise<void>;
}

/** Compiles graphs and runs them, somewhere.  Nothing above this interface knows where. */
export interface Runtime {
  /** "cpu", "webgpu", "cuda" or "wasm". */
  readonly device: string;
  /** Runs that go on side by side; more wait for one of them to end. */
  readonly streams: number;
  /** Makes a graph, or the bytes of an .onnx file, ready to run. */
  compile(graph: Graph | Uint8Array<ArrayBuffer>, options?: CompileOptions): Promise<Program>;
  /** Copies a tensor to the device; with `transfer` its memory is handed over, and it is empty afterwards. */
  upload(tensor: HostTensor, options?: { transfer?: boolean }): Promise<DeviceTensor>;
  /** A copy of it in this thread's memory. */
  read(tensor: DeviceTensor): Promise<HostTensor>;
  /** Gives their memory back, with `reuse` to what the next run keeps; they cannot be read or fed afterwards. */
  dispose(tensors: readonly DeviceTensor[], options?: { reuse?: boolean }): void;
  /** Ends the engine's thread; what still waits for it fails. */
  close(): Promise<void>;
}

/** Whether a device can be used here, and why not. */
export interface DeviceReport {
  device: string;
  usable: boolean;
  /** One sentence, where it cannot be used or is no faster than the processor. */
  note?: string;
}

/** The number of a tensor with one element. */
export function numberOf(value: Value): number {
  if (value === undefined)
    throw new UsageError({ message: "there is no such tensor", help: "Program.outputs has their names" });
  if (value instanceof DeviceTensor)
    throw new UsageError({ message: "the tensor lies on the device", help: "read it first" });
  if (value.data.length !== 1)
    throw new UsageError({
      message: `a tensor ${showShape(value.shape)} is no single number`,
      help: "read its data, or reduce it in the graph",
    });
  return Number(value.data[0]);
}
