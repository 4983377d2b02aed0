import { openWeb, type WebOptions } from "../../src/runtime/web.ts";

// Runs in a worker of the page: answers options with the device that they open, or with what went wrong.

addEventListener("message", async ({ data }: MessageEvent<WebOptions>) => {
  try {
    const runtime = await openWeb(data);
    await runtime.close();
    postMessage(runtime.device);
  } catch (error) {
    postMessage((error as Error).message);
  }
});
