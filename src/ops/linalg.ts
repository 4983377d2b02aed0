import { ShapeError } from "../base/errors.ts";
import { bindShape, broadcast, type Dim, type Shape, sameDim, sizeOf } from "../graph/shape.ts";
import { FloatAttr, type Tensor } from "../graph/tensor.ts";
import { type Draw, defineOp } from "./define.ts";

function matmulShape(a: Shape, b: Shape): Shape {
  if (a.length < 2 || b.length < 2) throw new ShapeError("both sides need two axes or more");
  const [inner, other] = [a[a.length - 1], b[b.length - 2]];
  if (!sameDim(inner, other)) throw new ShapeError(`inner axes differ, ${inner} and ${other}`);
  const batch = broadcast(a.slice(0, -2), b.slice(0, -2));
  if (!batch) throw new ShapeError("leading axes do not broadcast");
  return [...batch, a[a.length - 2], b[b.length - 1]];
}

/** Multiply-adds of one image: an open batch counts once. */
const one = (shape: Shape): number => bindShape(shape, 1).reduce((x, y) => x * y, 1);

/** Batched matrix product (ONNX MatMul).  a: [...B, M, K], b: [...B, K, N] -> [...B, M, N] */
export const matmul = defineOp({
  onnx: "MatMul",
  inputs: ["a", "b"],
  infer: ({ a, b }) => ({ dtype: a.dtype, shape: matmulShape(a.shape, b.shape) }),
  // y = a b  =>  da = dy bᵀ,  db = aᵀ dy
  vjp: ({ a, b }, dy) => ({
    a: dy.matmul(b.mT),
    // One matrix for many rows: a single product over all of them instead of one for each batch, summed.
    b: b.rank === 2 && a.rank > 2 ? gemm(rows(a), rows(dy), undefined, { transA: true }) : a.mT.matmul(dy),
  }),
  cost: ([a], [y]) => one(y.shape) * one([a!.shape[a!.rank - 1]]),
});

/** All leading axes merged.  [...B, C] -> [B, C] */
export const rows = (x: Tensor): Tensor => x.reshape([sizeOf(x.shape.slice(0, -1)), x.shape[x.rank - 1]]);

interface GemmAttrs {
  alpha?: number;
  beta?: number;
  transA?: boolean;
  transB?: boolean;
}

/** α op(a) op(b) + β c for matrices (ONNX Gemm); c broadcasts.  a: [M, K], b: [K, N] -> [M, N] */
export const gemm: Draw<["a", "b", "c?"], GemmAttrs> = defineOp({
  onnx: "Gemm",
  inputs: ["a", "b", "c?"],
  infer: ({ a, b, c }, { transA, transB }) => {
    if (a.rank !== 2 || b.rank !== 2) throw new ShapeError("both sides must have two axes");
    const [m, k]: Dim[] = transA ? [a.shape[1], a.shape[0]] : [...a.shape];
    const [k2, n]: Dim[] = transB ? [b.shape[1], b.shape[0]] : [...b.shape];
    if (!sameDim(k, k2)) throw new ShapeError(`inner axes differ, ${k} and ${k2}`);
    if (c && !broadcast(c.shape, [m, n])) throw new ShapeError("c does not broadcast to the product");
    return { dtype: a.dtype, shape: [m, n] };
  },
  vjp: ({ a, b, c }, dy, { attrs: { alpha, beta, transA, transB } }) => ({
    a: transA
      ? gemm(b, dy, undefined, { alpha, transA: transB, transB: true })
      : gemm(dy, b, undefined, { alpha, transB: !transB }),
    b: transB
      ? gemm(dy, a, undefined, { alpha, transA: true, transB: transA })
      : gemm(a, dy, undefined, { alpha, transA: !transA }),
    c: c ? (beta === undefined ? dy : dy.mul(beta)) : null,
  }),
  form: ({ alpha = 1, beta = 1, transA, transB }) => ({
    attributes: {
      alpha: new FloatAttr(alpha),
      beta: new FloatAttr(beta),
      transA: transA ? 1 : 0,
      transB: transB ? 1 : 0,
    },
  }),
  cost: ([a], [y], { transA }) => one(y.shape) * one([a!.shape[transA ? 0 : 1]]),
});
