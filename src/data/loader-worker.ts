/** The thread that makes batches: jobs come in, batches go out, in the order of the jobs. */
import { parentPort, workerData } from "node:worker_threads";
import { toWire, type WireError } from "../base/errors.ts";
import { batchMaker, type Fetched, type Job, type Made, type MakerConfig } from "./batch-maker.ts";
import { decodeNode } from "./decode-node.ts";
import type { Image } from "./image.ts";

export type ToWorker =
  | { type: "job"; job: Job }
  | { type: "fetched"; id: number; fetched: Fetched }
  | { type: "close" };

export type FromWorker =
  | { type: "fetch"; id: number; index: number }
  | { type: "decoded"; index: number; image: Image }
  | { type: "broken"; index: number; reason: string }
  | { type: "made"; made: Made }
  | { type: "failed"; error: WireError };

if (parentPort) {
  const port = parentPort;
  const send = (message: FromWorker, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer);
  const waiting = new Map<number, (fetched: Fetched) => void>();
  let lastId = 0;
  const make = batchMaker(workerData as MakerConfig, decodeNode, {
    fetch: (index) =>
      new Promise((resolve) => {
        waiting.set(++lastId, resolve);
        send({ type: "fetch", id: lastId, index });
      }),
    decoded: (index, image) => send({ type: "decoded", index, image }),
    broken: (index, reason) => send({ type: "broken", index, reason }),
  });

  let queue = Promise.resolve();
  let closing = false;
  const run = async (job: Job): Promise<void> => {
    if (closing) return;
    try {
      const made = await make(job);
      const { image, label, index, target } = made;
      send({ type: "made", made }, [image.buffer, label.buffer, index.buffer, ...(target ? [target.buffer] : [])]);
    } catch (error) {
      send({ type: "failed", error: toWire(error, "loader") });
    }
  };
  port.on("message", (message: ToWorker) => {
    if (message.type === "job") {
      queue = queue.then(() => run(message.job));
    } else if (message.type === "fetched") {
      waiting.get(message.id)?.(message.fetched);
      waiting.delete(message.id);
    } else {
      closing = true;
      queue.then(() => port.close());
    }
  });
}
