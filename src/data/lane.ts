import { Worker } from "node:worker_threads";
import { fromWire, OrielError } from "../base/errors.ts";
import { batchMaker, type Host, type Job, type Made, type MakerConfig } from "./batch-maker.ts";
import type { FromWorker, ToWorker } from "./loader-worker.ts";

/** Something that makes batches one after another. */
export interface Lane {
  /** Batches asked for and not yet made. */
  readonly pending: number;
  make(job: Job): Promise<Made>;
  close(): Promise<void>;
}

/** On the calling thread. */
export function localLane(config: MakerConfig, host: Host): Lane {
  let last: Promise<unknown> = import("./decode-node.ts").then(({ decodeNode }) =>
    batchMaker(config, decodeNode, host),
  );
  const ready = last as Promise<(job: Job) => Promise<Made>>;
  let pending = 0;
  return {
    get pending() {
      return pending;
    },
    async make(job) {
      pending++;
      const made = last.catch(() => {}).then(async () => (await ready)(job));
      last = made;
      return made.finally(() => pending--);
    },
    async close() {
      await last.catch(() => {});
    },
  };
}

/** On a thread of its own, which does not keep the process alive while it has nothing to do. */
export function workerLane(config: MakerConfig, host: Host): Lane {
  const worker = new Worker(new URL("./loader-worker.js", import.meta.url), { workerData: config, execArgv: [] }); // flags such as --input-type are not for it
  worker.unref();
  const waiting: { resolve(made: Made): void; reject(error: unknown): void }[] = [];
  const post = (message: ToWorker): void => worker.postMessage(message);
  let closing = false;
  const done = () => {
    const first = waiting.shift();
    if (waiting.length === 0 && !closing) worker.unref();
    return first;
  };
  const fail = (error: unknown): void => {
    while (waiting.length > 0) done()?.reject(error);
  };
  let stopped = false;
  worker.on("message", (message: FromWorker) => {
    if (message.type === "made") done()?.resolve(message.made);
    else if (message.type === "failed") done()?.reject(fromWire(message.error));
    else if (message.type === "decoded") host.decoded(message.index, message.image);
    else if (message.type === "broken") host.broken(message.index, message.reason);
    else host.fetch(message.index).then((fetched) => post({ type: "fetched", id: message.id, fetched }));
  });
  worker.on("error", fail);
  const exited = new Promise<void>((resolve) => {
    worker.on("exit", (code) => {
      stopped = true;
      fail(
        new OrielError("loader", closing ? "the loader is closed" : `a loader's thread ended early, with code ${code}`),
      );
      resolve();
    });
  });
  return {
    get pending() {
      return waiting.length;
    },
    make: (job) =>
      new Promise((resolve, reject) => {
        if (stopped) return reject(new OrielError("loader", "the loader is closed"));
        waiting.push({ resolve, reject });
        worker.ref();
        post({ type: "job", job });
      }),
    async close() {
      if (stopped) return;
      closing = true;
      worker.ref();
      post({ type: "close" });
      await exited;
    },
  };
}
