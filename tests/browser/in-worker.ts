import { resize } from "../../src/data/resize.ts";
import { openWeb, readImage, type WebOptions } from "../../src/web.ts";

// Runs in a worker of the page: answers options with the device that they open and a clear picture made smaller, or with what went wrong.

addEventListener("message", async ({ data }: MessageEvent<WebOptions>) => {
  try {
    const runtime = await openWeb(data);
    await runtime.close();
    const { data: pixels } = resize(await readImage(new ImageData(4, 2)), 2, 1);
    postMessage(`${runtime.device} ${pixels}`);
  } catch (error) {
    postMessage((error as Error).message);
  }
});
