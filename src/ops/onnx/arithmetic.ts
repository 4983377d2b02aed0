import type { DType } from "../../graph/dtype.ts";
import { isFloat } from "../../graph/dtype.ts";
import { dtypeName } from "../../graph/onnx/read.ts";
import { scalar, type Tensor } from "../../graph/tensor.ts";
import * as compare from "../compare.ts";
import { defineOp } from "../define.ts";
import * as elementwise from "../elementwise.ts";
import { cumSum } from "../reduce.ts";
import type { At, Importer } from "./at.ts";
import { computed } from "./at.ts";
import { foldCast, foldPair, foldSingle, foldWhere, ifKnown, isKnown, type Value } from "./known.ts";

/** The nearest whole number, halves to the even one, as ONNX has it.  No gradient. */
const roundToEven = defineOp({
  onnx: "Round",
  inputs: ["x"],
  infer: ({ x }) => ({ dtype: x.dtype, shape: x.shape }),
  vjp: () => ({ x: null }),
});

const one = (draw: (x: Tensor, at: At) => Tensor): Importer => {
  return (at) => {
    const x = at.value(0);
    const folded = isKnown(x) ? ifKnown(() => foldSingle(at.node.op, x)) : undefined;
    return folded ?? draw(at.tensor(x), at);
  };
};

/** Two inputs, or any number of them, from left to right. */
const many =
  (draw: (a: Tensor, b: Tensor) => Tensor): Importer =>
  (at) =>
    at.inputs.map((_, i) => at.value(i)).reduce((a, b) => pair(at, a, b, draw));

function pair(at: At, a: Value, b: Value, draw: (a: Tensor, b: Tensor) => Tensor): Value {
  const folded = isKnown(a) && isKnown(b) ? ifKnown(() => foldPair(foldedAs(at), a, b)) : undefined;
  return folded?.[0] ?? draw(at.tensor(a), at.tensor(b));
}
const foldedAs = (at: At): string => ({ Sum: "Add", Mod: modOf(at) })[at.node.op] ?? at.node.op;

const or = (a: Tensor, b: Tensor): Tensor => compare.not(compare.and(compare.not(a), compare.not(b)));

/** x limited on both sides, where the limits may be tensors. */
function limited(at: At): Value {
  const x = at.x(0);
  const byAttribute = at.opset < 11 && at.node.domain === "";
  if (byAttribute) return elementwise.clip(x, { min: at.attr("min", -Infinity), max: at.attr("max", Infinity) });
  const limit = (i: number, none: number): number | undefined =>
    !at.has(i) ? none : at.known(i)?.isStatic ? at.number(i, "limits") : undefined;
  const [min, max] = [limit(1, -Infinity), limit(2, Infinity)];
  if (isFloat(x.dtype) && min !== undefined && max !== undefined) return elementwise.clip(x, { min, max });
  const above = at.has(1) ? elementwise.maximum(x, at.x(1)) : x;
  return at.has(2) ? elementwise.minimum(above, at.x(2)) : above;
}

/** xᵇ, by multiplication and roots where the exponent is known to be 2 or a half. */
const power: Importer = (at) => {
  const exponent = at.known(1);
  if (!at.known(0) && exponent?.isStatic && exponent.values.length === 1) {
    const x = at.x(0);
    if (exponent.values[0] === 2) return x.square();
    if (exponent.values[0] === 0.5) return x.sqrt();
    return x.pow(Number(exponent.values[0]));
  }
  return pair(at, at.value(0), at.value(1), elementwise.pow);
};

const castTo = (at: At, to: DType): Value => {
  const x = at.value(0);
  const folded = isKnown(x) ? ifKnown(() => foldCast(x, to)) : undefined;
  return folded?.[0] ?? compare.cast(at.tensor(x), { to });
};

/** What is left of a ÷ b: y = a - n b for a whole number n  =>  da = dy,  db = -n dy = dy (y - a) / b. */
const modulo = defineOp<["a", "b"], { fmod: number }>({
  onnx: "Mod",
  inputs: ["a", "b"],
  infer: ({ a, b }) => elementwise.elementwise(a, b),
  vjp: ({ a, b }, dy, { y }) => ({ a: dy, b: dy.mul(y.sub(a).div(b)) }),
});

/** With `fmod` the remainder has the sign of a, as in C, otherwise that of b. */
const modOf = (at: At): "Mod" | "Fmod" => (at.attr("fmod", 0) === 0 ? "Mod" : "Fmod");

const remainder: Importer = (at) => {
  const truncates = modOf(at) === "Fmod";
  // The engine has the sign of b for whole numbers alone.
  const draw = (a: Tensor, b: Tensor): Tensor =>
    isFloat(a.dtype) && !truncates
      ? a.sub(elementwise.floor(a.div(b)).mul(b))
      : modulo(a, b, { fmod: truncates ? 1 : 0 });
  return pair(at, at.value(0), at.value(1), draw);
};

const zero = (x: Tensor): Tensor => scalar(0, x.dtype);

/** Operations that treat each element by itself. */
export const arithmetic: Readonly<Record<string, Importer>> = {
  Add: many(elementwise.add),
  Sum: many(elementwise.add),
  Sub: many(elementwise.sub),
  Mul: many(elementwise.mul),
  Div: many(elementwise.div),
  Pow: power,
  Mod: remainder,
  Max: many(elementwise.maximum),
  Min: many(elementwise.minimum),
  Mean: (at) =>
    at.inputs
      .map((_, i) => at.x(i))
      .reduce((a, b) => a.add(b))
      .mul(1 / at.inputs.length),
  Equal: many(compare.equal),
  Greater: many(compare.greater),
  GreaterOrEqual: many(compare.greaterOrEqual),
  Less: many(compare.less),
  LessOrEqual: many(compare.lessOrEqual),
  And: many(compare.and),
  Or: many(or),
  Xor: many((a, b) => compare.and(or(a, b), compare.not(compare.and(a, b)))),
  Not: one((x) => compare.not(x)),
  Where: (at) => {
    const [c, a, b] = [0, 1, 2].map((i) => at.value(i));
    const folded = isKnown(c) && isKnown(a) && isKnown(b) ? ifKnown(() => foldWhere(c, a, b)) : undefined;
    return folded ?? compare.where(at.tensor(c), at.tensor(a), at.tensor(b));
  },
  Cast: (at) => {
    const to = dtypeName(at.attr("to", 0));
    if (!to || to === "string") throw at.wrong(`casts to type ${at.attr("to", 0)}, which is not known here`);
    return castTo(at, computed(to));
  },
  CastLike: (at) => castTo(at, at.value(1).dtype),
  Neg: one((x) => x.neg()),
  Abs: one((x) => elementwise.abs(x)),
  Exp: one((x) => x.exp()),
  Log: one((x) => x.log()),
  Sqrt: one((x) => x.sqrt()),
  Reciprocal: one((x) => x.reciprocal()),
  Erf: one((x) => x.erf()),
  Sin: one((x) => elementwise.sin(x)),
  Cos: one((x) => elementwise.cos(x)),
  Tanh: one((x) => elementwise.tanh(x)),
  Floor: one((x) => elementwise.floor(x)),
  Ceil: one((x) => elementwise.ceil(x)),
  Round: one((x) => roundToEven(x)),
  Sign: one((x) => elementwise.sign(x)),
  Clip: limited,
  Relu: one((x) => elementwise.relu(x)),
  LeakyRelu: one((x, at) => elementwise.leakyRelu(x, { alpha: at.attr("alpha", 0.01) })),
  PRelu: (at) => elementwise.prelu(at.x(0), at.x(1)),
  ThresholdedRelu: one((x, at) => compare.where(compare.greater(x, scalar(at.attr("alpha", 1), x.dtype)), x, zero(x))),
  Elu: one((x, at) => elementwise.elu(x, at.attr("alpha", 1))),
  Celu: one((x, at) => {
    const alpha = at.attr("alpha", 1);
    return elementwise.elu(x.div(alpha)).mul(alpha);
  }),
  Selu: one((x, at) => {
    const [alpha, gamma] = [at.attr("alpha", 1.6732632423543772), at.attr("gamma", 1.0507009873554805)];
    return elementwise.elu(x, alpha).mul(gamma);
  }),
  Gelu: one((x, at) => (at.text("approximate", "none") === "tanh" ? elementwise.geluTanh(x) : elementwise.gelu(x))),
  Sigmoid: one((x) => elementwise.sigmoid(x)),
  HardSigmoid: one((x, at) =>
    elementwise.clip(x.mul(at.attr("alpha", 0.2)).add(at.attr("beta", 0.5)), { min: 0, max: 1 }),
  ),
  HardSwish: one((x) => elementwise.hardSwish(x)),
  Swish: one((x, at) => x.mul(elementwise.sigmoid(x.mul(at.attr("alpha", 1))))),
  Softplus: one((x) => elementwise.softplus(x)),
  Softsign: one((x) => x.div(elementwise.abs(x).add(1))),
  Mish: one((x) => elementwise.mish(x)),
  Identity: (at) => at.value(0),
  CumSum: (at) => {
    const [x, axis] = [at.x(0), at.axis(at.number(1, "its axis"), at.shape(0).length)];
    const sum = cumSum(x, { axis, reverse: at.attr("reverse", 0) !== 0 });
    return at.attr("exclusive", 0) !== 0 ? sum.sub(x) : sum;
  },
  Dropout: (at) => {
    const x = at.value(0);
    const { training } = at.around;
    const rate = at.opset < 12 ? at.attr("ratio", 0.5) : at.number(1, "its ratio", 0.5);
    return training && rate > 0 ? training.dropout(at.tensor(x), rate) : x;
  },
  OneHot: (at) => {
    const [depth, [off, on]] = [at.number(1, "its depth"), at.numbers(2, "its values")];
    const axis = at.attr("axis", -1);
    if (axis !== -1 && axis !== at.shape(0).length) throw at.wrong("puts its classes before other axes");
    const { dtype } = at.value(2);
    const places = compare.cast(at.x(0), { to: "int32" });
    const fromFront = compare.where(compare.less(places, zero(places)), places.add(depth), places);
    const hot = compare.oneHot(fromFront, depth, dtype);
    return hot.mul(on - off).add(off);
  },
};
