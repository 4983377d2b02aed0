import { closingOnError } from "../../base/close.ts";
import { staticSize } from "../../graph/shape.ts";
import type { DeviceTensor, Runtime, Value } from "../../runtime/runtime.ts";
import { lengthOf, type Pack } from "./packs.ts";
import { type FloatTensor, nextName, type Tensors } from "./state.ts";

/** Where a tensor lies: by itself, or in a pack. */
interface Place {
  held: string;
  start: number;
  shape: readonly number[];
}

/** Named float32 tensors that live where the device is: uploaded once, replaced by every step, read for a checkpoint. */
export class DeviceState {
  readonly #runtime: Runtime;
  readonly #places: ReadonlyMap<string, Place>;
  /** Tensors and packs by the names of a step's inputs. */
  readonly #tensors = new Map<string, DeviceTensor>();

  private constructor(runtime: Runtime, places: ReadonlyMap<string, Place>) {
    this.#runtime = runtime;
    this.#places = places;
  }

  /** Packs are made where all that they hold is there.  With `transfer` the values are handed over, not copied, and are gone here. */
  static async upload(
    runtime: Runtime,
    tensors: Tensors,
    { packs = [], transfer = false }: { packs?: readonly Pack[]; transfer?: boolean } = {},
  ): Promise<DeviceState> {
    const places = new Map(Array.from(tensors, ([name, { shape }]) => [name, { held: name, start: 0, shape }]));
    const held = new Map(tensors);
    for (const { name, entries } of packs) {
      if (!entries.every((entry) => tensors.has(entry.name))) continue;
      const data = new Float32Array(lengthOf(entries.map(({ shape }) => shape)));
      let start = 0;
      for (const { name: own, shape } of entries) {
        data.set(tensors.get(own)!.data, start);
        places.set(own, { held: name, start, shape });
        held.delete(own);
        start += staticSize(shape);
      }
      held.set(name, { shape: [data.length], data });
    }
    const state = new DeviceState(runtime, places);
    /** The last of those that share values, which moving averages do at first with what they follow. */
    const last = new Map(Array.from(held, ([name, { data }]) => [data.buffer, name]));
    return closingOnError([{ close: async () => state.dispose() }], async () => {
      for (const [name, { shape, data }] of held) {
        const options = { transfer: transfer && last.get(data.buffer) === name };
        state.#tensors.set(name, await runtime.upload({ dtype: "float32", shape, data }, options));
      }
      return state;
    });
  }

  get names(): Iterable<string> {
    return this.#places.keys();
  }

  /** What to feed a program whose inputs are called `names`; `instead` gives the name of a tensor that stands in for one. */
  feeds(names: Iterable<string>, instead: (name: string) => string = (name) => name): Record<string, DeviceTensor> {
    const feeds: Record<string, DeviceTensor> = {};
    for (const name of names) {
      const tensor = this.#tensors.get(instead(name)) ?? this.#tensors.get(name);
      if (tensor) feeds[name] = tensor;
    }
    return feeds;
  }

  /** Those that are there of some names, as a run takes them to donate. */
  tensors(names: Iterable<string>): DeviceTensor[] {
    return Object.values(this.feeds(names));
  }

  /** Puts a step's `next.*` outputs in the place of what they follow.  The memory before it serves the step after it. */
  advance(results: Readonly<Record<string, Value>>): void {
    const before: DeviceTensor[] = [];
    for (const [name, tensor] of this.#tensors) {
      const next = results[nextName(name)] as DeviceTensor | undefined;
      if (!next) continue;
      before.push(tensor);
      this.#tensors.set(name, next);
    }
    this.#runtime.dispose(before, { reuse: true });
  }

  /** Reads those of some names, one after the other, each shown to `check` while the next is still to come. */
  async read(
    only: (name: string) => boolean = () => true,
    check: (name: string, tensor: FloatTensor) => void = () => {},
  ): Promise<Tensors> {
    const tensors = new Map<string, FloatTensor>();
    const packs = new Map<string, Float32Array<ArrayBuffer>>();
    for (const [name, { held, start, shape }] of this.#places) {
      if (!only(name)) continue;
      const whole =
        packs.get(held) ?? ((await this.#runtime.read(this.#tensors.get(held)!)).data as Float32Array<ArrayBuffer>);
      if (held !== name) packs.set(held, whole);
      const tensor = { shape, data: held === name ? whole : whole.slice(start, start + staticSize(shape)) };
      check(name, tensor);
      tensors.set(name, tensor);
    }
    return tensors;
  }

  dispose(): void {
    this.#runtime.dispose([...this.#tensors.values()]);
    this.#tensors.clear();
  }
}
