import { openWeb, type WebDevice, type WebOptions, webDevices } from "../../src/runtime/web.ts";
import { runtimeCases } from "../runtime/suite.ts";
import { trainingLosses } from "../runtime/training.ts";
import { type Dropped, learnFrom } from "./dropped.ts";

// Runs in the page; the test process calls what lies in `oriel`.

const opened: Partial<Record<WebDevice, ReturnType<typeof openWeb>>> = {};

/** One case of the suite; what it failed with, or nothing. */
async function runCase(device: WebDevice, name: string): Promise<string | undefined> {
  const open = () => openWeb({ device });
  opened[device] ??= open();
  try {
    await runtimeCases.find((entry) => entry.name === name)?.run(await opened[device], open);
    return undefined;
  } catch (error) {
    return (error as Error).stack ?? String(error);
  }
}

async function train(
  device: WebDevice,
  model: string,
  options: { steps: number; strict?: boolean },
): Promise<number[]> {
  const runtime = await openWeb({ device });
  try {
    return await trainingLosses(runtime, model, options);
  } finally {
    await runtime.close();
  }
}

/** The device that opens, or the sentence that says why none does. */
async function open(options: WebOptions): Promise<string> {
  try {
    const runtime = await openWeb(options);
    await runtime.close();
    return runtime.device;
  } catch (error) {
    return (error as Error).message;
  }
}

/** What a dropped file is good for; `bytes` are its own, in base64. */
async function drop(bytes: string, name: string, weight: string): Promise<Dropped> {
  const file = new File([Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0))], name);
  const runtime = await openWeb({ device: "wasm" });
  try {
    return await learnFrom(runtime, file, weight);
  } finally {
    await runtime.close();
  }
}

const oriel = { runCase, train, drop, open, devices: webDevices, isolated: () => crossOriginIsolated };
export type Oriel = typeof oriel;
Object.assign(globalThis, { oriel });
