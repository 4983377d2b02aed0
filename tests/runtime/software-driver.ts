import { existsSync } from "node:fs";
import { nodeDevices } from "../../src/runtime/node.ts";

const known = [
  "/usr/lib/chromium",
  "/usr/lib64/chromium-browser",
  "/usr/lib/chromium-browser",
  "/opt/google/chrome",
].map((folder) => `${folder}/vk_swiftshader_icd.json`);

/**
 * Why WebGPU cannot be tested in Node, or undefined where it can: by a driver of the machine, else by SwiftShader, which
 * computes on the processor and comes with Chromium.  Call it before anything opens WebGPU: drivers are found once.
 */
export async function missingWebGpu(): Promise<string | undefined> {
  const report = async () => (await nodeDevices()).find(({ device }) => device === "webgpu");
  const found = await report();
  if (found?.usable) return undefined;
  const driver = known.find(existsSync);
  if (!driver) return `${found?.note}; Chromium's SwiftShader would do, and is not installed`;
  process.env.VK_ICD_FILENAMES = driver;
  const now = await report();
  return now?.usable ? undefined : now?.note;
}
