import { existsSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import type { NodeDevice } from "./node.ts";

// What to do where a device cannot be used.

const mends = {
  cpu: "run `npm ci`, and report this if it happens again",
  webgpu: "install a driver: on Linux one for Vulkan, and libvulkan.so.1",
  cuda: "install CUDA 12 and cuDNN 9",
};

const require = createRequire(import.meta.url);

/** Where the engine's package has a library for each platform and processor; undefined where it is not found by name, as in a bundle. */
function librariesOf(): string | undefined {
  try {
    return join(require.resolve("onnxruntime-node/package.json"), "..", "bin", "napi-v6");
  } catch {
    return undefined;
  }
}

/** For a person whose device did not open, for a reason in the engine's words. */
export function mendOf(device: NodeDevice, reason: string, { platform, arch } = process): string {
  const libraries = librariesOf();
  if (libraries && reason.includes("onnxruntime_binding.node") && !existsSync(join(libraries, platform, arch))) {
    const has = readdirSync(libraries).map((name) => `${name} (${readdirSync(join(libraries, name)).join(", ")})`);
    return `ONNX Runtime comes for ${has.join(", ")}; this is ${platform} on ${arch}`;
  }
  if (/ld-linux|GLIBC/.test(reason))
    return "ONNX Runtime needs a recent glibc: in place of Alpine's image take one such as node:22-slim, of an old Linux a newer one";
  return mends[device];
}

/** What to do where the engine's package is here without its part for CUDA. */
export function missingLibrary(): string | undefined {
  if (process.platform !== "linux" || process.arch !== "x64") return "CUDA needs Linux on x64";
  const libraries = librariesOf();
  if (!libraries || existsSync(join(libraries, "linux", "x64", "libonnxruntime_providers_cuda.so"))) return undefined;
  return "fetch its library with `ONNXRUNTIME_NODE_INSTALL=cuda12 npm rebuild onnxruntime-node`";
}

/** The engine's own words, without the place in its source that they begin with. */
export function reasonOf(error: unknown): string {
  const words = (error instanceof Error ? error.message : String(error)).trim();
  return words.includes("WebGPU adapter") ? "no driver for it was found" : words.split("\n")[0];
}
