import type { InferenceSession, Tensor } from "onnxruntime-common";
import { dtypeCodes } from "../graph/dtype.ts";
import {
  graphFields,
  modelFields,
  nodeFields,
  sequenceTypeFields,
  tensorFields,
  tensorTypeFields,
  typeFields,
  valueFields,
} from "../graph/onnx/fields.ts";
import { ProtoWriter } from "../graph/onnx/proto.ts";

// ONNX Runtime's Node binding writes outputs into the buffers that it is given, and then copies each into a new one, which is
// garbage at once: for the state of a training step that costs more than the update itself, in time and in memory.  It copies in
// the order of the model's outputs and gives up at the first that is no tensor.  So models here get a sequence as first output,
// which ends the copying before it begins; by then everything lies in the buffers.
// https://github.com/microsoft/onnxruntime/pull/32346 ends the copies; with a release that has it this file can go.

const halt = "oriel.halt";
const refusal = /non[- ]tensor type/i;

/** The output in front of all others.  Messages of the protocol buffer format merge when they are joined. */
const prefix = new ProtoWriter()
  .message(modelFields.graph, (graph) => {
    graph.message(graphFields.node, (node) =>
      node
        .string(nodeFields.input, `${halt}.item`)
        .string(nodeFields.output, halt)
        .string(nodeFields.name, halt)
        .string(nodeFields.opType, "SequenceConstruct"),
    );
    graph.message(graphFields.initializer, (tensor) =>
      tensor
        .int(tensorFields.dataType, dtypeCodes.float32)
        .string(tensorFields.name, `${halt}.item`)
        .bytes(tensorFields.rawData, new Uint8Array(4)),
    );
    graph.message(graphFields.output, (value) =>
      value
        .string(valueFields.name, halt)
        .message(valueFields.type, (type) =>
          type.message(typeFields.sequence, (sequence) =>
            sequence.message(sequenceTypeFields.elemType, (item) =>
              item.message(typeFields.tensor, (tensor) => tensor.int(tensorTypeFields.elemType, dtypeCodes.float32)),
            ),
          ),
        ),
    );
  })
  .finish();

/** A model that `runUncopied` can run. */
export function withHalt(model: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const joined = new Uint8Array(prefix.length + model.length);
  joined.set(prefix);
  joined.set(model, prefix.length);
  return joined;
}

/** Runs and writes into `fetches`, without copies. */
export async function runUncopied(
  session: InferenceSession,
  feeds: Record<string, Tensor>,
  fetches: Record<string, Tensor>,
): Promise<void> {
  try {
    // A spread of so many names makes a hidden class, which lies about until all garbage is collected.
    await session.run(feeds, Object.assign({}, fetches, { [halt]: null }));
  } catch (error) {
    if (!(error instanceof Error && refusal.test(error.message))) throw error;
  }
}
