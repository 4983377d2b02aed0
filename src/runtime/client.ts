import { closingOnError } from "../base/close.ts";
import { fromWire, OrielError, UsageError } from "../base/errors.ts";
import { Graph } from "../graph/graph.ts";
import { writeOnnx } from "../graph/onnx/write.ts";
import { checkRun, foreignTensor } from "./check-run.ts";
import { inPlace } from "./in-place.ts";
import type { Answer, Kind, Requests, WireTensor } from "./protocol.ts";
import {
  type CompileOptions,
  DeviceTensor,
  type Feeds,
  type HostTensor,
  type OpTime,
  type Port,
  type Program,
  type RunOptions,
  type Runtime,
  type Value,
} from "./runtime.ts";

/** The thread that runs the engine, as the client needs it. */
export interface EngineThread {
  post(message: unknown, transfer: ArrayBuffer[]): void;
  onAnswer(listen: (answer: Answer) => void): void;
  onFailure(listen: (error: Error) => void): void;
  /** Told when the first call begins to wait and when the last has its answer. */
  onWaiting?(waiting: boolean): void;
  close(): Promise<void>;
  /** The same graph, as this engine computes it fastest, in as many threads as its others unless given. */
  prepare?(graph: Graph, threads?: number): Graph;
}

/** An ONNX model, and which of its outputs may be written over an input. */
export interface EncodedModel extends Pick<Requests["compile"]["request"], "model" | "inPlace"> {
  /** Whether its bytes may be handed over to the engine, since nobody else reads them. */
  owned: boolean;
}

/** Throws where as many threads cannot be. */
export function checkThreads(threads: number): void {
  if (!Number.isInteger(threads) || threads < 0)
    throw new UsageError({ message: `threads is ${threads}`, help: "a whole number; 0 leaves it to the engine" });
}

/** A runtime whose engine works in another thread: it turns calls into messages, and graphs into ONNX. */
export class ThreadRuntime implements Runtime {
  readonly device: string;
  readonly streams = 1;
  #calls = 0;
  #failure?: Error;
  readonly #thread: EngineThread;
  /**
   * Calls without an answer yet; answers come in the order of calls.  A Map's former tables, each holding the next and what was in it,
   * would pile up until all garbage is collected.
   */
  readonly #waiting: Array<{ call: number; resolve: (reply: never) => void; reject: (error: Error) => void }> = [];
  /** Tensors of this runtime: their numbers mean others elsewhere. */
  readonly #tensors = new WeakSet<DeviceTensor>();

  private constructor(device: string, thread: EngineThread) {
    this.device = device;
    this.#thread = thread;
    thread.onAnswer((answer) => {
      if (this.#waiting[0]?.call !== answer.call) return; // given up when the runtime failed
      const { resolve, reject } = this.#waiting.shift()!;
      if (this.#waiting.length === 0) thread.onWaiting?.(false);
      if ("error" in answer) reject(fromWire(answer.error));
      else resolve(answer.reply as never);
    });
    thread.onFailure((error) => this.#fail(error));
  }

  static async open(thread: EngineThread, request: Requests["open"]["request"]): Promise<ThreadRuntime> {
    const runtime = new ThreadRuntime(request.device, thread);
    await closingOnError([thread], () => runtime.#call("open", request));
    return runtime;
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const { reject } of this.#waiting.splice(0)) reject(this.#failure);
  }

  #call<K extends Kind>(
    kind: K,
    request: Requests[K]["request"],
    transfer: ArrayBuffer[] = [],
  ): Promise<Requests[K]["reply"]> {
    if (this.#failure) return Promise.reject(this.#failure);
    const call = this.#calls++;
    return new Promise((resolve, reject) => {
      this.#thread.post({ call, kind, request }, transfer);
      if (this.#waiting.length === 0) this.#thread.onWaiting?.(true);
      this.#waiting.push({ call, resolve, reject });
    });
  }

  async compile(graph: Graph | Uint8Array<ArrayBuffer>, options: CompileOptions = {}): Promise<Program> {
    const encoded = this.encode(graph, options);
    return this.load(encoded, { ...options, transfer: encoded.owned });
  }

  /** A model as this engine takes it, and every other of its kind. */
  encode(
    graph: Graph | Uint8Array<ArrayBuffer>,
    { optimize = "all", threads, transfer = false }: CompileOptions,
  ): EncodedModel {
    if (graph instanceof Uint8Array) return { model: whole(graph), inPlace: {}, owned: transfer };
    if (!(graph instanceof Graph))
      throw new UsageError({
        message: "this is no graph, and no ONNX model's bytes",
        help: "give a Graph or a Uint8Array: of an ArrayBuffer new Uint8Array(buffer), of a file what it holds",
      });
    const drawn = optimize === "all" ? (this.#thread.prepare?.(graph, threads) ?? graph) : graph;
    return { model: writeOnnx(drawn), inPlace: inPlace(drawn), owned: true };
  }

  async load({ model, inPlace }: EncodedModel, options: CompileOptions): Promise<Program> {
    const request = { model, options, inPlace };
    const { program, inputs, outputs } = await this.#call("compile", request, options.transfer ? [model.buffer] : []);
    return {
      inputs,
      outputs,
      // Which of the two types it is, only the options know.
      run: (feeds: Feeds, options?: RunOptions) =>
        this.#run(program, { inputs, outputs }, feeds, options) as Promise<Record<string, never>>,
      profile: async (): Promise<OpTime[]> => (await this.#call("profile", { program })).times,
      release: async () => void (await this.#call("release", { program })),
    };
  }

  async #run(
    program: number,
    ports: { inputs: readonly Port[]; outputs: readonly Port[] },
    feeds: Feeds,
    options: RunOptions = {},
  ): Promise<Record<string, Value>> {
    const { keep = [], outputs, donate = [], transfer = false } = options;
    checkRun(ports, feeds, options);
    const wire: Record<string, WireTensor> = {};
    const buffers = new Set<ArrayBuffer>();
    for (const [name, value] of Object.entries(feeds)) {
      if (value instanceof DeviceTensor) wire[name] = { id: this.#idOf(value) };
      else {
        const { dtype, shape } = value;
        const data = whole(value.data);
        wire[name] = { dtype, shape, data };
        if (transfer) buffers.add(data.buffer);
      }
    }
    const request = { program, feeds: wire, outputs, keep, donate: donate.map((t) => this.#idOf(t)) };
    const reply = await this.#call("run", request, [...buffers]);
    const results: Record<string, Value> = {};
    for (const [name, { id, dtype, shape, data }] of Object.entries(reply.outputs))
      results[name] = id === undefined ? { dtype, shape, data: data! } : this.#hold(new DeviceTensor(id, dtype, shape));
    return results;
  }

  #hold(tensor: DeviceTensor): DeviceTensor {
    this.#tensors.add(tensor);
    return tensor;
  }

  #idOf(tensor: DeviceTensor): number {
    if (!this.#tensors.has(tensor)) throw foreignTensor(tensor);
    return tensor.id;
  }

  async upload(tensor: HostTensor, { transfer = false } = {}): Promise<DeviceTensor> {
    const { dtype, shape } = tensor;
    const data = whole(tensor.data);
    const { id } = await this.#call("upload", { tensor: { dtype, shape, data } }, transfer ? [data.buffer] : []);
    return this.#hold(new DeviceTensor(id, dtype, shape));
  }

  async read(tensor: DeviceTensor): Promise<HostTensor> {
    const { dtype, shape, data } = (await this.#call("read", { id: this.#idOf(tensor) })).tensor;
    return { dtype, shape, data: data! };
  }

  dispose(tensors: readonly DeviceTensor[], { reuse = false } = {}): void {
    const ids = tensors.map((t) => this.#idOf(t));
    // A runtime that has failed holds nothing any more.
    if (ids.length > 0) this.#call("dispose", { ids, reuse }).catch(() => {});
  }

  async close(): Promise<void> {
    this.#fail(new OrielError("runtime", "the runtime was closed"));
    await this.#thread.close();
  }
}

/** A typed array's own, since a Buffer's makes a view. */
const copy = Uint8Array.prototype.slice as (this: HostTensor["data"]) => HostTensor["data"];

/** Values that fill a buffer of their own: a message copies, or hands over, whole buffers only; shared memory it would do neither with. */
function whole<A extends HostTensor["data"]>(data: A): A {
  return data.byteLength === data.buffer.byteLength && data.buffer instanceof ArrayBuffer
    ? data
    : (copy.call(data) as A);
}
