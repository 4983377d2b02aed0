import type * as Ort from "onnxruntime-common";
import { OrielError, toWire } from "../base/errors.ts";
import { otherThanOnnx } from "../base/identify.ts";
import { bytesOf, type Data, type DType, dtypeCodes, viewAs, zerosOf } from "../graph/dtype.ts";
import type { Gate } from "./gate.ts";
import { identityModel, Mover } from "./mover.ts";
import type { Answer, Kind, Message, Requests, WireResult, WireTensor } from "./protocol.ts";
import type { CompileOptions, OpTime, Port } from "./runtime.ts";
import { runUncopied, withHalt } from "./uncopied.ts";

/** A device as ONNX Runtime is told of it, in Node or in a page. */
export interface Device {
  readonly ort: Pick<typeof Ort, "InferenceSession" | "Tensor">;
  /** Where its tensors lie: here, in buffers that the engine can write into; here, but written by itself; or far away. */
  readonly memory: "ours" | "engine" | "far";
  session(options: CompileOptions): Ort.InferenceSession.SessionOptions;
  /** The times of a session that profiled under `prefix`. */
  readProfile?(session: Ort.InferenceSession, prefix: string): Promise<OpTime[]>;
}
export type OpenDevice = (request: Requests["open"]["request"]) => Promise<Device>;

interface Loaded {
  session: Ort.InferenceSession;
  /** Whether `runUncopied` can run it. */
  halts: boolean;
  inputs: readonly Port[];
  outputs: readonly Port[];
  profile?: string;
  inPlace: Readonly<Record<string, string>>;
}

/** Runs programs in the engine's thread; answers one message at a time, in order. */
export class Engine {
  readonly #openDevice: OpenDevice;
  readonly #gate?: Gate;
  #opened?: Device;
  #upload?: Mover;
  #download?: Mover;
  #next = 1;
  readonly #programs = new Map<number, Loaded>();
  readonly #tensors = new Map<number, Ort.Tensor>();
  /** Buffers that nobody needs any more, by length in bytes: the next run that keeps something writes into them. */
  readonly #spare = new Map<number, ArrayBuffer[]>();
  #queue: Promise<void> = Promise.resolve();

  constructor(openDevice: OpenDevice, gate?: Gate) {
    this.#openDevice = openDevice;
    this.#gate = gate;
  }

  /** Handles a message and posts the answer. */
  handle({ call, kind, request }: Message, post: (answer: Answer, transfer: ArrayBuffer[]) => void): void {
    this.#queue = this.#queue.then(async () => {
      if (this.#gate?.enter() === false) return;
      const transfer: ArrayBuffer[] = [];
      try {
        const work = this[kind] as (request: unknown, transfer: ArrayBuffer[]) => Promise<unknown>;
        post({ call, reply: await work.call(this, request, transfer) }, transfer);
      } catch (error) {
        post({ call, error: toWire(error, "runtime") }, []);
      }
      this.#gate?.leave();
    });
  }

  get #device(): Device {
    if (!this.#opened) throw new OrielError("runtime", "no device was opened");
    return this.#opened;
  }

  /** Opens a device and makes a first session on it, since only that shows whether it is there. */
  async open(request: Requests["open"]["request"]): Promise<Requests["open"]["reply"]> {
    const device = await this.#openDevice(request);
    const { InferenceSession } = device.ort;
    const first = await InferenceSession.create(identityModel("float32"), device.session({ strict: true }));
    await first.release();
    if (device.memory === "far") {
      this.#upload = new Mover((model) => InferenceSession.create(model, device.session({})));
      this.#download = new Mover((model) =>
        InferenceSession.create(model, { ...device.session({}), preferredOutputLocation: "cpu" }),
      );
    }
    this.#opened = device;
    return {};
  }

  async compile({ model, options, inPlace }: Requests["compile"]["request"]): Promise<Requests["compile"]["reply"]> {
    const { ort, memory, session: settingsFor } = this.#device;
    const settings = settingsFor(options);
    const { InferenceSession } = ort;
    // Operators before version 11 know no sequences, and not every file is ONNX: such a model runs as it is, with copies.
    const halting =
      memory === "ours" ? await InferenceSession.create(withHalt(model), settings).catch(() => undefined) : undefined;
    const session =
      halting ??
      (await InferenceSession.create(model, settings).catch((error: Error) => {
        const looks = otherThanOnnx(model);
        const why = looks ? `it looks like ${looks}` : error.message.trim();
        const apart = /external data/i.test(why);
        throw new OrielError("runtime", {
          message: `the engine does not take this model: ${apart ? "its weights lie in another file" : why}`,
          details: apart ? [why] : [],
          help: apart
            ? "give a model with its weights inside; in Node, { folder } says where their file is"
            : undefined,
        });
      }));
    const inputs = session.inputMetadata.flatMap(portOf);
    const outputs = session.outputMetadata.flatMap(portOf);
    const program = this.#next++;
    const profile = settings.profileFilePrefix;
    this.#programs.set(program, { session, halts: halting !== undefined, inputs, outputs, profile, inPlace });
    return { program, inputs, outputs };
  }

  #program(id: number): Loaded {
    const program = this.#programs.get(id);
    if (!program) throw new OrielError("runtime", "the program was released");
    return program;
  }

  async run(request: Requests["run"]["request"], transfer: ArrayBuffer[]): Promise<Requests["run"]["reply"]> {
    const program = this.#program(request.program);
    const feeds: Record<string, Ort.Tensor> = {};
    for (const [name, wire] of Object.entries(request.feeds)) feeds[name] = this.#tensorOf(wire, `the input "${name}"`);
    const donated = new Set(request.donate);
    const given = new Set([...donated].map((id) => this.#tensorOf({ id }, "a donated tensor")));
    const keep = new Set(request.keep);
    const wanted = new Set(request.outputs ?? program.outputs.map((port) => port.name));

    const results = await this.#results(program, feeds, wanted, keep, given).catch((error) => {
      // Some of it may have been written over.
      for (const id of donated) this.#drop(id, false);
      throw error;
    });
    free(Object.values(request.feeds).flatMap((wire) => ("id" in wire ? [] : [wire.data.buffer])));
    // What it found spare and did not take has no use: runs that keep something are alike.
    if (keep.size > 0) this.#spare.clear();
    const written = new Set(Object.values(results));
    for (const id of donated) {
      if (written.has(this.#tensors.get(id)!)) this.#tensors.delete(id);
      else this.#drop(id, true);
    }

    const outputs: Record<string, WireResult> = {};
    for (const name of wanted) {
      const tensor = results[name];
      const [dtype, shape] = [tensor.type as DType, tensor.dims];
      if (dtype === "string")
        throw new OrielError("runtime", { message: `the output "${name}" is text`, help: "leave it out of `outputs`" });
      if (keep.has(name)) outputs[name] = { dtype, shape, id: this.#hold(tensor) };
      else {
        const data = await this.#values(tensor);
        if (tensor.location !== "cpu") tensor.dispose();
        transfer.push(data.buffer);
        outputs[name] = { dtype, shape, data };
      }
    }
    return { outputs };
  }

  /** Outputs are written into buffers of ours where some are kept and all sizes are known; otherwise the engine makes them. */
  async #results(
    { session, halts, outputs, inPlace }: Loaded,
    feeds: Record<string, Ort.Tensor>,
    wanted: ReadonlySet<string>,
    keep: ReadonlySet<string>,
    given: ReadonlySet<Ort.Tensor>,
  ): Promise<Record<string, Ort.Tensor>> {
    const ports = outputs.filter((port) => wanted.has(port.name));
    const known = ports.every((port) => port.shape.every((d) => typeof d === "number"));
    if (!halts || keep.size === 0 || !known)
      return (await session.run(feeds, [...wanted])) as Record<string, Ort.Tensor>;
    const fetches: Record<string, Ort.Tensor> = {};
    const [fed, again] = [new Set<Ort.Tensor>(), new Set<Ort.Tensor>()];
    for (const tensor of Object.values(feeds)) (fed.has(tensor) ? again : fed).add(tensor);
    for (const { name, dtype, shape } of ports) {
      const over = feeds[inPlace[name]];
      if (over && keep.has(name) && given.has(over) && !again.has(over)) {
        fetches[name] = over;
        continue;
      }
      const size = (shape as number[]).reduce((a, b) => a * b, 1);
      const free = keep.has(name) ? this.#spare.get(size * bytesOf(dtype))?.pop() : undefined;
      const data = free ? viewAs(dtype, new Uint8Array(free)) : zerosOf(dtype, size);
      fetches[name] = this.#tensorOf({ dtype, shape: shape as number[], data });
    }
    await runUncopied(session, feeds, fetches);
    return fetches;
  }

  #tensorOf(wire: WireTensor, what = "the tensor"): Ort.Tensor {
    if ("id" in wire) {
      const tensor = this.#tensors.get(wire.id);
      if (!tensor) throw new OrielError("runtime", `${what} was disposed of or donated before`);
      return tensor;
    }
    if (wire.dtype === "bfloat16" || wire.dtype === "string")
      throw new OrielError("runtime", {
        message: `${what} is ${wire.dtype}, which the engine's JavaScript interface does not take`,
        help: wire.dtype === "bfloat16" ? "convert it to float32" : undefined,
      });
    return new this.#device.ort.Tensor(wire.dtype as "float32", wire.data as Float32Array, wire.shape as number[]);
  }

  #hold(tensor: Ort.Tensor): number {
    const id = this.#next++;
    this.#tensors.set(id, tensor);
    return id;
  }

  /** Forgets a tensor; where its memory is ours, what the next run keeps may lie in it. */
  #drop(id: number, reuse: boolean): void {
    const tensor = this.#tensors.get(id);
    this.#tensors.delete(id);
    if (tensor && tensor.location !== "cpu") tensor.dispose();
    else if (tensor && reuse && this.#device.memory === "ours") {
      const { buffer } = tensor.data as Data;
      const alike = this.#spare.get(buffer.byteLength);
      if (alike) alike.push(buffer);
      else this.#spare.set(buffer.byteLength, [buffer]);
    }
  }

  /** A tensor's values in this thread. */
  async #values(tensor: Ort.Tensor): Promise<Data> {
    const near = tensor.location === "cpu" || !this.#download ? tensor : await this.#download.move(tensor);
    const { buffer, byteOffset, byteLength } = near.data as Data;
    // Newer JavaScript has a Float16Array, in which the engine then answers.
    return viewAs(tensor.type as DType, new Uint8Array(buffer, byteOffset, byteLength));
  }

  async upload({ tensor }: Requests["upload"]["request"]): Promise<Requests["upload"]["reply"]> {
    const host = this.#tensorOf(tensor);
    return { id: this.#hold(this.#upload ? await this.#upload.move(host) : host) };
  }

  async read({ id }: Requests["read"]["request"], transfer: ArrayBuffer[]): Promise<Requests["read"]["reply"]> {
    const tensor = this.#tensorOf({ id });
    const data = (await this.#values(tensor)).slice() as Data;
    transfer.push(data.buffer);
    return { tensor: { dtype: tensor.type as DType, shape: tensor.dims, data } };
  }

  async dispose({ ids, reuse }: Requests["dispose"]["request"]): Promise<Requests["dispose"]["reply"]> {
    for (const id of ids) this.#drop(id, reuse);
    return {};
  }

  async profile({ program }: Requests["profile"]["request"]): Promise<Requests["profile"]["reply"]> {
    const loaded = this.#program(program);
    const { readProfile } = this.#device;
    if (!loaded.profile || !readProfile)
      throw new OrielError("runtime", {
        message: "no profile was kept",
        help: "compile with { profile: true }, in Node, and ask once",
      });
    const prefix = loaded.profile;
    loaded.profile = undefined;
    return { times: await readProfile(loaded.session, prefix) };
  }

  async release({ program }: Requests["release"]["request"]): Promise<Requests["release"]["reply"]> {
    const loaded = this.#programs.get(program);
    this.#programs.delete(program);
    // A profile that nobody asked for lies in a file, which goes.
    try {
      if (loaded?.profile) await this.#device.readProfile?.(loaded.session, loaded.profile);
    } finally {
      await loaded?.session.release();
    }
    return {};
  }
}

/** Gives memory back at once: a message that nobody receives takes it along, while the collector would let batches pile up. */
function free(buffers: readonly ArrayBuffer[]): void {
  nowhere.postMessage(undefined, [...new Set(buffers)]);
}
const { port1: nowhere, port2 } = new MessageChannel();
port2.close();

/** A port that holds a tensor; others cannot be fed or fetched. */
function portOf(meta: Ort.InferenceSession.ValueMetadata): Port[] {
  return meta.isTensor && meta.type in dtypeCodes
    ? [{ name: meta.name, dtype: meta.type as DType, shape: meta.shape }]
    : [];
}

/** Kinds of messages are the engine's methods. */
type Handles = {
  [K in Kind]: (request: Requests[K]["request"], transfer: ArrayBuffer[]) => Promise<Requests[K]["reply"]>;
};
Engine.prototype satisfies Handles;
