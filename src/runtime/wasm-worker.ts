import * as ort from "onnxruntime-web/wasm";
import { serve } from "./web-worker.ts";

serve(ort, "wasm");
