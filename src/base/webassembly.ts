/** What helps where WebAssembly does not run, by what the browser says of it; undefined where it is something else. */
export function mendWebAssembly(said: string): string | undefined {
  if (/\bCSP\b|content.security.policy/i.test(said))
    return "let the page's Content-Security-Policy allow it: script-src 'self' 'wasm-unsafe-eval'";
  if (typeof WebAssembly === "undefined" || /\bSIMD\b/.test(said))
    return "use a browser that has WebAssembly with vectors (SIMD) and does not block it, as lockdown modes do";
  return undefined;
}
