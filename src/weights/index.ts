export { fileSource } from "./file-source.ts";
export { type Fit, type FitEntry, type FitRow, type FitTable, fitTable, fitWeights } from "./fit.ts";
export { identify } from "./identify.ts";
export { encodeSafetensors, type NamedTensors, SafetensorsFile, type TensorInfo } from "./safetensors.ts";
export { saveSafetensors } from "./save-safetensors.ts";
export { type ByteSource, blobSource, bytesSource } from "./source.ts";
export { type StoredDtype, type StoredTensor, toFloat32 } from "./stored.ts";
export { readTorch, type TorchFile } from "./torch.ts";
export { writeFileSafely } from "./write-file.ts";
