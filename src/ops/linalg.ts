import { ShapeError } from "../base/errors.ts";
import { dataOf } from "../graph/dtype.ts";
import {
  broadcast,
  type Dim,
  isOpen,
  normalAxis,
  type Shape,
  sameDim,
  sameShape,
  sizeForOne,
  sizeOf,
} from "../graph/shape.ts";
import { constant, FloatAttr, type Tensor } from "../graph/tensor.ts";
import { type Draw, type DrawMany, defineMany, defineOp, explained, sameDtype } from "./define.ts";

function matmulShape(a: Shape, b: Shape): Shape {
  if (a.length < 2 || b.length < 2) throw new ShapeError("both sides need two axes or more");
  const [inner, other] = [a[a.length - 1], b[b.length - 2]];
  if (!sameDim(inner, other))
    throw new ShapeError({
      message: `inner axes differ, ${inner} and ${other}`,
      help: "the last axis of a is summed with the one before the last of b: make them equal, or transpose",
    });
  const batch = broadcast(a.slice(0, -2), b.slice(0, -2));
  if (!batch) throw new ShapeError("leading axes do not broadcast");
  return [...batch, a[a.length - 2], b[b.length - 1]];
}

/** Batched matrix product (ONNX MatMul).  a: [...B, M, K], b: [...B, K, N] -> [...B, M, N] */
export const matmul = defineOp({
  onnx: "MatMul",
  inputs: ["a", "b"],
  infer: ({ a, b }) => {
    sameDtype(a, b);
    return { dtype: a.dtype, shape: matmulShape(a.shape, b.shape) };
  },
  // y = a b  =>  da = dy bᵀ,  db = aᵀ dy
  // Where a or b was transposed for the product, its gradient will be too: drawn the other way round, the two cancel.
  vjp: ({ a, b }, dy) => ({
    a: isTransposed(a) ? b.matmul(dy.mT).mT : dy.matmul(b.mT),
    // One matrix for many rows: a single product over all of them instead of one for each batch, summed.
    b:
      b.rank === 2 && a.rank > 2
        ? gemm(rows(a), rows(dy), undefined, { transA: true })
        : isTransposed(b)
          ? dy.mT.matmul(a).mT
          : a.mT.matmul(dy),
  }),
  cost: ([a], [y]) => sizeForOne(y.shape) * sizeForOne([a!.shape[a!.rank - 1]]),
});

/** Whether a tensor is `x.mT`. */
const isTransposed = ({ node: { op, attrs }, rank }: Tensor): boolean =>
  op.name === "Transpose" && (attrs.perm as number[]).every((p, i) => p === (i < rank - 2 ? i : 2 * rank - 3 - i));

/**
 * Sums over all axes but the last.  [...B, C] -> [C].  A product with a row of ones: measured four times as fast on the CPU as
 * ReduceSum over a leading axis.
 */
export function columnSums(x: Tensor): Tensor {
  const flat = rows(x);
  const [count, channels] = flat.shape;
  if (isOpen(count)) return flat.sum([0]);
  const ones = constant(dataOf(x.dtype, new Float32Array(count).fill(1)), [1, count], x.dtype);
  return ones.matmul(flat).reshape([channels]);
}

/** All leading axes merged.  [...B, C] -> [B, C] */
export const rows = (x: Tensor): Tensor =>
  explained("rows", [x], ["x"], () => {
    if (x.rank === 0) throw new ShapeError("a single number has no last axis");
    return x.reshape([sizeOf(x.shape.slice(0, -1)), x.shape[x.rank - 1]]);
  });

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
    sameDtype(a, b);
    sameDtype(a, c);
    if (a.rank !== 2 || b.rank !== 2) throw new ShapeError("both sides must have two axes");
    const [m, k]: Dim[] = transA ? [a.shape[1], a.shape[0]] : [...a.shape];
    const [k2, n]: Dim[] = transB ? [b.shape[1], b.shape[0]] : [...b.shape];
    if (!sameDim(k, k2)) throw new ShapeError(`inner axes differ, ${k} and ${k2}`);
    const sum = c && broadcast(c.shape, [m, n]);
    if (c && !(sum && sameShape(sum, [m, n]))) throw new ShapeError("c does not broadcast to the product");
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
  cost: ([a], [y], { transA }) => sizeForOne(y.shape) * sizeForOne([a!.shape[transA ? 0 : 1]]),
});

/** x Wᵀ + b over the last axis, as one product of all rows.  x: [...B, I], weight: [O, I], bias: [O] -> [...B, O] */
export const linear = (x: Tensor, weight: Tensor, bias?: Tensor): Tensor =>
  gemm(rows(x), weight, bias, { transB: true }).reshape([...x.shape.slice(0, -1), weight.shape[0]]);

/** A matrix applied to one axis.  x: [...A, S, ...B], matrix: [S', S] -> [...A, S', ...B] */
export function along(x: Tensor, axis: number, matrix: Tensor): Tensor {
  const a = explained("along", [x, matrix], ["x", "matrix"], () => normalAxis(axis, x.rank));
  if (x.rank === 1) return along(x.unsqueeze(0), 1, matrix).squeeze(0);
  if (a === x.rank - 1) return x.matmul(matrix.mT);
  if (a === x.rank - 2) return matrix.matmul(x);
  return x.swapAxes(a, -1).matmul(matrix.mT).swapAxes(a, -1);
}

/**
 * Products summed over the letters that the result does not name: `einsum("nhqd,nhkd->nhqk", q, k)` (ONNX Einsum).  Every axis has
 * a letter, none twice in one tensor.
 */
export const einsum = (equation: string, ...xs: Tensor[]): Tensor =>
  explained("Einsum", xs, "variadic", () => {
    const { terms, result } = parseEinsum(equation);
    if (terms.length !== xs.length)
      throw new ShapeError(`${equation} reads ${terms.length} tensors, ${xs.length} came`);
    // A letter of one tensor alone is summed first, so that each gradient is an einsum of the same kind.
    const alone = terms.map((term, i) => {
      const others = [result, ...terms.filter((_, j) => j !== i)].join("");
      return [...term].flatMap((letter, axis) => (others.includes(letter) ? [] : [axis]));
    });
    const kept = terms.map((term, i) => [...term].filter((_, axis) => !alone[i].includes(axis)).join(""));
    return einsumOp(
      xs.map((x, i) => {
        if (x.rank !== terms[i].length) throw new ShapeError(`"${terms[i]}" names ${terms[i].length} axes`);
        return alone[i].length > 0 ? x.sum(alone[i]) : x;
      }),
      { equation: `${kept.join(",")}->${result}` },
    )[0];
  });

const einsumOp: DrawMany<{ equation: string }> = defineMany({
  onnx: "Einsum",
  inputs: "variadic",
  infer: (xs, { equation }) => {
    const { terms, result } = parseEinsum(equation);
    const sizes = new Map<string, Dim>();
    terms.forEach((term, i) => {
      sameDtype(xs[0], xs[i]);
      [...term].forEach((letter, axis) => {
        const size = xs[i].shape[axis];
        if (!sameDim(sizes.get(letter) ?? size, size))
          throw new ShapeError(`${letter} is ${sizes.get(letter)} and ${size} in ${equation}`);
        sizes.set(letter, size);
      });
    });
    const shape = [...result].map((letter) => {
      const size = sizes.get(letter);
      if (size === undefined) throw new ShapeError(`no tensor of ${equation} has an axis ${letter}`);
      return size;
    });
    return [{ dtype: xs[0].dtype, shape }];
  },
  // The gradient of one tensor takes its place: "ab,bc->ac" gives "ac,bc->ab" and "ab,ac->bc".
  vjp: (xs, [dy], { attrs: { equation } }) => {
    const { terms, result } = parseEinsum(equation);
    return xs.map((_, i) => {
      const read = terms.with(i, result);
      return einsumOp(xs.toSpliced(i, 1, dy!), { equation: `${read.join(",")}->${terms[i]}` })[0];
    });
  },
  cost: (xs, _, { equation }) => {
    const { terms } = parseEinsum(equation);
    const sizes = new Map(terms.flatMap((term, i) => [...term].map((letter, axis) => [letter, xs[i]!.shape[axis]])));
    return sizeForOne([...sizes.values()]);
  },
});

function parseEinsum(equation: string): { terms: string[]; result: string } {
  const parts = /^([a-zA-Z]*(?:,[a-zA-Z]*)*)->([a-zA-Z]*)$/.exec(equation.replaceAll(" ", ""));
  const terms = parts?.[1].split(",") ?? [];
  if (!parts || [...terms, parts[2]].some((term) => new Set(term).size !== term.length))
    throw new ShapeError({
      message: `"${equation}" is no equation that is read here`,
      help: 'write it like "ab,bc->ac"',
    });
  return { terms, result: parts[2] };
}
