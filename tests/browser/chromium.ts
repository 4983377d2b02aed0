import { createReadStream, existsSync, statSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { basename, extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { type Browser, chromium, type Page } from "playwright-core";

const places = [
  process.env.CHROMIUM,
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
  "/Applications/Chromium.app/Contents/MacOS/Chromium",
];

/** Chromium or Chrome as installed on this machine. */
export const chromiumPath: string | undefined = places.find((path) => path && existsSync(path));

/** SwiftShader gives WebGPU without a graphics processor; the rest keeps the browser from calling home. */
const flags = [
  "--no-sandbox",
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const types: Readonly<Record<string, string>> = {
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};
const isolation = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

export interface TestPage {
  /** A page at a path of the server; paths under "/plain/" are not cross-origin isolated, those under "/strict/" have no WebAssembly. */
  visit(path: string): Promise<Page>;
  close(): Promise<void>;
}

/** Bundles compiled scripts as an application would, serves them with the engine's files beside, and starts Chromium. */
export async function openTestPage(entryPoints: Readonly<Record<string, URL>>): Promise<TestPage> {
  const folder = await mkdtemp(join(tmpdir(), "oriel-page-"));
  await build({
    entryPoints: Object.fromEntries(Object.entries(entryPoints).map(([name, url]) => [name, fileURLToPath(url)])),
    bundle: true,
    splitting: true,
    format: "esm",
    outdir: folder,
    logLevel: "error",
  });
  const server = await serve(folder);
  const { port } = server.address() as AddressInfo;
  let browser: Browser | undefined;
  const close = async (): Promise<void> => {
    await browser?.close();
    server.closeAllConnections();
    server.close();
    await rm(folder, { recursive: true });
  };
  try {
    browser = await chromium.launch({ executablePath: chromiumPath, args: flags });
    const context = await browser.newContext();
    const visit = async (path: string): Promise<Page> => {
      const page = await context.newPage();
      await page.goto(`http://127.0.0.1:${port}${path}`);
      return page;
    };
    return { visit, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/**
 * The bundle at "/" and "/plain/", the engine's files beside it and in "/engine/", each page an empty one that runs page.js; what may
 * make code of text is forbidden in "/strict/", and WebAssembly with it.
 */
async function serve(folder: string): Promise<Server> {
  const engine = fileURLToPath(new URL(".", import.meta.resolve("onnxruntime-web/wasm")));
  const server = createServer(({ url = "/" }, response) => {
    const { pathname } = new URL(url, "http://localhost");
    const strict = { ...isolation, "Content-Security-Policy": "script-src 'self'" };
    const headers = pathname.startsWith("/plain/") ? {} : pathname.startsWith("/strict/") ? strict : isolation;
    if (pathname.endsWith("/")) {
      response.writeHead(200, { ...headers, "Content-Type": "text/html" });
      response.end('<!doctype html><link rel="icon" href="data:,"><script type="module" src="page.js"></script>');
      return;
    }
    const name = basename(pathname);
    const missing = pathname.startsWith("/missing/") && /^ort-|-worker\.js$/.test(name);
    const file = join(name.startsWith("ort-") ? engine : folder, name);
    if (missing || !existsSync(file)) {
      response.writeHead(404).end();
      return;
    }
    const type = types[extname(name)] ?? "application/octet-stream";
    response.writeHead(200, { ...headers, "Content-Type": type, "Content-Length": statSync(file).size });
    createReadStream(file).pipe(response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}
