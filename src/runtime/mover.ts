import type { InferenceSession, Tensor } from "onnxruntime-common";
import { type DType, dtypeCodes } from "../graph/dtype.ts";
import { ProtoWriter } from "../graph/onnx/proto.ts";

/** A model that returns what it is given, of any shape. */
export function identityModel(dtype: DType): Uint8Array<ArrayBuffer> {
  const port = (name: string) => (value: ProtoWriter) =>
    value.string(1, name).message(2, (type) => type.message(1, (tensor) => tensor.int(1, dtypeCodes[dtype])));
  return new ProtoWriter()
    .int(1, 10)
    .message(7, (graph) => {
      graph.message(1, (n) => n.string(1, "x").string(2, "y").string(3, "move").string(4, "Identity"));
      graph.string(2, "move").message(11, port("x")).message(12, port("y"));
    })
    .message(8, (opset) => opset.string(1, "").int(2, 21))
    .finish();
}

/**
 * Moves tensors to a device or back by running a program that does nothing else: the one way that exists in Node, where a device
 * tensor's own `getData` ends the process.
 */
export class Mover {
  readonly #create: (model: Uint8Array<ArrayBuffer>) => Promise<InferenceSession>;
  readonly #sessions = new Map<string, InferenceSession>();

  /** `create` makes sessions whose outputs lie where tensors are to be moved to. */
  constructor(create: (model: Uint8Array<ArrayBuffer>) => Promise<InferenceSession>) {
    this.#create = create;
  }

  async move(tensor: Tensor): Promise<Tensor> {
    let session = this.#sessions.get(tensor.type);
    if (!session) {
      session = await this.#create(identityModel(tensor.type as DType));
      this.#sessions.set(tensor.type, session);
    }
    return (await session.run({ x: tensor })).y as Tensor;
  }
}
