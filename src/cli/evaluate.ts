import { z } from "zod";
import { cutTo, onOneLine, some, textWidth } from "../base/text.ts";
import { type Evaluation, evaluate } from "../train/index.ts";
import { arg, defineCommand, shared, streams } from "./command.ts";
import { pad, percent, styled, table } from "./out.ts";
import { Progress } from "./progress.ts";

export default defineCommand({
  name: "evaluate",
  summary: "Judge a model by labelled pictures: top-1 and top-5, classes, confusion matrix, worst mistakes",
  details:
    "Pictures that cannot be read are told of, counted and left out.  Of the pictures of the model's own run, those that it set " +
    "aside judge it.",
  args: {
    checkpoint: arg("best.safetensors or model.onnx of a run folder, or plain weights with --model"),
    data: arg("pictures in class folders, a .csv list or a .tar archive; of several sets, val"),
  },
  imports: true,
  flags: z.object({
    model: z.string().optional().describe("the model that plain weights are for"),
    batch: z.int().min(1).optional().describe("pictures at once; by their size"),
    worst: z.int().min(0).default(5).describe("mistakes to list"),
    all: z.boolean().default(false).describe("judge by the pictures of the model's own run that it learnt from, too"),
    workers: z.int().min(0).optional().describe("threads that read pictures; half the cores, at least two"),
    ...shared,
    streams,
  }),
  short: { model: "m", batch: "b" },
  examples: [
    [
      "oriel evaluate runs/cswin_tiny_224/best.safetensors new-photos",
      "how good a run's best weights are on other pictures",
    ],
    ["oriel evaluate resnet20.th cifar10-test.tar -m resnet20_cifar", "published weights, on an archive"],
    ["oriel evaluate model.onnx photos --json", "for machines: { total, correct, top1, top5, skipped, classes, … }"],
  ],
  async run({ checkpoint, data, ...options }, out) {
    const progress = new Progress();
    try {
      const found = await evaluate(checkpoint, data, { ...options, onEvent: progress.on });
      progress.clear();
      out.result(found, () => describe(found));
    } finally {
      progress.clear();
    }
  },
});

/** Classes up to which a confusion matrix fits a terminal. */
const mostColumns = 20;

function describe({ total, correct, top1, top5, skipped, classes, confusion, mistakes }: Evaluation): string {
  const parts = [
    `${styled("bold", `top-1 ${percent(top1, 2)}`)} (${correct} of ${total})  top-5 ${percent(top5, 2)}${skipped > 0 ? `  ${some(skipped, "picture")} left out` : ""}`,
    table(
      ["class", "pictures", "right", "recall", "precision", "F1"],
      classes.map(({ name, total, correct, predicted }) => [
        onOneLine(name),
        String(total),
        String(correct),
        share(correct, total),
        share(correct, predicted),
        share(2 * correct, total + predicted),
      ]),
    ),
  ];
  if (confusion && classes.length <= mostColumns) {
    const names = classes.map(({ name }) => onOneLine(name));
    parts.push(`Taken for (a row for what they are)\n${matrix(names, confusion)}`);
  }
  if (mistakes.length > 0)
    parts.push(
      `Worst mistakes\n${table(
        ["picture", "is", "taken for", "probability"],
        mistakes.map(({ image, label, predicted, probability }) => [
          ...[image, label, predicted].map(onOneLine),
          percent(probability),
        ]),
      )}`,
    );
  return parts.join("\n\n");
}

const share = (part: number, whole: number): string => (whole > 0 ? percent(part / whole) : "–");

/** Width that a matrix may take where nothing says how wide the terminal is. */
const usualWidth = 100;

/**
 * A confusion matrix; zeros are dots, so that what is confused stands out.  Columns are headed by as much of their names as there
 * is room for, or by numbers where that does not tell them apart.  [classes][classes]
 */
export function matrix(
  names: readonly string[],
  confusion: readonly (readonly number[])[],
  room = process.stdout.columns ?? usualWidth,
): string {
  const longest = Math.max(...names.map(textWidth));
  const least = Math.max(4, ...confusion.flat().map((n) => String(n).length));
  const width = Math.max(least, Math.min(longest, Math.floor((room - longest) / names.length) - 1));
  const cut = names.map((name) => cutTo(name, width));
  const isTold = new Set(cut).size === names.length;
  const rows = isTold ? names : names.map((name, i) => `${i + 1} ${name}`);
  const heads = isTold ? cut : names.map((_, i) => String(i + 1));
  const first = Math.max(...rows.map(textWidth));
  const lines = confusion.map((row, i) => {
    const cells = row.map((n, j) => {
      const cell = (n === 0 ? "·" : String(n)).padStart(width);
      return i === j ? styled("green", cell) : n > 0 ? styled("red", cell) : cell;
    });
    return [pad(rows[i], first), ...cells].join(" ");
  });
  return [[pad("", first), ...heads.map((head) => pad(head, width, true))].join(" "), ...lines].join("\n");
}
