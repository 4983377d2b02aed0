import { findModel } from "../../src/backbones/index.ts";
import type { Image } from "../../src/data/image.ts";
import { resize } from "../../src/data/resize.ts";
import { readModelMetadata } from "../../src/train/checkpoint/model-metadata.ts";
import { type Likely, openExported } from "../../src/train/export/exported.ts";
import { openWeb, readImage, type WebDevice, type WebOptions, webDevices } from "../../src/web.ts";
import { fetchFile } from "../../src/weights/url-source.ts";
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
  const file = new File([bytesOf(bytes)], name);
  const runtime = await openWeb({ device: "wasm" });
  try {
    return await learnFrom(runtime, file, weight);
  } finally {
    await runtime.close();
  }
}

const bytesOf = (base64: string): Uint8Array<ArrayBuffer> =>
  Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

/** A picture as a page may have it. */
async function sourceOf(
  kind: "file" | "img" | "canvas" | "pixels",
  bytes: string,
): Promise<Parameters<typeof readImage>[0]> {
  const file = new File([bytesOf(bytes)], "a.png");
  if (kind === "file") return file;
  if (kind === "img") return Object.assign(new Image(), { src: URL.createObjectURL(file) });
  const bitmap = await createImageBitmap(file);
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  const context = canvas.getContext("2d")!;
  context.drawImage(bitmap, 0, 0);
  return kind === "canvas" ? canvas : context.getImageData(0, 0, bitmap.width, bitmap.height);
}

/** What is read of a picture: its size and its pixels in base64; or what went wrong. */
async function read(
  ...[kind, bytes]: Parameters<typeof sourceOf>
): Promise<(Omit<Image, "data"> & { data: string }) | string> {
  try {
    const { data, ...size } = await readImage(await sourceOf(kind, bytes));
    return { ...size, data: btoa(Array.from(data, (value) => String.fromCharCode(value)).join("")) };
  } catch (error) {
    return (error as Error).message;
  }
}

/** What an exported model says of pictures, all at once. */
async function classify(model: string, pictures: readonly string[]): Promise<Likely[][]> {
  const runtime = await openWeb({ device: "wasm" });
  try {
    const predictor = await openExported(runtime, bytesOf(model));
    return await Promise.all(
      pictures.map(async (bytes) => predictor.predict(await readImage(new Blob([bytesOf(bytes)])), { topk: 3 })),
    );
  } finally {
    await runtime.close();
  }
}

/** How much was fetched and what is told on the way; or what went wrong. */
async function fetched(address: string): Promise<{ length: number; last: readonly unknown[] } | string> {
  let last: readonly unknown[] = [];
  try {
    const { length } = await fetchFile(address, { tries: 1, onProgress: (...now) => (last = now) });
    return { length, last };
  } catch (error) {
    return (error as Error).message;
  }
}

const said = (work: () => unknown): string => {
  try {
    return String(work());
  } catch (error) {
    return (error as Error).message;
  }
};
const shrink = () => said(() => resize({ width: 4, height: 4, channels: 3, data: new Uint8Array(48) }, 2, 2).data);
const modelAt = async (address: string) => {
  const bytes = await fetchFile(address);
  return said(() => readModelMetadata(bytes).model);
};
const find = async (name: string) => (await findModel(name)).family;
const scripts = () => performance.getEntriesByType("resource").map(({ name }) => name);

const oriel = {
  runCase,
  train,
  drop,
  read,
  classify,
  fetched,
  modelAt,
  shrink,
  find,
  scripts,
  open,
  devices: webDevices,
  isolated: () => crossOriginIsolated,
};
export type Oriel = typeof oriel;
Object.assign(globalThis, { oriel });
