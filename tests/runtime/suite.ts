import "../../src/ops/methods.ts";
import type { OrielError } from "../../src/base/errors.ts";
import { bytesView, type DType, dataOf } from "../../src/graph/dtype.ts";
import { Graph } from "../../src/graph/graph.ts";
import { writeOnnx, writeOnnxParts } from "../../src/graph/onnx/write.ts";
import { OpenDim } from "../../src/graph/shape.ts";
import { constant, input, type Tensor } from "../../src/graph/tensor.ts";
import { cast, gather } from "../../src/ops/index.ts";
import { DeviceTensor, type HostTensor, type Program, type Runtime, type Value } from "../../src/runtime/runtime.ts";

// What every runtime must do.  The cases run in Node and in a page, so they bring their own few assertions.

export interface RuntimeCase {
  name: string;
  /** `open` makes a second runtime, for what ends one. */
  run(runtime: Runtime, open: () => Promise<Runtime>): Promise<void>;
}

function ok(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(what);
}

function same(actual: Value, expected: ArrayLike<number>, tolerance = 0): void {
  const got = Array.from(hostOf(actual).data as Iterable<number | bigint>, Number);
  const close = got.length === expected.length && got.every((v, i) => Math.abs(v - expected[i]) <= tolerance);
  ok(close, `expected ${Array.from(expected).slice(0, 8)}, got ${got.slice(0, 8)}`);
}

async function fails(work: () => Promise<unknown>, words: RegExp): Promise<void> {
  const message = await work().then(
    () => undefined,
    (error: Error) => error.message,
  );
  ok(message !== undefined, `expected an error like ${words}`);
  ok(words.test(message), `expected an error like ${words}, got: ${message}`);
}

function hostOf(value: Value): HostTensor {
  ok(!(value instanceof DeviceTensor), "expected a host tensor");
  return value;
}

function deviceOf(value: Value): DeviceTensor {
  ok(value instanceof DeviceTensor, "expected a device tensor");
  return value;
}

const floats = (...values: number[]): HostTensor => ({
  dtype: "float32",
  shape: [values.length],
  data: Float32Array.from(values),
});

const graph = (inputs: Record<string, Tensor>, outputs: Record<string, Tensor>): Graph =>
  new Graph(Object.entries(inputs), Object.entries(outputs));

/** total' = total + x, mean' = mean 0.9 + total', with a metric beside them. */
function counter(runtime: Runtime, size: number): Promise<Program> {
  const [x, total, mean] = [input([size]), input([size]), input([size])];
  const added = total.add(x);
  const drawn = graph(
    { x, total, mean },
    { metric: added.mean(), "next.total": added, "next.mean": mean.mul(0.9).add(added) },
  );
  return runtime.compile(drawn);
}

const dtypes: readonly DType[] = [
  "float32",
  "float64",
  "float16",
  "int32",
  "uint32",
  "int64",
  "uint64",
  "int16",
  "uint16",
  "int8",
  "uint8",
  "bool",
];

const dtypeCases: readonly RuntimeCase[] = dtypes.map((dtype) => ({
  name: `dtype ${dtype}`,
  run: async (runtime) => {
    const x = input([2, 3], dtype);
    const program = await runtime.compile(graph({ x }, { y: x, z: x }));
    const values = dataOf(dtype, dtype === "bool" ? [0, 1, 1, 0, 1, 0] : [0, 1, 2, 3, 100, 127]);
    const host: HostTensor = { dtype, shape: [2, 3], data: values };
    const { y, z } = await program.run({ x: await runtime.upload(host) }, { keep: ["z"] });
    for (const back of [hostOf(y), await runtime.read(deviceOf(z))]) {
      ok(back.dtype === dtype && back.shape.join() === "2,3", `got ${back.dtype} [${back.shape}]`);
      ok(back.data.constructor === values.constructor, `got a ${back.data.constructor.name}`);
      ok(
        bytesView(back.data).every((byte, i) => byte === bytesView(values)[i]),
        "the bytes differ",
      );
    }
    await program.release();
  },
}));

export const runtimeCases: readonly RuntimeCase[] = [
  {
    name: "compiles a graph and runs it",
    run: async (runtime) => {
      const [a, b] = [input([2, 3]), input([3, 2])];
      const program = await runtime.compile(graph({ a, b }, { product: a.matmul(b), sum: a.sum() }));
      ok(
        program.inputs.map((port) => `${port.name} ${port.dtype} ${port.shape}`).join() ===
          "a float32 2,3,b float32 3,2",
        "inputs",
      );
      const feeds = {
        a: { ...floats(1, 2, 3, 4, 5, 6), shape: [2, 3] },
        b: { ...floats(1, 0, 0, 1, 1, 1), shape: [3, 2] },
      };
      const { product, sum } = await program.run(feeds);
      same(product, [4, 5, 10, 11]);
      ok(product.shape.join() === "2,2", `shape ${product.shape}`);
      same(sum, [21]);
      ok(sum.shape.length === 0, "a sum has no axes");
      same(feeds.a, [1, 2, 3, 4, 5, 6]);
    },
  },
  {
    name: "computes the outputs asked for",
    run: async (runtime) => {
      const x = input([2]);
      const program = await runtime.compile(graph({ x }, { a: x.add(1), b: x.mul(2), c: x.neg() }));
      const results = await program.run({ x: floats(1, 2) }, { outputs: ["c", "a", "a"], keep: ["a"] });
      ok(Object.keys(results).sort().join() === "a,c", `got ${Object.keys(results)}`);
      same(results.c, [-1, -2]);
      same(await runtime.read(deviceOf(results.a)), [2, 3]);
    },
  },
  {
    name: "takes batches of any size where the batch is open",
    run: async (runtime) => {
      const x = input([new OpenDim("N"), 2]);
      const program = await runtime.compile(graph({ x }, { y: x.mul(2), s: x.sum() }));
      for (const n of [1, 3, 2]) {
        const data = Float32Array.from({ length: 2 * n }, (_, i) => i);
        const { y, s } = await program.run({ x: { dtype: "float32", shape: [n, 2], data } }, { keep: ["y"] });
        const back = await runtime.read(deviceOf(y));
        ok(back.shape.join() === `${n},2`, `shape ${back.shape}`);
        same(
          back,
          data.map((v) => 2 * v),
        );
        same(s, [n * (2 * n - 1)]);
        runtime.dispose([deviceOf(y)]);
      }
    },
  },
  {
    name: "keeps state over many steps, as the host computes it",
    run: async (runtime) => {
      const size = 1000;
      const program = await counter(runtime, size);
      const total = new Float32Array(size);
      const mean = new Float32Array(size);
      let state = {
        total: await runtime.upload({ dtype: "float32", shape: [size], data: total }),
        mean: await runtime.upload({ dtype: "float32", shape: [size], data: mean }),
      };
      for (let step = 0; step < 40; step++) {
        const x = Float32Array.from({ length: size }, (_, i) => ((i * 7 + step) % 11) - 5);
        const results = await program.run(
          { x: { dtype: "float32", shape: [size], data: x }, ...state },
          { keep: ["next.total", "next.mean"], donate: Object.values(state) },
        );
        state = { total: deviceOf(results["next.total"]), mean: deviceOf(results["next.mean"]) };
        for (let i = 0; i < size; i++) {
          total[i] += x[i];
          mean[i] = Math.fround(mean[i] * Math.fround(0.9)) + total[i];
        }
        same(results.metric, [total.reduce((a, b) => a + b) / size], 1e-3);
      }
      same(await runtime.read(state.total), total);
      same(await runtime.read(state.mean), mean, 1e-3);
      runtime.dispose(Object.values(state));
    },
  },
  {
    name: "leaves alone what was kept and not donated",
    run: async (runtime) => {
      const program = await counter(runtime, 4);
      const [x, zeros] = [floats(1, 2, 3, 4), floats(0, 0, 0, 0)];
      const history: { tensor: DeviceTensor; step: number }[] = [];
      let total = await runtime.upload(zeros);
      let mean = await runtime.upload(zeros);
      for (let step = 1; step <= 12; step++) {
        // Every third total stays; all else is given away.
        const donate = history.some((entry) => entry.tensor === total) ? [mean] : [total, mean];
        const results = await program.run({ x, total, mean }, { keep: ["next.total", "next.mean"], donate });
        [total, mean] = [deviceOf(results["next.total"]), deviceOf(results["next.mean"])];
        if (step % 3 === 0) history.push({ tensor: total, step });
      }
      for (const { tensor, step } of history) same(await runtime.read(tensor), [step, 2 * step, 3 * step, 4 * step]);
    },
  },
  {
    name: "keeps one tensor under two names, and an input as an output",
    run: async (runtime) => {
      const x = input([2]);
      const y = x.add(1);
      const program = await runtime.compile(graph({ x }, { a: y, b: y, c: x, d: x }));
      let held = await runtime.upload(floats(1, 2));
      for (let step = 0; step < 4; step++) {
        const { a, b, c, d } = await program.run({ x: held }, { keep: ["a", "b", "c"], donate: [held] });
        const now = [1 + step, 2 + step];
        same(d, now);
        runtime.dispose([deviceOf(a)]);
        same(
          await runtime.read(deviceOf(b)),
          now.map((v) => v + 1),
        );
        same(await runtime.read(deviceOf(c)), now);
        runtime.dispose([deviceOf(c)]);
        held = deviceOf(b);
      }
    },
  },
  {
    name: "feeds one tensor under two names",
    run: async (runtime) => {
      const [a, b] = [input([2]), input([2])];
      const program = await runtime.compile(graph({ a, b }, { c: a.add(b) }));
      const held = await runtime.upload(floats(1, 2));
      const { c } = await program.run({ a: held, b: held }, { keep: ["c"], donate: [held, held] });
      same(await runtime.read(deviceOf(c)), [2, 4]);
      await fails(() => runtime.read(held), /disposed of or donated/);
    },
  },
  {
    name: "refuses a tensor that was donated, and names the input",
    run: async (runtime) => {
      const program = await counter(runtime, 2);
      const [x, total, mean] = [floats(1, 1), await runtime.upload(floats(0, 0)), await runtime.upload(floats(0, 0))];
      const step = () => program.run({ x, total, mean }, { keep: ["next.total"], donate: [total] });
      const first = await step();
      await fails(step, /the input "total" was disposed of or donated/);
      same(await runtime.read(deviceOf(first["next.total"])), [1, 1]);
    },
  },
  {
    name: "keeps what it runs everywhere where every stream finds it",
    run: async (runtime) => {
      const [x, y] = [input([2]), input([2])];
      const program = await runtime.compile(graph({ x, y }, { sum: x.add(y), twice: x.mul(2) }));
      let held = await runtime.upload(floats(1, 2));
      for (let step = 0; step < 3; step++) {
        const feeds = { x: held, y: floats(1, 1) };
        const { sum, twice } = await program.run(feeds, {
          keep: ["sum"],
          donate: [held],
          everywhere: true,
          transfer: true,
        });
        same(hostOf(twice), [2 * (1 + step), 2 * (2 + step)]);
        held = deviceOf(sum);
        const readers = Array.from({ length: runtime.streams + 1 }, () => program.run({ x: held, y: floats(0, 0) }));
        for (const found of await Promise.all(readers)) same(hostOf(found.sum), [2 + step, 3 + step]);
      }
      if (runtime.streams > 1) {
        const { sum } = await program.run({ x: held, y: floats(1, 1) }, { keep: ["sum"] });
        await fails(() => program.run({ x: sum, y: held }, { everywhere: true }), /lie on different streams/);
      }
      runtime.dispose([held]);
      await program.release();
    },
  },
  {
    name: "keeps what was to be donated when a run fails",
    run: async (runtime) => {
      const [x, rows] = [input([2]), input([1], "int32")];
      const program = await runtime.compile(graph({ x, rows }, { y: x.add(1) }));
      const held = await runtime.upload(floats(1, 2));
      await fails(() => program.run({ x: held }, { keep: ["y"], donate: [held] }), /the input "rows" is missing/);
      same(await runtime.read(held), [1, 2]);
    },
  },
  {
    name: "loses what was donated to a run that failed halfway, which may have written over it",
    run: async (runtime) => {
      const [x, table] = [input([2]), input([3, 1])];
      const y = x.mul(0.5).add(100);
      const rows = gather(table, cast(y, { to: "int32" }), { axis: 0 });
      const program = await runtime.compile(graph({ x, table }, { y, rows }));
      const held = await runtime.upload(floats(1, 2));
      const feeds = { x: held, table: { ...floats(1, 2, 3), shape: [3, 1] } };
      // A browser's engine looks at no index.
      const failed = await program.run(feeds, { keep: ["y"], donate: [held] }).then(
        () => false,
        () => true,
      );
      ok(failed || runtime.device !== "cpu", "an index of 100 in a table of 3 rows");
      await fails(() => runtime.read(held), /disposed of or donated/);
    },
  },
  {
    name: "reshapes what has no elements",
    run: async (runtime) => {
      const x = input([0, 4]);
      const program = await runtime.compile(graph({ x }, { y: x.mul(2).reshape([4, 0]).exp() }));
      const y = hostOf((await program.run({ x: { ...floats(), shape: [0, 4] } })).y);
      ok(y.shape.join() === "4,0", `of shape ${y.shape}`);
    },
  },
  {
    name: "uploads, reads and disposes, twice as well",
    run: async (runtime) => {
      const data = Float32Array.of(9, 1, 2, 3, 9);
      const held = await runtime.upload({ dtype: "float32", shape: [3], data: data.subarray(1, 4) });
      data.fill(7);
      same(await runtime.read(held), [1, 2, 3]);
      same(await runtime.read(held), [1, 2, 3]);
      runtime.dispose([held, held]);
      runtime.dispose([held]);
      await fails(() => runtime.read(held), /disposed of or donated/);
    },
  },
  ...dtypeCases,
  {
    name: "refuses bfloat16 in words",
    run: (runtime) =>
      fails(() => runtime.upload({ dtype: "bfloat16", shape: [1], data: new Uint16Array(1) }), /bfloat16.*\n.*float32/),
  },
  {
    name: "refuses bytes that are no model",
    run: async (runtime) => {
      await fails(
        () => runtime.compile(Uint8Array.of(1, 2, 3, 4, 5)),
        /the engine does not take this model: .*protobuf/i,
      );
      const buffer = new ArrayBuffer(8) as unknown as Graph;
      await fails(() => runtime.compile(buffer), /no graph, and no ONNX.*\n.*new Uint8Array/);
      const page = new TextEncoder().encode("<!doctype html><title>not found</title>");
      await fails(() => runtime.compile(page), /the engine does not take this model: it looks like a web page/);
      const weight = constant(new Float32Array(4096), [4096], "float32");
      const apart = writeOnnxParts(graph({ x: input([4096]) }, { y: weight.add(1) }), { location: "none.data" });
      await fails(() => runtime.compile(apart.model), /its weights lie in another file[\s\S]*help: .*weights inside/);
      const facts = await runtime.compile(apart.model).catch((error: OrielError) => error.facts);
      ok("help" in facts && /weights inside/.test(facts.help ?? ""), "an error's facts come from the engine's thread");
    },
  },
  {
    name: "says which feeds do not fit",
    run: async (runtime) => {
      const [image, label] = [input([1, 3]), input([1], "int32")];
      const program = await runtime.compile(graph({ image, label }, { y: image.sum() }));
      const good = { ...floats(1, 2, 3), shape: [1, 3] };
      const one: HostTensor = { dtype: "int32", shape: [1], data: Int32Array.of(1) };
      await fails(() => program.run({ image: good }), /the input "label" is missing/);
      await fails(
        () => program.run({ image: { ...good, shape: [3, 1] }, label: one }),
        /the input "image" is float32 \[1, 3\], got float32 \[3, 1\]/,
      );
      await fails(
        () => program.run({ image: good, label: floats(1) }),
        /the input "label" is int32 \[1\], got float32 \[1\]/,
      );
      await fails(
        () => program.run({ image: { ...good, data: new Float32Array(2) }, label: one }),
        /takes a Float32Array of 3 values, got a Float32Array of 2/,
      );
      await fails(() => program.run({ image: good, label: one, mask: one }), /there is no input "mask"/);
      const [none, list] = [undefined, [1, 2, 3]] as unknown as HostTensor[];
      await fails(() => program.run({ image: none, label: one }), /the input "image" is missing/);
      await fails(() => program.run({ image: list, label: one }), /the input "image" is no tensor: it takes \{ dtype/);
      await fails(() => program.run({ image: good, label: one }, { outputs: ["z"] }), /there is no output "z"/);
      await fails(() => program.run({ image: good, label: one }, { keep: ["z"] }), /"z" is to be kept/);
      same((await program.run({ image: good, label: one })).y, [6]);
    },
  },
  {
    name: "refuses the tensors of another runtime",
    run: async (runtime, open) => {
      const other = await open();
      const x = input([1]);
      const program = await runtime.compile(graph({ x }, { y: x.add(1) }));
      const theirs = await other.upload(floats(1));
      await fails(() => program.run({ x: theirs }), /belongs to another runtime/);
      await fails(() => runtime.read(theirs), /belongs to another runtime/);
      await other.close();
    },
  },
  {
    name: "releases programs",
    run: async (runtime) => {
      const x = input([1]);
      const program = await runtime.compile(graph({ x }, { y: x.add(1) }));
      const held = deviceOf((await program.run({ x: floats(1) }, { keep: ["y"] })).y);
      await program.release();
      await program.release();
      await fails(() => program.run({ x: floats(1) }), /the program was released/);
      same(await runtime.read(held), [2]);
    },
  },
  {
    name: "answers calls that were made at once, in order",
    run: async (runtime) => {
      const program = await counter(runtime, 2);
      const mean = await runtime.upload(floats(0, 0));
      const runs = Array.from({ length: 12 }, (_, i) =>
        program.run({ x: floats(i, i + 1), total: floats(10, 20), mean }),
      );
      for (const [i, results] of (await Promise.all(runs)).entries()) same(results["next.total"], [10 + i, 21 + i]);
    },
  },
  {
    name: "takes the memory that is handed over",
    run: async (runtime) => {
      const [a, b, c] = [input([4]), input([2]), input([2])];
      const program = await runtime.compile(graph({ a, b, c }, { s: a.sum().add(b.sum()).add(c.sum()) }));
      const [whole, shared] = [floats(1, 2, 3, 4), Float32Array.of(1, 2, 3, 4)];
      const half = (from: number): HostTensor => ({ ...floats(0, 0), data: shared.subarray(from, from + 2) });
      same((await program.run({ a: whole, b: half(0), c: half(2) }, { transfer: true })).s, [20]);
      ok(whole.data.byteLength === 0, "the buffer is still here");
      ok(shared.join() === "1,2,3,4", "a part of a buffer took all of it along");
      const given = floats(1, 2);
      same(await runtime.read(await runtime.upload(given, { transfer: true })), [1, 2]);
      ok(given.data.byteLength === 0, "the uploaded buffer is still here");
      const x = input([2]);
      const model = writeOnnx(graph({ x }, { y: x.neg() }));
      for (const transfer of [false, true]) {
        const compiled = await runtime.compile(model, { transfer });
        same((await compiled.run({ x: floats(1, 2) })).y, [-1, -2]);
        ok((model.byteLength === 0) === transfer, transfer ? "the model is still here" : "the model is gone");
      }
    },
  },
  {
    name: "copies memory that threads share",
    run: async (runtime) => {
      if (typeof SharedArrayBuffer === "undefined") return; // a page that is not cross-origin isolated
      const x = input([2]);
      const program = await runtime.compile(graph({ x }, { y: x.add(1) }));
      const data = new Float32Array(new SharedArrayBuffer(8)).fill(1);
      const shared = { ...floats(1, 1), data } as unknown as HostTensor;
      for (const transfer of [false, true]) same((await program.run({ x: shared }, { transfer })).y, [2, 2]);
      const held = await runtime.upload(shared);
      data.fill(5);
      same(await runtime.read(held), [1, 1]);
    },
  },
  {
    name: "fails what waits when it is closed",
    run: async (_, open) => {
      const runtime = await open();
      const x = input([512, 512]);
      let y: Tensor = x;
      for (let i = 0; i < 24; i++) y = y.matmul(x);
      const program = await runtime.compile(graph({ x }, { y: y.mean() }));
      const feeds = { x: { dtype: "float32", shape: [512, 512], data: new Float32Array(512 ** 2) } } as const;
      const waiting = Promise.all([
        fails(() => program.run(feeds), /the runtime was closed/),
        fails(() => program.run(feeds), /the runtime was closed/),
      ]);
      await new Promise((resolve) => setTimeout(resolve, 5));
      await runtime.close();
      await waiting;
      await fails(() => program.run(feeds), /the runtime was closed/);
      await runtime.close();
    },
  },
];
