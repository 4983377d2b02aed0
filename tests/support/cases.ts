import type { HostTensor } from "../../src/runtime/runtime.ts";
import type { CheckOptions, Drawing } from "./check.ts";

/** One way to use an operation: what it reads, how it is drawn, and a naive loop for what it should give. */
export interface OpCase extends CheckOptions {
  /** The exported name, then what is odd about this use: "conv: groups". */
  name: string;
  inputs: readonly HostTensor[];
  draw: Drawing;
  naive: (...xs: HostTensor[]) => HostTensor;
}

export const op = (
  name: string,
  inputs: readonly HostTensor[],
  draw: Drawing,
  naive: OpCase["naive"],
  options: CheckOptions = {},
): OpCase => ({ name, inputs, draw, naive, ...options });

// What the engine's processor kernels have in float32 alone: Erf and Gelu, Softplus, LeakyRelu, Conv, ConvTranspose, AveragePool,
// InstanceNormalization, Resize.  LayerNormalization takes float64, but gives its statistics in float32.
export const float32 = { dtype: "float32" } as const;
/** For a second derivative, or one of steep functions, in float32. */
export const coarse = { dtype: "float32", tolerance: 2e-3 } as const;
