/**
 * Keeps a worker thread from being ended inside the engine, which would abort the whole process: the thread marks when it works,
 * and starts nothing once the gate is shut.
 */
export class Gate {
  /** [works, shut] */
  readonly #state: Int32Array<SharedArrayBuffer>;

  constructor(memory: SharedArrayBuffer = new SharedArrayBuffer(8)) {
    this.#state = new Int32Array(memory);
  }

  get memory(): SharedArrayBuffer {
    return this.#state.buffer;
  }

  /** Whether work may begin; `leave` ends it. */
  enter(): boolean {
    Atomics.store(this.#state, 0, 1);
    if (Atomics.load(this.#state, 1) === 0) return true;
    this.leave();
    return false;
  }

  leave(): void {
    Atomics.store(this.#state, 0, 0);
    Atomics.notify(this.#state, 0);
  }

  shut(): void {
    Atomics.store(this.#state, 1, 1);
  }

  /** Blocks until nothing works any more. */
  wait(): void {
    Atomics.wait(this.#state, 0, 1, 60_000);
  }
}
