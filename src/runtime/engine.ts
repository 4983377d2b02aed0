import type * as Ort from "onnxruntime-common";
import { OrielError } from "../base/errors.ts";
import { type Data, type DType, viewAs, zerosOf } from "../graph/dtype.ts";
import type { Answer, Kind, Message, Requests, WireResult, WireTensor } from "./protocol.ts";
import type { CompileOptions, OpTime } from "./runtime.ts";

type OrtModule = Pick<typeof Ort, "InferenceSession" | "Tensor">;

/** What differs between places where ONNX Runtime runs. */
export interface Platform {
  ort: OrtModule;
  /** The session options for a device: its execution provider and what goes with it. */
  session(device: string, options: CompileOptions): Ort.InferenceSession.SessionOptions;
  /** Whether tensors live in this thread's memory, so that outputs can be written into buffers of ours. */
  hostMemory(device: string): boolean;
  /** The file that a finished profile lies in, read and removed. */
  readProfile?(session: Ort.InferenceSession, prefix: string): Promise<OpTime[]>;
  /** Reads a tensor that lives on the device. */
  download?(tensor: Ort.Tensor): Promise<Data>;
}

const bitTypes = new Set<DType>(["float16", "bfloat16"]);

/** Runs programs in the engine's thread; answers one message at a time, in order. */
export class Engine {
  readonly #platform: Platform;
  #device = "cpu";
  #next = 1;
  readonly #programs = new Map<number, { session: Ort.InferenceSession; profile?: string }>();
  readonly #tensors = new Map<number, Ort.Tensor>();
  /** Buffers of disposed tensors by length in bytes, to be written again. */
  readonly #free = new Map<number, ArrayBuffer[]>();
  #queue: Promise<void> = Promise.resolve();

  constructor(platform: Platform) {
    this.#platform = platform;
  }

  /** Handles a message and posts the answer. */
  handle(message: Message, post: (answer: Answer, transfer: ArrayBuffer[]) => void): void {
    this.#queue = this.#queue.then(async () => {
      const transfer: ArrayBuffer[] = [];
      try {
        const work = this[message.kind] as (request: unknown, transfer: ArrayBuffer[]) => Promise<unknown>;
        post({ call: message.call, reply: await work.call(this, message.request, transfer) }, transfer);
      } catch (error) {
        const code = error instanceof OrielError ? error.code : "runtime";
        post(
          { call: message.call, error: { code, message: error instanceof Error ? error.message : String(error) } },
          [],
        );
      }
    });
  }

  async open({ device }: Requests["open"]["request"]): Promise<Requests["open"]["reply"]> {
    this.#device = device;
    return { device };
  }

  async compile({ model, options }: Requests["compile"]["request"]): Promise<Requests["compile"]["reply"]> {
    const settings = this.#platform.session(this.#device, options);
    const session = await this.#platform.ort.InferenceSession.create(model, settings);
    const program = this.#next++;
    this.#programs.set(program, { session, profile: settings.profileFilePrefix });
    return { program };
  }

  #program(id: number) {
    const program = this.#programs.get(id);
    if (!program) throw new OrielError("runtime", "the program was released");
    return program;
  }

  async run(request: Requests["run"]["request"], transfer: ArrayBuffer[]): Promise<Requests["run"]["reply"]> {
    const { session } = this.#program(request.program);
    const feeds: Record<string, Ort.Tensor> = {};
    for (const [name, wire] of Object.entries(request.feeds)) feeds[name] = this.#tensorOf(wire);
    const names = request.outputs ?? session.outputNames;
    const keep = new Set(request.keep);
    const hosted = this.#platform.hostMemory(this.#device);

    const results = hosted ? await this.#runInto(session, feeds, names, keep) : await session.run(feeds, [...names]);
    for (const id of request.donate) this.#drop(id);

    const outputs: Record<string, WireResult> = {};
    for (const name of names) {
      const tensor = results[name];
      const [dtype, shape] = [tensor.type as DType, tensor.dims];
      if (keep.has(name)) outputs[name] = { dtype, shape, id: this.#hold(tensor) };
      else {
        const data = hosted ? (tensor.data as Data) : await this.#download(tensor);
        if (!hosted) tensor.dispose();
        transfer.push(data.buffer);
        outputs[name] = { dtype, shape, data };
      }
    }
    return { outputs };
  }

  /** Runs with kept outputs written into buffers that earlier tensors left behind, so that state moves between two sets of memory. */
  async #runInto(
    session: Ort.InferenceSession,
    feeds: Record<string, Ort.Tensor>,
    names: readonly string[],
    keep: ReadonlySet<string>,
  ): Promise<Record<string, Ort.Tensor>> {
    const fetches: Record<string, Ort.Tensor | null> = {};
    for (const name of names) fetches[name] = keep.has(name) ? this.#reserve(session, name) : null;
    const results = (await session.run(feeds, fetches)) as Record<string, Ort.Tensor>;
    // The engine writes into what it was given, and returns copies besides.
    return Object.fromEntries(names.map((name) => [name, fetches[name] ?? results[name]]));
  }

  #reserve(session: Ort.InferenceSession, name: string): Ort.Tensor | null {
    const meta = session.outputMetadata[session.outputNames.indexOf(name)];
    if (!meta?.isTensor || meta.shape.some((d) => typeof d !== "number")) return null;
    const shape = meta.shape as number[];
    const dtype = meta.type as DType;
    const size = shape.reduce((a, b) => a * b, 1);
    const bytes = zerosOf(dtype, 0).BYTES_PER_ELEMENT * size;
    const free = this.#free.get(bytes)?.pop();
    const data = free ? viewAs(dtype, new Uint8Array(free)) : zerosOf(dtype, size);
    return new this.#platform.ort.Tensor(dtype as "float32", data as Float32Array, shape);
  }

  #tensorOf(wire: WireTensor): Ort.Tensor {
    if ("id" in wire) {
      const tensor = this.#tensors.get(wire.id);
      if (!tensor) throw new OrielError("runtime", `tensor ${wire.id} was disposed of`);
      return tensor;
    }
    if (bitTypes.has(wire.dtype) && wire.dtype === "bfloat16")
      throw new OrielError("runtime", "the engine's JavaScript interface has no bfloat16; convert to float32");
    return new this.#platform.ort.Tensor(wire.dtype as "float32", wire.data as Float32Array, wire.shape as number[]);
  }

  #hold(tensor: Ort.Tensor): number {
    const id = this.#next++;
    this.#tensors.set(id, tensor);
    return id;
  }

  #drop(id: number): void {
    const tensor = this.#tensors.get(id);
    if (!tensor) return;
    this.#tensors.delete(id);
    if (tensor.location === "cpu") {
      const { buffer, byteLength, byteOffset } = tensor.data as Data;
      if (byteOffset === 0 && byteLength === buffer.byteLength) {
        const list = this.#free.get(byteLength) ?? [];
        list.push(buffer);
        this.#free.set(byteLength, list);
      }
    } else tensor.dispose();
  }

  async #download(tensor: Ort.Tensor): Promise<Data> {
    if (tensor.location === "cpu") return tensor.data as Data;
    return this.#platform.download ? this.#platform.download(tensor) : ((await tensor.getData()) as Data);
  }

  async upload({ tensor }: Requests["upload"]["request"]): Promise<Requests["upload"]["reply"]> {
    return { id: this.#hold(this.#tensorOf(tensor)) };
  }

  async read({ id }: Requests["read"]["request"], transfer: ArrayBuffer[]): Promise<Requests["read"]["reply"]> {
    const tensor = this.#tensorOf({ id });
    const data = (await this.#download(tensor)).slice() as Data;
    transfer.push(data.buffer);
    return { tensor: { dtype: tensor.type as DType, shape: tensor.dims, data } };
  }

  async dispose({ ids }: Requests["dispose"]["request"]): Promise<Requests["dispose"]["reply"]> {
    for (const id of ids) this.#drop(id);
    return {};
  }

  async profile({ program }: Requests["profile"]["request"]): Promise<Requests["profile"]["reply"]> {
    const { session, profile } = this.#program(program);
    if (!profile || !this.#platform.readProfile)
      throw new OrielError("runtime", {
        message: "no profile was kept",
        help: "compile with { profile: true }, in Node",
      });
    return { times: await this.#platform.readProfile(session, profile) };
  }

  async release({ program }: Requests["release"]["request"]): Promise<Requests["release"]["reply"]> {
    await this.#programs.get(program)?.session.release();
    this.#programs.delete(program);
    if (this.#programs.size === 0) this.#free.clear();
    return {};
  }
}

/** Kinds of messages are the engine's methods. */
type Handles = {
  [K in Kind]: (request: Requests[K]["request"], transfer: ArrayBuffer[]) => Promise<Requests[K]["reply"]>;
};
Engine.prototype satisfies Handles;
