// The package's default entry holds another, older WebGPU backend.
import * as ort from "onnxruntime-web/webgpu";
import { serve } from "./web-worker.ts";

serve(ort, "webgpu");
