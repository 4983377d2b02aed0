/**
 * The numbers of the fields of ONNX's messages, by the names that they have in
 * https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
 */

export const modelFields = {
  irVersion: 1,
  producerName: 2,
  graph: 7,
  opsetImport: 8,
  metadataProps: 14,
  functions: 25,
} as const;

export const opsetFields = { domain: 1, version: 2 } as const;

/** Of `StringStringEntryProto`. */
export const entryFields = { key: 1, value: 2 } as const;

export const functionFields = { name: 1 } as const;

export const graphFields = {
  node: 1,
  name: 2,
  initializer: 5,
  input: 11,
  output: 12,
  valueInfo: 13,
  sparseInitializer: 15,
} as const;

export const nodeFields = { input: 1, output: 2, name: 3, opType: 4, attribute: 5, domain: 7 } as const;

export const attributeFields = {
  name: 1,
  f: 2,
  i: 3,
  s: 4,
  t: 5,
  g: 6,
  floats: 7,
  ints: 8,
  strings: 9,
  type: 20,
} as const;

/** Values of `AttributeProto.AttributeType`. */
export const attributeTypes = { float: 1, int: 2, string: 3, graph: 5, floats: 6, ints: 7, strings: 8 } as const;

export const tensorFields = {
  dims: 1,
  dataType: 2,
  segment: 3,
  floatData: 4,
  int32Data: 5,
  int64Data: 7,
  name: 8,
  rawData: 9,
  doubleData: 10,
  uint64Data: 11,
  externalData: 13,
  dataLocation: 14,
} as const;

/** The value of `TensorProto.DataLocation` of a tensor whose values lie in another file. */
export const externalLocation = 1;

/** Of `ValueInfoProto`. */
export const valueFields = { name: 1, type: 2 } as const;
export const typeFields = { tensor: 1, sequence: 4 } as const;
export const tensorTypeFields = { elemType: 1, shape: 2 } as const;
export const sequenceTypeFields = { elemType: 1 } as const;
export const shapeFields = { dim: 1 } as const;
export const dimFields = { value: 1, param: 2 } as const;
