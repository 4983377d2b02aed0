import { dataOf, floatsOf } from "../graph/dtype.ts";
import {
  constant,
  constantData,
  FloatAttr,
  type OnnxForm,
  scalar,
  type Tensor,
  type TensorType,
} from "../graph/tensor.ts";
import { and, cast, equal, greater, greaterOrEqual, less, lessOrEqual, where } from "./compare.ts";
import { broadcastShape, type Draw, defineOp, sameDtype } from "./define.ts";

/** The type of an elementwise result: broadcast shapes, equal dtypes. */
export function elementwise(a: Tensor, b: Tensor): TensorType {
  sameDtype(a, b);
  return { dtype: a.dtype, shape: broadcastShape(a, b) };
}
const same = ({ x }: { x: Tensor }): TensorType => ({ dtype: x.dtype, shape: x.shape });

// Broadcasting is undone by the walk in `autodiff/`, so a rule may answer in the shape of the result.

export const add = defineOp({
  onnx: "Add",
  inputs: ["a", "b"],
  infer: ({ a, b }) => elementwise(a, b),
  vjp: (_, dy) => ({ a: dy, b: dy }),
});

export const sub = defineOp({
  onnx: "Sub",
  inputs: ["a", "b"],
  infer: ({ a, b }) => elementwise(a, b),
  vjp: (_, dy) => ({ a: dy, b: dy.neg() }),
});

export const mul = defineOp({
  onnx: "Mul",
  inputs: ["a", "b"],
  infer: ({ a, b }) => elementwise(a, b),
  vjp: ({ a, b }, dy) => ({ a: dy.mul(b), b: dy.mul(a) }),
});

export const div = defineOp({
  onnx: "Div",
  inputs: ["a", "b"],
  infer: ({ a, b }) => elementwise(a, b),
  // y = a / b  =>  da = dy / b,  db = -dy y / b
  vjp: ({ b }, dy, { y }) => ({ a: dy.div(b), b: dy.mul(y).div(b).neg() }),
});

export const pow = defineOp({
  onnx: "Pow",
  inputs: ["a", "b"],
  infer: ({ a, b }) => elementwise(a, b),
  // y = aᵇ  =>  da = dy b aᵇ⁻¹,  db = dy y ln a;  of a⁰ and at 0ᵇ both are 0, not 0 · ∞
  vjp: ({ a, b }, dy, { y }) => {
    const zero = scalar(0, a.dtype);
    const isFlat = and(equal(a, zero), greaterOrEqual(b, zero));
    return {
      a: dy.mul(b).mul(a.pow(lessByOne(a, b))),
      b: dy.mul(y).mul(where(isFlat, scalar(1, a.dtype), a).log()),
    };
  },
});

/** b - 1, but 0 where b is 0 and 1 / a would be infinite.  A known exponent needs no choice in the graph. */
function lessByOne(a: Tensor, b: Tensor): Tensor {
  const data = constantData(b);
  if (data) {
    const exponents = b.dtype === "float64" ? (data as Float64Array) : floatsOf(b.dtype, data);
    const less = Float64Array.from(exponents, (e) => (e === 0 ? 0 : e - 1));
    return constant(dataOf(b.dtype, less), b.shape as number[], b.dtype);
  }
  const zero = scalar(0, a.dtype);
  return where(and(equal(a, zero), equal(b, zero)), zero, b.sub(1));
}

export const maximum = defineOp({
  onnx: "Max",
  inputs: ["a", "b"],
  infer: ({ a, b }) => elementwise(a, b),
  vjp: ({ a, b }, dy) => {
    const db = dy.mul(positive(b.sub(a))); // nothing where both are alike
    return { a: dy.sub(db), b: db };
  },
});

export const minimum = defineOp({
  onnx: "Min",
  inputs: ["a", "b"],
  infer: ({ a, b }) => elementwise(a, b),
  vjp: ({ a, b }, dy) => ({ a: dy.mul(indicator(lessOrEqual(a, b), dy)), b: dy.mul(indicator(greater(a, b), dy)) }),
});

/** 1 where `condition` holds, else 0, in the dtype of `like`. */
const indicator = (condition: Tensor, like: Tensor): Tensor => cast(condition, { to: like.dtype });

export const neg = defineOp({ onnx: "Neg", inputs: ["x"], infer: same, vjp: (_, dy) => ({ x: dy.neg() }) });

export const exp = defineOp({ onnx: "Exp", inputs: ["x"], infer: same, vjp: (_, dy, { y }) => ({ x: dy.mul(y) }) });

export const log = defineOp({ onnx: "Log", inputs: ["x"], infer: same, vjp: ({ x }, dy) => ({ x: dy.div(x) }) });

export const sqrt = defineOp({
  onnx: "Sqrt",
  inputs: ["x"],
  infer: same,
  vjp: (_, dy, { y }) => ({ x: dy.div(y).mul(0.5) }),
});

export const reciprocal = defineOp({
  onnx: "Reciprocal",
  inputs: ["x"],
  infer: same,
  vjp: (_, dy, { y }) => ({ x: dy.mul(y).mul(y).neg() }),
});

/** The error function.  erf′(x) = 2/√π exp(-x²) */
export const erf = defineOp({
  onnx: "Erf",
  inputs: ["x"],
  infer: same,
  vjp: ({ x }, dy) => ({ x: dy.mul(x.mul(x).neg().exp()).mul(2 / Math.sqrt(Math.PI)) }),
});

export const sin: Draw<["x"]> = defineOp({
  onnx: "Sin",
  inputs: ["x"],
  infer: same,
  vjp: ({ x }, dy) => ({ x: dy.mul(cos(x)) }),
});

export const cos: Draw<["x"]> = defineOp({
  onnx: "Cos",
  inputs: ["x"],
  infer: same,
  vjp: ({ x }, dy) => ({ x: dy.mul(sin(x)).neg() }),
});

export const tanh = defineOp({
  onnx: "Tanh",
  inputs: ["x"],
  infer: same,
  vjp: (_, dy, { y }) => ({ x: dy.mul(y.mul(y).neg().add(1)) }),
});

export const sigmoid = defineOp({
  onnx: "Sigmoid",
  inputs: ["x"],
  infer: same,
  vjp: (_, dy, { y }) => ({ x: dy.mul(y).mul(y.neg().add(1)) }),
});

/** ln(1 + eˣ) */
export const softplus = defineOp({
  onnx: "Softplus",
  inputs: ["x"],
  infer: same,
  vjp: ({ x }, dy) => ({ x: dy.mul(sigmoid(x)) }),
});

/** |x|; the gradient at 0 is 0. */
export const abs = defineOp({ onnx: "Abs", inputs: ["x"], infer: same, vjp: ({ x }, dy) => ({ x: dy.mul(sign(x)) }) });

/** max(x, 0); the gradient at 0 is 0. */
export const relu = defineOp({
  onnx: "Relu",
  inputs: ["x"],
  infer: same,
  vjp: (_, dy, { y }) => ({ x: dy.mul(positive(y)) }),
});

export const leakyRelu = defineOp<["x"], { alpha: number }>({
  onnx: "LeakyRelu",
  inputs: ["x"],
  infer: same,
  vjp: ({ x }, dy, { attrs }) => ({ x: where(greater(x, scalar(0, x.dtype)), dy, dy.mul(attrs.alpha)) }),
  form: ({ alpha }) => ({ attributes: { alpha: new FloatAttr(alpha) } }),
});

/** x limited to [min, max]; no gradient flows where it is cut. */
export const clip = defineOp<["x"], { min: number; max: number }>({
  onnx: "Clip",
  inputs: ["x"],
  infer: same,
  vjp: ({ x }, dy, { y }) => ({ x: dy.mul(indicator(equal(x, y), dy)) }),
  form: ({ min, max }, node) => {
    const dtype = node.inputs[0]!.dtype;
    const limit = (value: number) => ({ dtype, shape: [], data: dataOf(dtype, [value]) });
    return { constants: [limit(min), limit(max)] };
  },
});

/** The largest whole number ≤ x.  No gradient. */
export const floor = defineOp({ onnx: "Floor", inputs: ["x"], infer: same, vjp: () => ({ x: null }) });
/** The smallest whole number ≥ x.  No gradient. */
export const ceil = defineOp({ onnx: "Ceil", inputs: ["x"], infer: same, vjp: () => ({ x: null }) });

/** -1, 0 or 1, drawn from comparisons since WebGPU has no Sign.  No gradient. */
export const sign = (x: Tensor): Tensor => {
  const zero = scalar(0, x.dtype);
  return cast(greater(x, zero), { to: x.dtype }).sub(cast(less(x, zero), { to: x.dtype }));
};

/** The nearest whole number, halves upwards.  No gradient. */
export const round = (x: Tensor): Tensor => {
  // x + 1/2 itself would be rounded: just below 1/2 and where a float's steps are 1 or more.
  const low = floor(x);
  return low.add(indicator(greaterOrEqual(x.sub(low), scalar(0.5, x.dtype)), x));
};

/** x² */
export const square = (x: Tensor): Tensor => x.mul(x);

/** x Φ(x), exact form.  Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016). */
export const gelu = defineOp({
  onnx: "Gelu",
  inputs: ["x"],
  infer: same,
  // y = x Φ(x)  =>  dx = dy (Φ(x) + x φ(x)).  With s = x/√2:  Φ(x) = (1 + erf(s)) / 2,  x φ(x) = s exp(-s² - ln√π).
  vjp: ({ x }, dy) => {
    const s = x.mul(Math.SQRT1_2);
    const tail = scalar(-0.5 * Math.log(Math.PI), x.dtype).sub(s.mul(s));
    return {
      x: dy.mul(
        tail
          .exp()
          .mul(s)
          .add(unit(s.erf(), 0.5, 0.5)),
      ),
    };
  },
});

const geluTanhOp = defineOp<["x"], { approximate: "tanh" }>({
  onnx: "Gelu",
  inputs: ["x"],
  infer: same,
  // (1 + tanh(u)) / 2 = σ(2u).  With σ of x (k + k c x²):  dx = dy σ (1 + x (1 - σ) (k + 3 k c x²)).
  vjp: ({ x }, dy) => {
    const [k, c, square] = [Math.sqrt(8 / Math.PI), 0.044715, x.mul(x)];
    const s = sigmoid(x.mul(square.mul(k * c).add(k)));
    const bend = square
      .mul(3 * k * c)
      .add(k)
      .mul(x)
      .mul(scalar(1, x.dtype).sub(s));
    return { x: dy.mul(s).mul(bend.add(1)) };
  },
});

/** x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2, the approximation of GELU that some checkpoints were trained with. */
export const geluTanh = (x: Tensor): Tensor => geluTanhOp(x, { approximate: "tanh" });

/** x σ(x), also called swish. */
export const silu = (x: Tensor): Tensor => x.mul(sigmoid(x));

interface Line {
  alpha: number;
  beta: number;
}

const line = ({ alpha, beta }: Line): OnnxForm => ({
  attributes: { alpha: new FloatAttr(alpha), beta: new FloatAttr(beta) },
});

/** min(max(alpha · x + beta, 0), 1); no gradient flows where it is cut. */
const hardSigmoidOp: Draw<["x"], Line> = defineOp({
  onnx: "HardSigmoid",
  inputs: ["x"],
  infer: same,
  // ⌈y⌉ - ⌊y⌋ is 1 where 0 < y < 1, else 0.
  vjp: (_, dy, { y, attrs: { alpha } }) => ({ x: dy.mul(ceil(y).sub(floor(y))).mul(alpha) }),
  form: line,
});

/** The same on a line as good as vertical, which has no gradient. */
const steep = defineOp<["x"], Line>({
  onnx: "HardSigmoid",
  inputs: ["x"],
  infer: same,
  vjp: () => ({ x: null }),
  form: line,
});

/** alpha · x + beta where that lies between 0 and 1: one pass where the engine's sigmoid of straight lines reads the dtype. */
const unit = (x: Tensor, alpha: number, beta: number): Tensor =>
  x.dtype === "float32" ? hardSigmoidOp(x, { alpha, beta }) : x.mul(alpha).add(beta);

/**
 * 1 where x > 0, else 0, in the dtype of x.  A steep sigmoid takes one pass where a comparison and its cast take two, and `Where`
 * four: 25 MB in 1.0 ms against 5.  No gradient.
 */
const positive = (x: Tensor): Tensor =>
  x.dtype === "float32" ? steep(x, { alpha: 3e38, beta: 0 }) : indicator(greater(x, scalar(0, x.dtype)), x);

/** 1 where x < 0, 1/2 where it is 0, else 0.  No gradient. */
const before = (x: Tensor): Tensor =>
  x.dtype === "float32" ? steep(x, { alpha: -3e38, beta: 0.5 }) : scalar(0.5, x.dtype).sub(sign(x).mul(0.5));

/** min(max(x + 3, 0), 6) / 6 */
export const hardSigmoid = (x: Tensor): Tensor => hardSigmoidOp(x, { alpha: 1 / 6, beta: 0.5 });

/** x min(max(x + 3, 0), 6) / 6.  Howard et al., "Searching for MobileNetV3" (2019), section 5.2. */
export const hardSwish = defineOp({
  onnx: "HardSwish",
  inputs: ["x"],
  infer: same,
  // With c = min(max(x, -3), 3):  c/3 + 1/2 where x is c, -1 + 1 before, 1 + 0 behind.
  vjp: ({ x }, dy) => {
    const c = clip(x, { min: -3, max: 3 });
    return { x: dy.mul(c.mul(1 / 3).add(before(x.sub(c)))) };
  },
});

/** x where x > 0, else α (eˣ - 1).  Clevert et al., "Exponential Linear Units" (2016). */
export const elu = (x: Tensor, alpha = 1): Tensor =>
  relu(x).add(minimum(x, scalar(0, x.dtype)).exp().sub(1).mul(alpha));

/** ELU with the slope and scale that keep mean and variance.  Klambauer et al., "Self-Normalizing Neural Networks" (2017). */
export const selu = (x: Tensor): Tensor => elu(x, 1.6732632423543772).mul(1.0507009873554805);

/** x tanh(softplus(x)).  Misra, "Mish" (2020). */
export const mish = (x: Tensor): Tensor => x.mul(tanh(softplus(x)));

/** x where x > 0, else slope · x, with a slope that broadcasts.  He et al., "Delving Deep into Rectifiers" (2015). */
export const prelu = (x: Tensor, slope: Tensor): Tensor => relu(x).sub(relu(x.neg()).mul(slope));
