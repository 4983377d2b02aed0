/** What belongs to a page or a worker of one: the engine, and pictures. */
export { readImage } from "./data/decode-web.ts";
export { openWeb, type WebDevice, type WebOptions, webDevices } from "./runtime/web.ts";
