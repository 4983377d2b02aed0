import assert from "node:assert/strict";
import { test } from "node:test";
import { commandWord, onOneLine } from "../../src/base/text.ts";
import { matrix } from "../../src/cli/evaluate.ts";
import { table } from "../../src/cli/out.ts";

test("columns are as wide as they look", () => {
  const rows = [["日本 語", "1"], ["Äpfel", "20"], ["A\u0308pfel", "3"], ["🍎", "4"]]; // biome-ignore format: a table
  assert.equal(
    table(["class", "n"], rows),
    ["class     n", "日本 語   1", "Äpfel    20", "A\u0308pfel     3", "🍎        4"].join("\n"),
  );
  assert.equal(onOneLine("a\nb\u001b[31m\u009b"), "a\\nb\\u001b[31m\\u009b");
});

test("a confusion matrix tells its columns apart", () => {
  const two = [[1, 0], [2, 3]]; // biome-ignore format: a matrix
  assert.equal(
    matrix(["sunflower", "sunfish"], two, 40),
    ["          sunflower   sunfish", "sunflower         1         ·", "sunfish           2         3"].join("\n"),
  );
  assert.equal(
    matrix(["sunflower", "sunfish"], two, 20),
    ["               1    2", "1 sunflower    1    ·", "2 sunfish      2    3"].join("\n"),
  );
  assert.equal(matrix(["red", "日本語"], two, 80), ["          red 日本語", "red         1      ·", "日本語      2      3"].join("\n")); // biome-ignore format: a line
});

test("a word to copy is in quotes where a shell would split it or read more into it", () => {
  assert.deepEqual(["runs/a-1", "C:\\bild", "mein Lauf", "é", "$x", "it's $5", ""].map(commandWord), [
    "runs/a-1",
    "C:\\bild",
    '"mein Lauf"',
    "é",
    "'$x'",
    "'it'\\''s $5'",
    '""',
  ]);
});
