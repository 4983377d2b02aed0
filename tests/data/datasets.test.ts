import assert from "node:assert/strict";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { UsageError } from "../../src/base/errors.ts";
import {
  alignClasses,
  classCounts,
  classWeights,
  type Dataset,
  openDataset,
  openSplits,
  parseCsv,
  splitDataset,
  subset,
} from "../../src/data/index.ts";
import { folder, memoryDataset, shared, tar } from "./helpers.ts";

const bytes = (text: string): Uint8Array => Buffer.from(text);
const labelled = (dataset: Dataset): [string, string][] =>
  Array.from({ length: dataset.length }, (_, i) => [dataset.name(i), dataset.classes[dataset.label(i)]]);
const wrong = (promise: Promise<unknown>, message: RegExp): Promise<void> =>
  assert.rejects(promise, (error) => {
    assert.ok(error instanceof UsageError, String(error));
    assert.match(error.message, message);
    return true;
  });

const pets = {
  "dog/b.JPG": "d1",
  "dog/nested/deep/a.png": "d2",
  "cat/10.jpeg": "c1",
  "cat/9.webp": "c2",
  "Zebra/z.gif": "z",
};

describe("a folder of class folders", () => {
  test("a telephone's pictures count, though they cannot be read: they are to be told of", async () => {
    const dataset = await openDataset(await folder({ "cat/1.HEIC": "x", "dog/1.png": "x" }));
    assert.equal(dataset.length, 2);
  });

  test("classes by name, pictures at any depth, other files left out", async () => {
    const root = await folder({
      ...pets,
      "cat/notes.txt": "x",
      "cat/._9.webp": "x",
      "__MACOSX/cat/9.webp": "x",
      ".git/a.png": "x",
      "loose.png": "x",
    });
    const dataset = await openDataset(root);
    assert.deepEqual(dataset.classes, ["Zebra", "cat", "dog"]);
    assert.deepEqual(
      labelled(dataset).map(([name, label]) => [name.slice(root.length + 1), label]),
      [
        ["Zebra/z.gif", "Zebra"],
        ["cat/10.jpeg", "cat"],
        ["cat/9.webp", "cat"],
        ["dog/b.JPG", "dog"],
        ["dog/nested/deep/a.png", "dog"],
      ],
    );
    assert.equal(Buffer.from(await dataset.read(4)).toString(), "d2");
    assert.deepEqual([...classCounts(dataset)], [1, 2, 2]);
    assert.deepEqual(
      [...classWeights(dataset)].map((w) => w.toFixed(3)),
      ["1.667", "0.833", "0.833"],
    );
  });

  test("links are followed, circles are not", async () => {
    const root = await folder(pets);
    const elsewhere = await folder({ "owl/1.png": "o" });
    await symlink(join(elsewhere, "owl"), join(root, "owl"));
    await symlink(root, join(root, "dog/again"));
    const dataset = await openDataset(root);
    assert.deepEqual(dataset.classes, ["Zebra", "cat", "dog", "owl"]);
    assert.equal(dataset.length, 6);
    await symlink("cat", join(root, "lion"));
    assert.deepEqual([...classCounts(await openDataset(root))], [1, 2, 2, 2, 1]);
  });

  test("what cannot be used is said clearly", async () => {
    const root = await folder(pets);
    await wrong(openDataset(`${root}/dgo`), /there is no file or folder .*dgo\n {2}help: beside it are dog/);
    await wrong(openDataset(join(root, "nowhere/at/all")), /does not exist either/);
    await wrong(openDataset(await folder({})), /there are no pictures in/);
    await wrong(
      openDataset(await folder({ "a.jpg": "x", "b.jpg": "x" })),
      /there are 2 pictures, but no class folders/,
    );
    const one = await folder({ "only/a.jpg": "x" });
    await wrong(openDataset(one), /has one class only, only;/);
    assert.deepEqual((await openDataset(one, { split: "val" })).classes, ["only"]); // something can be judged by it
    const withEmpty = await folder({ ...pets, "fox/readme.txt": "x" });
    await mkdir(join(withEmpty, "wolf"));
    await wrong(openDataset(withEmpty), /2 of the 5 class folders .* hold no pictures\n {2}fox\n {2}wolf/);
  });
});

describe("a tar archive of class folders", () => {
  const long = `cat/${"x".repeat(120)}.jpg`;
  const files = {
    ...Object.fromEntries(Object.entries(pets).map(([path, text]) => [path, bytes(text)])),
    [long]: bytes("long"),
  };

  for (const form of ["pax", "gnu"] as const) {
    test(`is the same as the folder (${form} names)`, async () => {
      const root = await folder({ ...files, "pets.txt": "" });
      const inside = Object.fromEntries(Object.entries(files).map(([path, body]) => [`./pets/data/${path}`, body]));
      const archive = await folder({
        "pets.tar": tar(
          { "./": bytes(""), "./pets/data/cat/": bytes(""), ...inside, "./pets/data/cat/notes.txt": bytes("x") },
          form,
        ),
      });
      const [a, b] = [await openDataset(root), await openDataset(join(archive, "pets.tar"))];
      assert.deepEqual(b.classes, a.classes);
      assert.equal(b.length, a.length);
      for (let i = 0; i < a.length; i++) {
        assert.equal(b.label(i), a.label(i));
        assert.equal(b.name(i), `${archive}/pets.tar:pets/data/${a.name(i).slice(root.length + 1)}`);
        assert.deepEqual(Buffer.from(await b.read(i)), Buffer.from(await a.read(i)));
      }
      await b.close?.();
    });
  }

  for (const form of ["pax", "gnu"] as const) {
    test(`links to pictures are pictures (${form} names)`, async () => {
      const inside = Object.fromEntries(Object.entries(files).map(([path, body]) => [`./${path}`, body]));
      const links = {
        "./cat/hard.jpg": { hard: `./${long}` },
        "./dog/soft.jpg": { soft: "../cat/9.webp" },
        "./dog/softer.jpg": { soft: "soft.jpg" },
        "./dog/round.jpg": { soft: "round.jpg" },
        "./dog/out.jpg": { soft: "/etc/out.jpg" },
      };
      const root = await folder({ "linked.tar": tar(inside, form, links) });
      const dataset = await openDataset(join(root, "linked.tar"));
      const read = async (name: string): Promise<string> => {
        const names = Array.from({ length: dataset.length }, (_, i) => dataset.name(i));
        return Buffer.from(await dataset.read(names.indexOf(`${root}/linked.tar:${name}`))).toString();
      };
      assert.equal(await read("cat/hard.jpg"), "long");
      assert.equal(await read("dog/soft.jpg"), "c2");
      assert.equal(await read("dog/softer.jpg"), "c2");
      await assert.rejects(read("dog/round.jpg"), /a link to what is no file of the archive/);
      await assert.rejects(read("dog/out.jpg"), /a link to what is no file of the archive/);
      await dataset.close?.();
    });
  }

  test("what is no archive, or not a whole one", async () => {
    const whole = tar(files);
    const root = await folder({
      "cut.tar": whole.subarray(0, 1100),
      "zip.tar": Buffer.concat([Buffer.from([0x1f, 0x8b]), whole]),
      "pets.zip": Buffer.from("PK\u0003\u0004 and so on"),
      "text.tar": Buffer.alloc(2000, "a"),
      "empty.tar": "",
    });
    await wrong(openDataset(join(root, "cut.tar")), /cut short or damaged at byte 1024/);
    await wrong(openDataset(join(root, "zip.tar")), /compressed \(gzip\)[\s\S]*unpack it/);
    await wrong(openDataset(join(root, "pets.zip")), /compressed \(zip\)/);
    await wrong(openDataset(join(root, "text.tar")), /not a tar archive/);
    await wrong(openDataset(join(root, "empty.tar")), /no pictures/);
  });

  const cifar = shared("data/cifar10-train.tar");
  test("CIFAR-10", { skip: cifar.skip }, async () => {
    const dataset = await openDataset(cifar.path);
    assert.equal(dataset.length, 50_000);
    assert.deepEqual([...classCounts(dataset)], Array(10).fill(5000));
    assert.deepEqual([...(await dataset.read(49_999)).subarray(0, 3)], [0xff, 0xd8, 0xff]);
    await dataset.close?.();
  });
});

describe("a csv list", () => {
  const open = async (
    list: string,
    files: Record<string, string> = { "a.jpg": "1", "sub/b, c.jpg": "2" },
  ): Promise<Dataset> => openDataset(join(await folder({ ...files, "list.csv": list }), "list.csv"));

  test("with a header or without, quoted or not, any line ends", async () => {
    const expected = [
      ["a.jpg", "cat"],
      ["b, c.jpg", "dog"],
    ];
    for (const list of [
      'a.jpg,cat\n"sub/b, c.jpg",dog\n',
      '\uFEFFpath,label\r\na.jpg,cat\r\n"sub/b, c.jpg",dog',
      'file_path,species\na.jpg,cat\n"sub/b, c.jpg",dog',
      'id,Class,Filename\n1,cat,a.jpg\n\n2,dog,"sub/b, c.jpg"\n',
      'path;label\r\na.jpg;cat\r\n"sub/b, c.jpg";dog\r\n',
      "a.jpg;cat\nsub/b, c.jpg;dog",
      "label\tpath\rcat\ta.jpg\rdog\tsub/b, c.jpg\r",
    ]) {
      const dataset = await open(list);
      assert.deepEqual(
        labelled(dataset).map(([name, label]) => [name.split("/").at(-1), label]),
        expected,
      );
      assert.equal(Buffer.from(await dataset.read(1)).toString(), "2");
    }
  });

  test("numbers as labels are in numeric order", async () => {
    const names = ["10", "9", "0"];
    const dataset = await open(
      names.map((n) => `${n}.png,${n}`).join("\n"),
      Object.fromEntries(names.map((n) => [`${n}.png`, n])),
    );
    assert.deepEqual(dataset.classes, ["0", "9", "10"]);
    assert.equal(dataset.label(0), 2);
  });

  test("wrong rows are told with their line numbers, all at once", async () => {
    await wrong(
      open("path,label\na.jpg,cat\nmissing.jpg,dog\na.jpg,\n"),
      /2 of the 3 rows are wrong.*\n {2}line 3: there is no file .*missing.jpg\n {2}line 4: the label is missing/,
    );
    await wrong(open("a.jpg,cat,extra\n"), /line 1: 3 columns instead of 2/);
    await wrong(open("a.jpg,cat\na.jpg,cat\n"), /one class only, cat/);
    await wrong(open("path,label\n"), /names no pictures/);
    await wrong(
      open("photo,breed\na.jpg,cat\n"),
      /nor names of columns.*: photo,breed.*\n {2}help: .*filename.*species/,
    );
    await wrong(open('a.jpg,cat\n"a.jpg,dog\na.jpg,cat\n'), /line 2: a quotation mark is not closed .*list\.csv/);
  });

  test("letters in another encoding are refused, since they could make two classes one", async () => {
    const root = await folder({ "a.jpg": "1", "list.csv": Buffer.from("a.jpg,grün\na.jpg,grau\n", "latin1") });
    await wrong(openDataset(join(root, "list.csv")), /not in UTF-8 .*list\.csv/);
    await writeFile(join(root, "list.csv"), "\uFEFFpath,label\na.jpg,x\n", "utf16le");
    await wrong(openDataset(join(root, "list.csv")), /not in UTF-8/);
  });

  test("quotes span lines and keep line numbers right", () => {
    assert.deepEqual(parseCsv('a,"b\nc ""d"""\ne,f'), [
      { line: 1, fields: ["a", 'b\nc "d"'] },
      { line: 3, fields: ["e", "f"] },
    ]);
  });
});

describe("splits", () => {
  const both = {
    "train/cat/1.png": "",
    "train/dog/1.png": "",
    "train/owl/1.png": "",
    "val/owl/2.png": "",
    "val/cat/2.png": "",
  };

  test("folders of the usual names; labels are numbered as training's", async () => {
    for (const name of ["val", "valid", "validation", "test"]) {
      const files = Object.fromEntries(
        Object.entries(both).map(([path, text]) => [path.replace("val/", `${name}/`), text]),
      );
      const { train, val, test: third } = await openSplits(await folder(files));
      assert.deepEqual([train.length, val.length, third], [3, 2, undefined]);
      assert.deepEqual(val.classes, ["cat", "dog", "owl"]);
      assert.deepEqual([val.label(0), val.label(1)], [0, 2]);
    }
    const three = await openSplits(await folder({ ...both, "test/dog/3.png": "" }));
    assert.equal(three.test?.label(0), 1);
  });

  test("in an archive, and as lists and archives side by side", async () => {
    const archive = await folder({
      "all.tar": tar(Object.fromEntries(Object.keys(both).map((path) => [`set/${path}`, bytes("x")]))),
    });
    const inside = await openSplits(join(archive, "all.tar"));
    assert.equal(inside.val.length, 2);
    const halves = splitDataset(await openDataset(join(archive, "all.tar"), { split: "train" }));
    for (const { train, val } of [inside, halves]) await Promise.all([train.close?.(), val.close?.()]); // of one file
    const lists = await folder({
      ...both,
      "train.csv": "train/cat/1.png,cat\ntrain/dog/1.png,dog",
      "valid.csv": "val/cat/2.png,cat",
    });
    const { train, val } = await openSplits(lists);
    assert.deepEqual([train.length, val.length, val.label(0)], [2, 1, 0]);
  });

  test("one of several has to be named", async () => {
    const root = await folder(both);
    await wrong(openDataset(root), /it holds several sets: train, val/);
    assert.equal((await openDataset(root, { split: "val" })).length, 2);
    assert.equal((await openDataset(join(root, "train"))).length, 3);
    await wrong(openDataset(root, { split: "test" }), /it holds no test set/);
  });

  test("a label that training lacks", async () => {
    await wrong(
      openSplits(await folder({ ...both, "val/dgo/1.png": "" })),
      /1 of the 3 classes are not among the 3 trained on\n {2}dgo \(nearest: dog/,
    );
    const val = await memoryDataset(4, { classes: 2 });
    assert.throws(() => alignClasses({ classes: ["class1"] }, val), /class0/);
    assert.deepEqual(
      [0, 1].map((i) => alignClasses({ classes: ["x", "class1", "class0"] }, val).label(i)),
      [2, 1],
    );
    const composed = { ...val, classes: ["caf\u00e9", "tea"] };
    assert.equal(alignClasses({ classes: ["tea", "cafe\u0301"] }, composed).label(0), 1); // as a Mac names folders
  });

  test("a fraction of every class, the same each time, whatever else there is", async () => {
    const all = await memoryDataset(103, { classes: 4, label: (i) => (i < 2 ? 3 : i % 3) });
    const { train, val } = splitDataset(all, { fraction: 0.2, seed: 5 });
    assert.deepEqual(
      [...classCounts(val)],
      [7, 7, 7, 1].map((n, c) => (c < 3 ? Math.round(0.2 * classCounts(all)[c]) : n)),
    );
    assert.equal(train.length + val.length, 103);
    const names = (d: Dataset): string[] => labelled(d).map(([name]) => name);
    assert.equal(new Set([...names(train), ...names(val)]).size, 103);
    assert.deepEqual(names(splitDataset(all, { fraction: 0.2, seed: 5 }).val), names(val));
    assert.notDeepEqual(names(splitDataset(all, { fraction: 0.2, seed: 6 }).val), names(val));
    const onlyTwo = splitDataset({ ...subset(all, [0, 1]), classes: all.classes }, { fraction: 0.2, seed: 5 });
    assert.deepEqual(
      names(onlyTwo.val),
      names(val).filter((name) => name === "memory/0.png" || name === "memory/1.png"),
    );
    const single = splitDataset(await memoryDataset(3, { classes: 3 }));
    assert.deepEqual([single.train.length, single.val.length], [3, 0]);
    assert.throws(() => splitDataset(all, { fraction: 1 }), UsageError);
  });
});
