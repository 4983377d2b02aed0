/** Exit statuses of a process that a signal ended, as shells report them. */
const statuses = { SIGINT: 130, SIGTERM: 143 } as const;

/**
 * Ctrl-C, or the SIGTERM of a scheduler or a container that is to stop.  Work that asked for the signal may save and end; other work,
 * and a second press, end at once.
 */
export class Interrupt {
  readonly #controller = new AbortController();
  #awaited = false;
  /** What to exit with once interrupted. */
  status: number = statuses.SIGINT;

  constructor() {
    for (const [name, status] of Object.entries(statuses)) process.on(name, () => this.#stop(status));
  }

  #stop(status: number): void {
    if (!this.#awaited || this.pressed) process.exit(status);
    process.stderr.write("\nstopping: what was learnt is saved first; press Ctrl-C again to leave at once\n");
    this.status = status;
    this.#controller.abort();
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
