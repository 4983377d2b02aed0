import type { DeviceTensor, Runtime, Value } from "../runtime/runtime.ts";
import { type FloatTensor, nextName, type Tensors } from "./step.ts";

/** Named float32 tensors that live where the device is: uploaded once, replaced by every step, read for a checkpoint. */
export class DeviceState {
  readonly #runtime: Runtime;
  readonly #tensors = new Map<string, DeviceTensor>();

  private constructor(runtime: Runtime) {
    this.#runtime = runtime;
  }

  /** With `transfer` the values are handed over, not copied, and are gone here. */
  static async upload(runtime: Runtime, tensors: Tensors, { transfer = false } = {}): Promise<DeviceState> {
    const state = new DeviceState(runtime);
    /** The last of those that share values, which moving averages do at first with what they follow. */
    const last = new Map(Array.from(tensors, ([name, { data }]) => [data.buffer, name]));
    for (const [name, { shape, data }] of tensors) {
      const options = { transfer: transfer && last.get(data.buffer) === name };
      state.#tensors.set(name, await runtime.upload({ dtype: "float32", shape, data }, options));
    }
    return state;
  }

  get names(): Iterable<string> {
    return this.#tensors.keys();
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
    this.#runtime.dispose(before);
  }

  /** Reads those of some names, one after the other, each shown to `check` while the next is still to come. */
  async read(
    only: (name: string) => boolean = () => true,
    check: (name: string, tensor: FloatTensor) => void = () => {},
  ): Promise<Tensors> {
    const tensors = new Map<string, FloatTensor>();
    for (const [name, device] of this.#tensors) {
      if (!only(name)) continue;
      const { shape, data } = await this.#runtime.read(device);
      const tensor = { shape, data: data as Float32Array<ArrayBuffer> };
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
