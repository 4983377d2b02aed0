import { allOrNone } from "../base/close.ts";
import { OrielError } from "../base/errors.ts";
import type { Graph } from "../graph/graph.ts";
import { checkRun, foreignTensor } from "./check-run.ts";
import type { ThreadRuntime } from "./client.ts";
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

/**
 * Several engines as one runtime: each holds every program, and a run goes to the next that is idle.  Runs side by side, each in a
 * share of the threads, take less time together than one after the other in all threads, which wait for one another at each operation.
 */
export class Streams implements Runtime {
  readonly device: string;
  readonly streams: number;
  readonly #engines: readonly ThreadRuntime[];
  readonly #idle: Runtime[];
  /** Runs that wait for an engine, each told of one that it can use. */
  readonly #waiting: Array<{ able: readonly Runtime[]; start: (engine: Runtime) => void }> = [];

  constructor(engines: readonly ThreadRuntime[]) {
    this.device = engines[0].device;
    this.streams = engines.length;
    this.#engines = engines;
    this.#idle = [...engines];
  }

  /** Opens all of them, or none. */
  static async open(count: number, open: () => Promise<ThreadRuntime>): Promise<Streams> {
    return new Streams(await allOrNone(Array.from({ length: count }, open), (engine) => engine.close()));
  }

  async compile(model: Graph | Uint8Array<ArrayBuffer>, options: CompileOptions = {}): Promise<Program> {
    const encoded = this.#engines[0].encode(model, options);
    const compiled = await this.#onAll(
      (engine, last) => engine.load(encoded, { ...options, transfer: last && encoded.owned }),
      (program) => program.release(),
    );
    const programs = new Map(this.#engines.map((engine, i) => [engine, compiled[i]]));
    const [{ inputs, outputs }] = compiled;
    return {
      inputs,
      outputs,
      // Which of the two types it is, only the options know.
      run: async (feeds: Feeds, options: RunOptions = {}) => {
        checkRun({ inputs, outputs }, feeds, options);
        const run = options.everywhere
          ? this.#runEverywhere(programs, feeds, options)
          : this.#run(programs, feeds, options);
        return run.catch((error) => {
          this.#forget(options.donate ?? [], {}); // as the engine that failed did
          throw error;
        }) as Promise<Record<string, never>>;
      },
      profile: async () => merge(await Promise.all(compiled.map((program) => program.profile()))),
      release: async () => void (await Promise.all(compiled.map((program) => program.release()))),
    };
  }

  async #run(
    programs: ReadonlyMap<Runtime, Program>,
    feeds: Feeds,
    { donate = [], ...options }: RunOptions,
  ): Promise<Record<string, Value>> {
    const engine = await this.#idleOf(this.#ableTo(feeds, donate));
    try {
      const own = this.#local(engine, feeds, donate);
      const found = await programs.get(engine)!.run(own.feeds, { ...options, donate: own.donate });
      this.#forget(donate, { but: engine });
      return this.#spread([engine], [found]);
    } finally {
      this.#free(engine);
    }
  }

  async #runEverywhere(
    programs: ReadonlyMap<Runtime, Program>,
    feeds: Feeds,
    { donate = [], transfer = false, ...options }: RunOptions,
  ): Promise<Record<string, Value>> {
    if (this.#ableTo(feeds, donate).length < this.#engines.length) throw apart();
    const found = await this.#onAll(
      async (engine, last) => {
        const own = this.#local(engine, feeds, donate);
        const given = { ...options, donate: own.donate, transfer: last && transfer };
        return [engine, await programs.get(engine)!.run(own.feeds, given)] as const;
      },
      ([engine, results]) => engine.dispose(Object.values(results).filter((value) => value instanceof DeviceTensor)),
    );
    return this.#spread(
      this.#engines,
      found.map(([, results]) => results),
    );
  }

  /** Results of a run on one engine or more, those that stay there with the copies that each has. */
  #spread(engines: readonly Runtime[], found: readonly Record<string, Value>[]): Record<string, Value> {
    const entries = Object.entries(found[0]).map(([name, value]): [string, Value] => {
      if (!(value instanceof DeviceTensor)) return [name, value];
      const copies = engines.map((engine, i): [Runtime, DeviceTensor] => [engine, found[i][name] as DeviceTensor]);
      return [name, new SpreadTensor(this, new Map(copies))];
    });
    return Object.fromEntries(entries);
  }

  /** The engines that have all tensors of a run. */
  #ableTo(feeds: Feeds, donate: readonly DeviceTensor[]): ThreadRuntime[] {
    const fed = [...Object.values(feeds), ...donate].filter((value) => value instanceof DeviceTensor);
    const copies = fed.map((tensor) => this.#copiesOf(tensor));
    return this.#engines.filter((engine) => copies.every((of) => of.has(engine)));
  }

  /** The same tensors as one engine has them. */
  #local(engine: Runtime, feeds: Feeds, donate: readonly DeviceTensor[]): { feeds: Feeds; donate: DeviceTensor[] } {
    const local = (tensor: DeviceTensor): DeviceTensor => this.#copiesOf(tensor).get(engine)!;
    const own = Object.entries(feeds).map(([name, value]) => [
      name,
      value instanceof DeviceTensor ? local(value) : value,
    ]);
    return { feeds: Object.fromEntries(own), donate: donate.map(local) };
  }

  /** Memory may be handed over to the last, when the others have read it. */
  #onAll<T>(work: (engine: ThreadRuntime, last: boolean) => Promise<T>, giveBack: (made: T) => unknown): Promise<T[]> {
    const { length } = this.#engines;
    return allOrNone(
      this.#engines.map((engine, i) => work(engine, i === length - 1)),
      giveBack,
    );
  }

  #idleOf(able: readonly Runtime[]): Promise<Runtime> {
    if (able.length === 0) throw apart();
    const at = this.#idle.findIndex((engine) => able.includes(engine));
    if (at >= 0) return Promise.resolve(this.#idle.splice(at, 1)[0]);
    return new Promise((start) => void this.#waiting.push({ able, start }));
  }

  #free(engine: Runtime): void {
    const next = this.#waiting.findIndex(({ able }) => able.includes(engine));
    if (next < 0) this.#idle.push(engine);
    else this.#waiting.splice(next, 1)[0].start(engine);
  }

  #copiesOf(tensor: DeviceTensor): ReadonlyMap<Runtime, DeviceTensor> {
    if (tensor instanceof SpreadTensor && tensor.owner === this) return tensor.copies;
    throw foreignTensor(tensor);
  }

  /** Disposes of tensors on all engines but one, which has done so. */
  #forget(tensors: readonly DeviceTensor[], { but, reuse }: { but?: Runtime; reuse?: boolean }): void {
    const copies = tensors.map((tensor) => this.#copiesOf(tensor));
    for (const engine of this.#engines)
      if (engine !== but)
        engine.dispose(
          copies.flatMap((of) => of.get(engine) ?? []),
          { reuse },
        );
  }

  async upload(tensor: HostTensor, { transfer = false } = {}): Promise<DeviceTensor> {
    const copies = await this.#onAll(
      async (engine, last) => [engine, await engine.upload(tensor, { transfer: last && transfer })] as const,
      ([engine, copy]) => engine.dispose([copy]),
    );
    return new SpreadTensor(this, new Map(copies));
  }

  async read(tensor: DeviceTensor): Promise<HostTensor> {
    const [[engine, copy]] = this.#copiesOf(tensor);
    return engine.read(copy);
  }

  dispose(tensors: readonly DeviceTensor[], { reuse = false } = {}): void {
    this.#forget(tensors, { reuse });
  }

  async close(): Promise<void> {
    await Promise.all(this.#engines.map((engine) => engine.close()));
  }
}

/**
 * A tensor with the copies that engines have of it: what was uploaded is on all of them, what a run kept on its own.  It holds them
 * itself, since what a WeakMap holds of a step outlives it until all garbage is collected.
 */
class SpreadTensor extends DeviceTensor {
  readonly owner: Streams;
  readonly copies: ReadonlyMap<Runtime, DeviceTensor>;
  constructor(owner: Streams, copies: ReadonlyMap<Runtime, DeviceTensor>) {
    const [{ id, dtype, shape }] = copies.values();
    super(id, dtype, shape);
    this.owner = owner;
    this.copies = copies;
  }
}

const apart = (): OrielError =>
  new OrielError("runtime", {
    message: "the tensors of this run lie on different streams",
    help: "what a run keeps stays with the engine that ran it: read it, or open a runtime of one stream",
  });

/** The times of all engines, one row for each operation. */
function merge(all: readonly OpTime[][]): OpTime[] {
  const rows = new Map<string, OpTime>();
  for (const { name, op, microseconds, calls } of all.flat()) {
    const row = rows.get(name) ?? { name, op, microseconds: 0, calls: 0 };
    rows.set(name, { ...row, microseconds: row.microseconds + microseconds, calls: row.calls + calls });
  }
  return [...rows.values()].sort((a, b) => b.microseconds - a.microseconds);
}
