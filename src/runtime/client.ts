import { OrielError } from "../base/errors.ts";
import type { Graph } from "../graph/graph.ts";
import { writeOnnx } from "../graph/onnx/write.ts";
import type { Answer, Kind, Requests, WireTensor } from "./protocol.ts";
import {
  type CompileOptions,
  DeviceTensor,
  type Feeds,
  type HostTensor,
  type OpTime,
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
  close(): Promise<void>;
}

/** A runtime whose engine works in another thread: it turns calls into messages, and graphs into ONNX. */
export class ThreadRuntime implements Runtime {
  #device = "";
  #calls = 0;
  #failure?: Error;
  readonly #thread: EngineThread;
  readonly #waiting = new Map<number, { resolve: (reply: never) => void; reject: (error: Error) => void }>();

  private constructor(thread: EngineThread) {
    this.#thread = thread;
    thread.onAnswer((answer) => {
      const waiting = this.#waiting.get(answer.call);
      this.#waiting.delete(answer.call);
      if ("error" in answer) waiting?.reject(new OrielError(answer.error.code, answer.error.message));
      else waiting?.resolve(answer.reply as never);
    });
    thread.onFailure((error) => {
      this.#failure = error;
      for (const { reject } of this.#waiting.values()) reject(error);
      this.#waiting.clear();
    });
  }

  static async open(thread: EngineThread, request: Requests["open"]["request"]): Promise<ThreadRuntime> {
    const runtime = new ThreadRuntime(thread);
    try {
      runtime.#device = (await runtime.#call("open", request)).device;
      return runtime;
    } catch (error) {
      await thread.close();
      throw error;
    }
  }

  get device(): string {
    return this.#device;
  }

  #call<K extends Kind>(
    kind: K,
    request: Requests[K]["request"],
    transfer: ArrayBuffer[] = [],
  ): Promise<Requests[K]["reply"]> {
    if (this.#failure) return Promise.reject(this.#failure);
    const call = this.#calls++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(call, { resolve, reject });
      this.#thread.post({ call, kind, request }, transfer);
    });
  }

  async compile(graph: Graph | Uint8Array<ArrayBuffer>, options: CompileOptions = {}): Promise<Program> {
    const own = !(graph instanceof Uint8Array);
    const model = own ? writeOnnx(graph) : graph;
    const { program } = await this.#call("compile", { model, options }, own ? [model.buffer] : []);
    return {
      run: (feeds, runOptions) => this.#run(program, feeds, runOptions),
      profile: async (): Promise<OpTime[]> => (await this.#call("profile", { program })).times,
      release: async () => void (await this.#call("release", { program })),
    };
  }

  async #run(program: number, feeds: Feeds, options: RunOptions = {}): Promise<Record<string, Value>> {
    const { keep = [], outputs, donate = [], transfer = false } = options;
    const wire: Record<string, WireTensor> = {};
    const buffers = new Set<ArrayBuffer>();
    for (const [name, value] of Object.entries(feeds)) {
      if (value instanceof DeviceTensor) wire[name] = { id: value.id };
      else {
        wire[name] = { dtype: value.dtype, shape: value.shape, data: value.data };
        if (transfer) buffers.add(value.data.buffer);
      }
    }
    const request = { program, feeds: wire, outputs, keep, donate: donate.map((t) => t.id) };
    const reply = await this.#call("run", request, [...buffers]);
    const results: Record<string, Value> = {};
    for (const [name, { id, dtype, shape, data }] of Object.entries(reply.outputs))
      results[name] = id === undefined ? { dtype, shape, data: data! } : new DeviceTensor(id, dtype, shape);
    return results;
  }

  async upload(tensor: HostTensor): Promise<DeviceTensor> {
    const { dtype, shape, data } = tensor;
    const { id } = await this.#call("upload", { tensor: { dtype, shape, data } });
    return new DeviceTensor(id, dtype, shape);
  }

  async read(tensor: DeviceTensor): Promise<HostTensor> {
    const { dtype, shape, data } = (await this.#call("read", { id: tensor.id })).tensor;
    return { dtype, shape, data: data! };
  }

  dispose(tensors: readonly DeviceTensor[]): void {
    // A runtime that has failed holds nothing any more.
    if (tensors.length > 0) this.#call("dispose", { ids: tensors.map((t) => t.id) }).catch(() => {});
  }

  close(): Promise<void> {
    return this.#thread.close();
  }
}
