import type { WireError } from "../base/errors.ts";
import type { Data, DType } from "../graph/dtype.ts";
import type { CompileOptions, OpTime, Port } from "./runtime.ts";

// What the caller's thread and the engine's thread say to each other.  The same messages in Node and in a page.

/** A tensor on the wire: values, or the number of a tensor that the engine holds. */
export type WireTensor = { dtype: DType; shape: readonly number[]; data: Data } | { id: number };
export type WireResult = { dtype: DType; shape: readonly number[]; data?: Data; id?: number };

export interface Requests {
  open: { request: { device: string; threads: number; wasmPaths?: string }; reply: Record<never, never> };
  compile: {
    request: {
      model: Uint8Array<ArrayBuffer>;
      options: CompileOptions;
      /** Outputs that may be written over an input. */
      inPlace: Readonly<Record<string, string>>;
    };
    reply: { program: number; inputs: readonly Port[]; outputs: readonly Port[] };
  };
  run: {
    request: {
      program: number;
      feeds: Record<string, WireTensor>;
      outputs?: readonly string[];
      keep: readonly string[];
      donate: readonly number[];
    };
    reply: { outputs: Record<string, WireResult> };
  };
  upload: { request: { tensor: WireTensor }; reply: { id: number } };
  read: { request: { id: number }; reply: { tensor: WireResult } };
  dispose: { request: { ids: readonly number[]; reuse: boolean }; reply: Record<never, never> };
  profile: { request: { program: number }; reply: { times: OpTime[] } };
  release: { request: { program: number }; reply: Record<never, never> };
}
export type Kind = keyof Requests;

export interface Message<K extends Kind = Kind> {
  call: number;
  kind: K;
  request: Requests[K]["request"];
}
export type Answer = { call: number; reply: unknown } | { call: number; error: WireError };
