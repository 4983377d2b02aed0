/**
 * Reads Python pickles as data: numbers, text, containers, and calls of the constructors that the caller lists.
 * No name is ever looked up or executed; what an unlisted one builds is a blank, and the pickle is refused with its name.
 * Opcodes: https://github.com/python/cpython/blob/main/Lib/pickletools.py, protocols 2 to 5.
 */
import { OrielError } from "../base/errors.ts";

/** Lists and tuples are arrays, dicts maps, sets sets, None null; integers past 2⁵³ are bigints. */
export type PickleValue = unknown;

/** A name that a pickle may use; `build` is called with the arguments when the pickle calls it. */
export class PickleName {
  readonly name: string;
  readonly build?: (args: readonly PickleValue[]) => PickleValue;

  constructor(name: string, build?: (args: readonly PickleValue[]) => PickleValue) {
    this.name = name;
    this.build = build;
  }
}

/** An object that is a bag of fields, such as argparse's Namespace. */
export class PickleObject {
  readonly name: string;
  readonly fields = new Map<PickleValue, PickleValue>();

  constructor(name: string) {
    this.name = name;
  }
}

/** What stands for a refused name and for everything built from it. */
class Blank {}
const blank = new Blank();
const hasBlank = (value: PickleValue) => value === blank || (Array.isArray(value) && value.includes(blank));

/** Text or a number as text.  A list would be joined, and one that holds itself many times over has no end. */
export function textOf(value: PickleValue): string {
  if (["string", "number", "bigint", "boolean"].includes(typeof value) || value === null) return String(value);
  throw new OrielError("malformed", "not a valid pickle: a container stands where a name belongs");
}

export interface PickleWorld {
  /** By Python's full name, `collections.OrderedDict`. */
  readonly names: ReadonlyMap<string, PickleName>;
  /** What an object kept outside the pickle, such as a torch storage, becomes. */
  persistent(id: readonly PickleValue[]): PickleValue;
  /** What to do about unlisted names, for the error. */
  help?: string;
}

export interface Unpickled {
  value: PickleValue;
  /** The byte after the pickle. */
  end: number;
}

/** Limits far above those of any weights: steps, what calls go through included, and bytes of an integer. */
const mostSteps = 10_000_000;
const longestInteger = 256;
const mostNames = 20;

/** The pickle that starts at byte `start`. */
export function unpickle(bytes: Uint8Array, world: PickleWorld, start = 0): Unpickled {
  const machine = new Machine(bytes, world, start);
  try {
    const value = run(machine);
    if (machine.refused.size === 0) return { value, end: machine.at };
  } catch (cause) {
    if (machine.refused.size === 0) throw cause; // else the names matter more than what broke after them
  }
  const refused = [...machine.refused];
  throw new OrielError("refused", {
    message: "the file names Python objects that are not weights; nothing of it was executed",
    details:
      refused.length > mostNames ? [...refused.slice(0, mostNames), `and ${refused.length - mostNames} more`] : refused,
    help: world.help,
  });
}

function run(machine: Machine): PickleValue {
  for (;;) {
    const at = machine.at;
    const code = machine.uint(1);
    if (code === stop) return machine.pop();
    const opcode = byCode[code];
    if (!opcode) throw broken(at, `opcode ${JSON.stringify(String.fromCharCode(code))} is none that weights need`);
    machine.spend(1);
    opcode(machine);
  }
}

const broken = (at: number, message: string) =>
  new OrielError("malformed", `not a valid pickle: ${message}, at byte ${at}`);

const decoder = new TextDecoder();

class Machine {
  at: number;
  stack: PickleValue[] = [];
  readonly outer: PickleValue[][] = []; // the stacks below each mark
  readonly memo = new Map<number, PickleValue>();
  readonly refused = new Set<string>();
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #world: PickleWorld;
  #steps = 0;

  constructor(bytes: Uint8Array, world: PickleWorld, start: number) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#world = world;
    this.at = start;
  }

  /** Counts work, so that a small pickle cannot ask for much: by size, not by what a few bytes repeat. */
  spend(steps: number): void {
    this.#steps += steps;
    if (this.#steps > mostSteps) throw broken(this.at, `more than ${mostSteps} steps; weights need few`);
  }

  /** Counts what a call goes through: the items of its arguments. */
  spendOn(args: PickleValue): void {
    const sizes = (Array.isArray(args) ? args : [args]).map(sizeOf);
    this.spend(sizes.reduce((sum, size) => sum + size, sizes.length));
  }

  protocol(): void {
    const version = this.uint(1);
    if (version < 2 || version > 5) throw broken(this.at - 1, `protocol ${version}; 2 to 5 are known`);
  }

  take(length: number): Uint8Array {
    const at = this.#pass(length);
    return this.#bytes.subarray(at, at + length);
  }

  /** Goes over so many bytes, and says where they are. */
  #pass(length: number): number {
    const at = this.at;
    if (at + length > this.#bytes.length) throw this.#truncated(at + length);
    this.at = at + length;
    return at;
  }

  #truncated(needed: number): OrielError {
    const found = this.#bytes.length;
    return new OrielError("truncated", `truncated: a pickle needs at least ${needed} bytes, found ${found}`);
  }

  /** An unsigned little-endian integer. */
  uint(size: 1 | 2 | 4 | 8): number {
    const at = this.#pass(size);
    if (size === 8) return Number(this.#view.getBigUint64(at, true));
    return size === 1
      ? this.#view.getUint8(at)
      : size === 2
        ? this.#view.getUint16(at, true)
        : this.#view.getUint32(at, true);
  }

  int32(): number {
    return this.#view.getInt32(this.#pass(4), true);
  }

  float64(): number {
    return this.#view.getFloat64(this.#pass(8), false);
  }

  /** A little-endian two's complement integer of any length. */
  long(length: number): number | bigint {
    if (length > longestInteger) throw broken(this.at, `an integer of ${length} bytes`);
    let value = 0n;
    const bytes = this.take(length);
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i]);
    const signed = BigInt.asIntN(8 * length, value);
    return Number.isSafeInteger(Number(signed)) ? Number(signed) : signed;
  }

  utf8(length: number): string {
    return decoder.decode(this.take(length));
  }

  latin1(length: number): string {
    let text = "";
    for (const byte of this.take(length)) text += String.fromCharCode(byte);
    return text;
  }

  line(): string {
    const end = this.#bytes.indexOf(0x0a, this.at);
    if (end < 0) throw this.#truncated(this.#bytes.length + 1);
    const text = this.utf8(end - this.at);
    this.at++;
    return text;
  }

  push(value: PickleValue): void {
    this.stack.push(value);
  }

  pop(): PickleValue {
    if (this.stack.length === 0) throw broken(this.at, "the stack is empty");
    return this.stack.pop();
  }

  popText(): string {
    return textOf(this.pop());
  }

  /** The last value, left where it is. */
  top(): PickleValue {
    if (this.stack.length === 0) throw broken(this.at, "the stack is empty");
    return this.stack[this.stack.length - 1];
  }

  mark(): void {
    this.outer.push(this.stack);
    this.stack = [];
  }

  popToMark(): PickleValue[] {
    const values = this.stack;
    const below = this.outer.pop();
    if (!below) throw broken(this.at, "there is no mark");
    this.stack = below;
    return values;
  }

  tuple(length: number): void {
    const values = Array.from({ length }, () => this.pop());
    this.push(values.reverse());
  }

  recall(key: number): void {
    if (!this.memo.has(key)) throw broken(this.at, `value ${key} was never remembered`);
    this.push(this.memo.get(key));
  }

  name(module: string, name: string): void {
    const full = `${module}.${name}`;
    const found = this.#world.names.get(full);
    if (!found) this.refused.add(full);
    this.push(found ?? blank);
  }

  /** A name and its call in one, as protocol 0 has it. */
  instance(module: string, name: string): void {
    const args = this.popToMark();
    this.name(module, name);
    this.push(args);
    this.call();
  }

  call(): void {
    const args = this.pop();
    const callee = this.pop();
    this.spendOn(args);
    // Blanks spread, so that every refused name is found and none reaches a constructor.
    if (callee instanceof Blank || hasBlank(args)) {
      this.push(blank);
      return;
    }
    if (!(callee instanceof PickleName) || !callee.build || !Array.isArray(args))
      throw broken(this.at, "a call of something that cannot be called");
    this.push(callee.build(args));
  }

  persistent(): void {
    const id = this.pop();
    this.spendOn(id);
    if (!hasBlank(id) && !Array.isArray(id)) throw broken(this.at, "an outside object has no description");
    this.push(hasBlank(id) ? blank : this.#world.persistent(id as PickleValue[]));
  }

  /** Adds to the container below; one that is refused takes everything. */
  fill(values: readonly PickleValue[]): void {
    const target = this.top();
    if (Array.isArray(target)) for (const value of values) target.push(value);
    else if (target instanceof Set) for (const value of values) target.add(value);
    else if (target instanceof Map) setPairs(target, values);
    else if (!(target instanceof Blank)) throw broken(this.at, "items for something that is no container");
  }

  /** Fields of a bag are kept; attributes set on anything else (an OrderedDict's `_metadata`) say nothing of the weights. */
  setState(): void {
    const state = this.pop();
    const target = this.top();
    this.spendOn([state]);
    if (target instanceof PickleObject && state instanceof Map)
      for (const [key, value] of state) target.fields.set(key, value);
  }
}

const sizeOf = (value: PickleValue): number =>
  Array.isArray(value) || typeof value === "string" || value instanceof Uint8Array
    ? value.length
    : value instanceof Map || value instanceof Set
      ? value.size
      : 1;

/** [key, value, key, value, ...] into a map. */
function setPairs<M extends Map<PickleValue, PickleValue>>(map: M, values: readonly PickleValue[]): M {
  for (let i = 0; i + 1 < values.length; i += 2) map.set(values[i], values[i + 1]);
  return map;
}

/** What each opcode does, by its letter; text forms of protocol 0 are left out, since torch never writes them. */
const opcodes: Record<string, (m: Machine) => void> = {
  "\x80": (m) => m.protocol(), // PROTO
  "\x95": (m) => m.take(8), // FRAME
  "(": (m) => m.mark(), // MARK
  "0": (m) => (m.stack.length === 0 ? m.popToMark() : m.pop()), // POP
  "1": (m) => m.popToMark(), // POP_MARK
  "2": (m) => m.push(m.top()), // DUP

  N: (m) => m.push(null), // NONE
  "\x88": (m) => m.push(true), // NEWTRUE
  "\x89": (m) => m.push(false), // NEWFALSE
  J: (m) => m.push(m.int32()), // BININT
  K: (m) => m.push(m.uint(1)), // BININT1
  M: (m) => m.push(m.uint(2)), // BININT2
  "\x8a": (m) => m.push(m.long(m.uint(1))), // LONG1
  "\x8b": (m) => m.push(m.long(m.uint(4))), // LONG4
  G: (m) => m.push(m.float64()), // BINFLOAT

  X: (m) => m.push(m.utf8(m.uint(4))), // BINUNICODE
  "\x8c": (m) => m.push(m.utf8(m.uint(1))), // SHORT_BINUNICODE
  "\x8d": (m) => m.push(m.utf8(m.uint(8))), // BINUNICODE8
  T: (m) => m.push(m.latin1(m.uint(4))), // BINSTRING
  U: (m) => m.push(m.latin1(m.uint(1))), // SHORT_BINSTRING
  B: (m) => m.push(m.take(m.uint(4))), // BINBYTES
  C: (m) => m.push(m.take(m.uint(1))), // SHORT_BINBYTES
  "\x8e": (m) => m.push(m.take(m.uint(8))), // BINBYTES8

  ")": (m) => m.push([]), // EMPTY_TUPLE
  "\x85": (m) => m.tuple(1), // TUPLE1
  "\x86": (m) => m.tuple(2), // TUPLE2
  "\x87": (m) => m.tuple(3), // TUPLE3
  t: (m) => m.push(m.popToMark()), // TUPLE
  "]": (m) => m.push([]), // EMPTY_LIST
  l: (m) => m.push(m.popToMark()), // LIST
  a: (m) => m.fill([m.pop()]), // APPEND
  e: (m) => m.fill(m.popToMark()), // APPENDS
  "}": (m) => m.push(new Map()), // EMPTY_DICT
  d: (m) => m.push(setPairs(new Map(), m.popToMark())), // DICT
  s: (m) => m.fill([m.pop(), m.pop()].reverse()), // SETITEM
  u: (m) => m.fill(m.popToMark()), // SETITEMS
  "\x8f": (m) => m.push(new Set()), // EMPTY_SET
  "\x90": (m) => m.fill(m.popToMark()), // ADDITEMS
  "\x91": (m) => m.push(new Set(m.popToMark())), // FROZENSET

  h: (m) => m.recall(m.uint(1)), // BINGET
  j: (m) => m.recall(m.uint(4)), // LONG_BINGET
  q: (m) => m.memo.set(m.uint(1), m.top()), // BINPUT
  r: (m) => m.memo.set(m.uint(4), m.top()), // LONG_BINPUT
  "\x94": (m) => m.memo.set(m.memo.size, m.top()), // MEMOIZE

  c: (m) => m.name(m.line(), m.line()), // GLOBAL
  i: (m) => m.instance(m.line(), m.line()), // INST
  "\x93": (m) => m.name(...([m.popText(), m.popText()].reverse() as [string, string])), // STACK_GLOBAL
  R: (m) => m.call(), // REDUCE
  "\x81": (m) => m.call(), // NEWOBJ
  b: (m) => m.setState(), // BUILD
  Q: (m) => m.persistent(), // BINPERSID
};

const stop = ".".charCodeAt(0);
const byCode = Array.from({ length: 256 }, (_, code) => opcodes[String.fromCharCode(code)]);
