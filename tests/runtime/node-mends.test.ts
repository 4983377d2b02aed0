import assert from "node:assert/strict";
import { test } from "node:test";
import { mendOf } from "../../src/runtime/node-mends.ts";

test("where the engine has no library, it is said where it has", () => {
  const reason = "Cannot find module '../bin/napi-v6/darwin/x64/onnxruntime_binding.node'";
  const elsewhere = mendOf("cpu", reason, { ...process, platform: "darwin", arch: "x64" });
  assert.match(elsewhere, /^ONNX Runtime comes for .*darwin \(arm64\).*; this is darwin on x64$/);
  assert.match(mendOf("cpu", reason.replace("darwin", "linux"), { ...process, platform: "linux" }), /npm ci/);
});

test("a system without glibc, or with an old one, needs another", () => {
  for (const reason of [
    "Error loading shared library ld-linux-x86-64.so.2: No such file or directory (needed by libonnxruntime.so.1)",
    "/lib64/libm.so.6: version `GLIBC_2.34' not found (required by libonnxruntime.so.1)",
  ])
    assert.match(mendOf("cpu", reason), /glibc.*node:22-slim/);
  assert.match(mendOf("webgpu", "no driver for it was found"), /^install a driver/);
});
