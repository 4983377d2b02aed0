import * as ops from "../../../src/ops/index.ts";
import type { HostTensor } from "../../../src/runtime/runtime.ts";
import { apart, array, at, nd, positive, randn } from "../../support/arrays.ts";
import { float32, type OpCase, op } from "../../support/cases.ts";
import type { CheckOptions, Drawing } from "../../support/check.ts";

/** One number at a time. */
const map =
  (f: (x: number) => number) =>
  (x: HostTensor): HostTensor =>
    nd(x.shape, (...i) => f(at(x, ...i)));
const unary = (name: string, x: HostTensor, draw: Drawing, f: (x: number) => number, options?: CheckOptions): OpCase =>
  op(name, [x], draw, map(f), options);

/** Two numbers at a time, over the shape that both broadcast to. */
const pairs =
  (shape: readonly number[], f: (a: number, b: number) => number) =>
  (a: HostTensor, b: HostTensor): HostTensor =>
    nd(shape, (...i) => f(at(a, ...i), at(b, ...i)));

/** Every direction of broadcasting: neither, either, both, by rank and by size. */
const broadcasts: readonly [a: number[], b: number[], y: number[]][] = [
  [
    [2, 3],
    [2, 3],
    [2, 3],
  ],
  [[2, 3], [], [2, 3]],
  [[], [2, 3], [2, 3]],
  [[2, 3], [3], [2, 3]],
  [
    [1, 3],
    [2, 1],
    [2, 3],
  ],
  [
    [4, 1, 1],
    [2, 3],
    [4, 2, 3],
  ],
  [[1], [1, 1, 1], [1, 1, 1]],
];
const binary = (
  name: string,
  draw: Drawing,
  f: (a: number, b: number) => number,
  make: (shape: readonly number[]) => HostTensor = randn,
): OpCase[] => broadcasts.map(([a, b, y]) => op(`${name}: [${a}] with [${b}]`, [make(a), make(b)], draw, pairs(y, f)));

/** erf by its series, Abramowitz and Stegun 7.1.6. */
export function erf(x: number): number {
  let term = x;
  let sum = x;
  for (let n = 1; n < 200; n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}
const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const softplus = (x: number): number => Math.log1p(Math.exp(x));
const elu = (x: number, alpha: number): number => (x > 0 ? x : alpha * Math.expm1(x));
const hardSigmoid = (x: number): number => Math.min(Math.max(x + 3, 0), 6) / 6;
/** Below, between and above -3 and 3, no place near either. */
const hard = array([7], [-4, -3.2, -2.5, 0.1, 2.4, 3.3, 5]);
const smallStep = { dtype: "float32", step: 3e-3 } as const;

export const cases: OpCase[] = [
  ...binary(
    "add",
    (a, b) => a.add(b),
    (a, b) => a + b,
  ),
  ...binary(
    "sub",
    (a, b) => a.sub(b),
    (a, b) => a - b,
  ),
  ...binary(
    "mul",
    (a, b) => a.mul(b),
    (a, b) => a * b,
  ),
  ...binary(
    "div",
    (a, b) => a.div(b),
    (a, b) => a / b,
    positive,
  ),
  ...binary(
    "pow",
    (a, b) => a.pow(b),
    (a, b) => a ** b,
    positive,
  ),
  op("maximum", [apart([2, 6]), array([2, 1], [0.3, -0.2])], ops.maximum, pairs([2, 6], Math.max)),
  op("minimum", [array([2, 1], [0.3, -0.2]), apart([2, 6])], ops.minimum, pairs([2, 6], Math.min)),
  unary(
    "pow: a whole number, of both signs",
    randn([5]),
    (x) => x.pow(3),
    (x) => x ** 3,
  ),
  unary("neg", randn([2, 3]), ops.neg, (x) => -x),
  unary("exp", randn([2, 3]), ops.exp, Math.exp),
  unary("log", positive([2, 3]), ops.log, Math.log),
  unary("sqrt", positive([2, 3]), ops.sqrt, Math.sqrt),
  unary("reciprocal", positive([2, 3]), ops.reciprocal, (x) => 1 / x),
  unary("square", randn([2, 3]), ops.square, (x) => x * x),
  unary("erf", randn([9]), ops.erf, erf, float32),
  unary("sin", randn([5]), ops.sin, Math.sin),
  unary("cos", randn([5]), ops.cos, Math.cos),
  unary("tanh", randn([5]), ops.tanh, Math.tanh),
  unary("sigmoid", randn([5]), ops.sigmoid, sigmoid),
  unary("softplus", randn([5]), ops.softplus, softplus, float32),
  unary("abs", apart([6]), ops.abs, Math.abs),
  unary("relu", apart([6]), ops.relu, (x) => Math.max(x, 0)),
  unary(
    "leakyRelu",
    apart([6]),
    (x) => ops.leakyRelu(x, { alpha: 0.1 }),
    (x) => (x > 0 ? x : 0.1 * x),
    smallStep,
  ),
  unary(
    "clip",
    apart([8]),
    (x) => ops.clip(x, { min: -0.2, max: 0.3 }),
    (x) => Math.min(Math.max(x, -0.2), 0.3),
  ),
  unary("floor", apart([8]), ops.floor, Math.floor, { wrt: [] }),
  unary("ceil", apart([8]), ops.ceil, Math.ceil, { wrt: [] }),
  unary("sign", array([3], [-2, 0, 0.1]), ops.sign, Math.sign, { wrt: [] }),
  unary(
    "round: what it moves next to a half, and where a float's steps are 1",
    array([3], [Math.fround(0.49999997), 8388609, -8388609]),
    (x) => ops.round(x).sub(x),
    (x) => Math.round(x) - x,
    { wrt: [], dtype: "float32" },
  ),
  unary("round", array([6], [-1.5, -0.6, -0.5, 0.4, 0.5, 2.5]), ops.round, Math.round, { wrt: [] }),
  unary("gelu", randn([9]), ops.gelu, (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)), float32),
  unary(
    "geluTanh",
    randn([9]),
    ops.geluTanh,
    (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
    float32,
  ),
  // The engine fuses it to QuickGelu, which it has in float32 alone.
  unary("silu", randn([5]), ops.silu, (x) => x * sigmoid(x), float32),
  unary("mish", randn([5]), ops.mish, (x) => x * Math.tanh(softplus(x)), float32),
  // The engine has HardSigmoid in float32 alone.
  unary("hardSigmoid", hard, ops.hardSigmoid, hardSigmoid, float32),
  unary("hardSwish", hard, ops.hardSwish, (x) => x * hardSigmoid(x), float32),
  unary(
    "elu",
    apart([6]),
    (x) => ops.elu(x, 0.7),
    (x) => elu(x, 0.7),
  ),
  unary("selu", apart([6]), ops.selu, (x) => 1.0507009873554805 * elu(x, 1.6732632423543772)),
  op(
    "prelu: a slope for each channel",
    [apart([2, 3, 2]), randn([3, 1])],
    ops.prelu,
    pairs([2, 3, 2], (x, s) => (x > 0 ? x : s * x)),
  ),
];
