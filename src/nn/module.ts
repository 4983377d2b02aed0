import "../ops/methods.ts";
import { internal, OrielError, ShapeError } from "../base/errors.ts";
import { Random } from "../base/philox.ts";
import { type Shape, staticSize } from "../graph/shape.ts";
import { input, scope, Tensor, withScope } from "../graph/tensor.ts";
import type { Adapt } from "./adapt.ts";
import type { Initializer } from "./init.ts";

/** What is known of a parameter or buffer before it has values. */
interface Declaration {
  kind: "parameter" | "buffer" | "fixed";
  init?: Initializer;
  adapt?: Adapt;
}
const declarations = new WeakMap<Tensor, Declaration>();

/** The paths of modules in the model that is being drawn. */
const paths = new WeakMap<Module, string>();
const scoped = new WeakSet<object>();

/**
 * A part of a model: parameters, buffers and other modules as fields, and a `forward` that draws.  Constructing one allocates no
 * weights; a parameter is declared with its shape and initialiser, and its path is the path of fields that leads to it, in
 * snake_case: `layers.0.blocks.1.attn.qkv.weight`.
 */
export abstract class Module {
  constructor() {
    scopeForward(new.target.prototype);
  }

  abstract forward(...inputs: never[]): unknown;

  /** Declares a parameter; `adapt` makes values for it of those that were trained for another shape. */
  protected param(shape: readonly number[], init: Initializer, adapt?: Adapt): Tensor {
    return declare(shape, { kind: "parameter", init, adapt });
  }

  /** Declares a buffer: saved with the model, updated while it trains, never by a gradient. */
  protected buffer(shape: readonly number[], init: Initializer): Tensor {
    return declare(shape, { kind: "buffer", init });
  }

  /** Declares what checkpoints hold though the architecture decides it, a counter or a table of indices: its name is known, no more. */
  protected fixed(shape: readonly number[]): Tensor {
    return declare(shape, { kind: "fixed" });
  }

  /** Parts by name, in the order of fields.  A module that names its parts otherwise overrides this. */
  *parts(): Iterable<[string, Module | Tensor]> {
    for (const [field, value] of Object.entries(this)) yield* partsOf(snakeCase(field), value);
  }
}

function* partsOf(name: string, value: unknown): Iterable<[string, Module | Tensor]> {
  if (value instanceof Module || (value instanceof Tensor && declarations.has(value))) yield [name, value];
  else if (Array.isArray(value)) for (const [i, item] of value.entries()) yield* partsOf(`${name}.${i}`, item);
}

function declare(shape: readonly number[], declaration: Declaration): Tensor {
  if (!shape.every((d) => Number.isInteger(d) && d > 0))
    throw new ShapeError({
      message: `a ${declaration.kind === "buffer" ? "buffer" : "parameter"} cannot be [${shape.join(", ")}]`,
      help: "every axis is a whole number from 1 on: see whether channels divide into groups, heads or a reduction",
    });
  const tensor = input(shape as Shape);
  declarations.set(tensor, declaration);
  return tensor;
}

const snakeCase = (name: string): string => name.replace(/([a-z0-9])([A-Z])/g, "$1_$2").toLowerCase();

let listener: ((path: string, result: unknown) => void) | undefined;

/** Draws, telling `listen` what each module returns. */
export function listening<T>(listen: (path: string, result: unknown) => void, draw: () => T): T {
  const outer = listener;
  listener = listen;
  try {
    return draw();
  } finally {
    listener = outer;
  }
}

/** The module whose `forward` draws. */
let drawing: Module | undefined;

/** Lets `forward` draw under the module's path, once for each class that has one of its own. */
function scopeForward(prototype: { forward?: unknown }): void {
  if (!Object.hasOwn(prototype, "forward")) {
    if (prototype !== Module.prototype) scopeForward(Object.getPrototypeOf(prototype));
    return;
  }
  if (scoped.has(prototype)) return;
  scoped.add(prototype);
  const forward = prototype.forward as (...inputs: unknown[]) => unknown;
  prototype.forward = function (this: Module, ...inputs: unknown[]) {
    if (drawing === this) return forward.apply(this, inputs); // super.forward
    const path = paths.get(this);
    const outer = drawing;
    drawing = this;
    try {
      const result = withScope(path ?? scope(), () => forward.apply(this, inputs));
      if (path !== undefined) listener?.(path, result);
      return result;
    } finally {
      drawing = outer;
    }
  };
}

/** One parameter or buffer of a model. */
export interface Weight {
  path: string;
  tensor: Tensor;
  kind: "parameter" | "buffer";
  /** Makes values for it of those that were trained for another shape. */
  adapt?: Adapt;
}

/** All parameters and buffers by path, in the order of fields.  One that several modules share is listed once. */
export function weightsOf(module: Module): Weight[] {
  const found = new Map<Tensor, Weight>();
  for (const { path, tensor } of declared(module)) {
    const { kind, adapt } = declarations.get(tensor) as Declaration;
    if (kind !== "fixed" && !found.has(tensor)) found.set(tensor, { path, tensor, kind, adapt });
  }
  return [...found.values()];
}

/** Every name that a published checkpoint of the model holds, with its shape: also second names, counters and tables of indices. */
export const stateOf = (module: Module): { path: string; shape: readonly number[] }[] =>
  declared(module).map(({ path, tensor }) => ({ path, shape: tensor.shape as readonly number[] }));

function declared(module: Module): { path: string; tensor: Tensor }[] {
  const found: { path: string; tensor: Tensor }[] = [];
  const named = new Map<string, Tensor>();
  const add = (path: string, tensor: Tensor): void => {
    if ((named.get(path) ?? tensor) !== tensor)
      throw new OrielError("module", {
        message: `two weights of this model are called ${path}`,
        help: "fields are named in snake_case: rename one of those that come out alike",
      });
    named.set(path, tensor);
    found.push({ path, tensor });
  };
  const around = new Set<Module>();
  const walk = (part: Module, path: string): void => {
    if (around.has(part))
      throw new OrielError("module", {
        message: `${path} is a module that holds itself`,
        help: "every module in a field is a part: keep one that is none, such as a parent, in a #private field",
      });
    around.add(part);
    paths.set(part, path);
    for (const [name, value] of part.parts()) {
      const at = path ? `${path}.${name}` : name;
      if (value instanceof Module) walk(value, at);
      else if (declarations.has(value)) add(at, value);
      else throw internal(`${at} is no declared weight`);
    }
    around.delete(part);
  };
  walk(module, "");
  return found;
}

export const parametersOf = (module: Module): Weight[] => weightsOf(module).filter((w) => w.kind === "parameter");
export const buffersOf = (module: Module): Weight[] => weightsOf(module).filter((w) => w.kind === "buffer");

/** Values for every parameter and buffer. */
export function initialWeights(module: Module, seed: number): Map<string, Float32Array<ArrayBuffer>> {
  return new Map(weightsOf(module).map((weight) => [weight.path, initialWeight(weight, seed)]));
}

/** Values for one of them, from a random stream of its path, so that one more layer changes no other. */
export function initialWeight({ path, tensor }: Weight, seed: number): Float32Array<ArrayBuffer> {
  const { init } = declarations.get(tensor) as Required<Declaration>;
  const shape = tensor.shape as number[];
  const values = init(shape, new Random(seed, 0, 0, path));
  if (values.length !== staticSize(shape))
    throw new OrielError("module", {
      message: `${path} [${shape.join(", ")}] begins with ${staticSize(shape)} values, its initializer made ${values.length}`,
      help: "an initializer is given the shape, and makes a value for each element",
    });
  return values;
}

/** Lets all weights of linear layers begin in another way than they were declared, or with four axes those of convolutions. */
export function initializeMatrices(module: Module, init: Initializer, axes: 2 | 4 = 2): void {
  for (const { path, tensor } of parametersOf(module))
    if (tensor.shape.length === axes && path.endsWith("weight"))
      declarations.set(tensor, { ...(declarations.get(tensor) as Declaration), init });
}
