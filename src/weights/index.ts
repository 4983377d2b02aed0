export { identify, type WeightFormat } from "../base/identify.ts";
export { fileSource } from "./file-source.ts";
export { type Fit, type FitEntry, type FitRow, type FitTable, fitTable, fitWeights } from "./fit.ts";
export {
  type DownloadEvent,
  type HubName,
  type HubOptions,
  type HubSettings,
  hubFile,
  hubSettings,
  hubWeights,
  parseHubName,
} from "./hub/index.ts";
export { filesBeside, openOnnxModel } from "./onnx-model.ts";
export type { OpenOptions, WeightsFile, WeightsSource } from "./open.ts";
export { openWeights, weightsPath } from "./open-node.ts";
export { encodeSafetensors, type NamedTensors, SafetensorsFile, type TensorInfo } from "./safetensors.ts";
export { saveSafetensors, saveShardedSafetensors } from "./save-safetensors.ts";
export { saveTorch } from "./save-torch.ts";
export { type ByteSource, blobSource, bytesSource } from "./source.ts";
export { type FileTensor, type StoredDtype, type StoredTensor, toFloat32, type ValueTensor } from "./stored.ts";
export { openTorch, readTorch, type TorchFile, type TorchOptions } from "./torch.ts";
export { namesIn, type Translation, translate } from "./translate.ts";
export { urlSource } from "./url-source.ts";
export { unwrapNames } from "./wrappings.ts";
export { writeFileSafely } from "./write-file.ts";
