/** The exit status of a process that Ctrl-C ended, as shells report it. */
export const interrupted = 130;

/** Ctrl-C.  Work that asked for the signal may save and end; other work, and a second press, end at once. */
export class Interrupt {
  readonly #controller = new AbortController();
  #awaited = false;

  constructor() {
    process.on("SIGINT", () => {
      if (!this.#awaited || this.pressed) process.exit(interrupted);
      process.stderr.write("\nstopping: what was learnt is saved first; press Ctrl-C again to leave at once\n");
      this.#controller.abort();
    });
  }

  get pressed(): boolean {
    return this.#controller.signal.aborted;
  }

  /** From now on the first press only asks to end. */
  signal(): AbortSignal {
    this.#awaited = true;
    return this.#controller.signal;
  }
}
