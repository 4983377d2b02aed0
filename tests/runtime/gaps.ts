const noBuffer = "ONNX Runtime's JavaScript interface has no device tensor of this type";

/** Cases that a device cannot pass, each with the reason. */
export const knownGaps: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  webgpu: Object.fromEntries(
    ["float64", "uint64", "int16", "uint16", "int8"].map((dtype) => [`dtype ${dtype}`, noBuffer]),
  ),
};
