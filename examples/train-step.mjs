// Trains with onnxruntime-node alone: Oriel wrote the step as a file, and is not needed to run it.
//
//     oriel export runs/micro/config.json step.onnx --train-step --batches 20
//     node examples/train-step.mjs step.json
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";

const { files, state, next, schedule } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const at = (name) => join(dirname(process.argv[2]), name);
const arrays = { F32: ["float32", Float32Array], I32: ["int32", Int32Array] };
const scalar = (type, value) => new Tensor(type, [value], []);

/** Tensors of a safetensors file: the length of a JSON header, the header, then the bytes. */
function read(name) {
  const { buffer } = new Uint8Array(readFileSync(at(name)));
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const { __metadata__, ...header } = JSON.parse(Buffer.from(buffer, 8, length).toString());
  const tensor = ({ dtype, shape, data_offsets: [from, to] }) => {
    const [type, Values] = arrays[dtype];
    return new Tensor(type, new Values(buffer.slice(8 + length + from, 8 + length + to)), shape);
  };
  return Object.fromEntries(Object.entries(header).map(([key, entry]) => [key, tensor(entry)]));
}

const session = await InferenceSession.create(at(files.step));
const batches = read(files.batches);
let held = read(files.state);
for (let i = 0; `image.${i}` in batches; i++) {
  const batch = { image: batches[`image.${i}`], target: batches[`target.${i}`] };
  const { lr, step, seed } = schedule[i];
  const controls = { lr: scalar("float32", lr), step: scalar("float32", step), seed: scalar("uint32", seed) };
  const results = await session.run({ ...held, ...batch, ...controls });
  held = Object.fromEntries(state.map((name) => [name, results[next + name]]));
  console.log(results.loss.data[0]);
}
